# SPDX-License-Identifier: Apache-2.0
"""Writes docs/benchmarks.md from the files of benchmarks/results; a test fails while it is stale.

    python3 benchmarks/tables.py            # write
    python3 benchmarks/tables.py --check    # exit code 1 if the file is not what would be written
    python3 benchmarks/tables.py --plots    # write, and draw the GPU's files anew; needs matplotlib
"""

import argparse
import json
import pathlib
import re
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "benchmarks.md"

HEAD = """# Benchmarks

<!-- Made by benchmarks/tables.py from benchmarks/results. -->

Every figure is a field of the file named above its table. *Floor*: the bytes that the operator must move at the copy
bandwidth that the same process measured, or the arithmetic that it must do at the measured peak. Medians unless the
table says otherwise. A program refuses to time a wrong result.

```sh
./dev bench rope                                                   # CPU, one operator
./dev bench --gpu                                                  # GPU, the C++ side: memory rows and attention's
build/release/fulmen_gpu_bench out.json attention D1,D5            # or some of it
python3 benchmarks/peers/gpu_memory.py --out peers.json            # GPU, beside PyTorch and FlashInfer
python3 benchmarks/peers/gpu_flashinfer.py --out paged.json        # GPU, paged decode with both libraries
python3 benchmarks/peers/gpu_pod.py --out pod.json                 # GPU, a prefill beside decodes with both libraries
python3 benchmarks/peers/gpu_sampling.py --out sampling.json       # GPU, sampling with both libraries
python3 benchmarks/host_cost.py --out host.json                    # what a call costs on the host
```
"""


def number(value: float | None) -> str:
    if not value:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table; the first columns that hold words are left, numbers right."""
    rule = ["---" if i == 0 or name in ("shape", "what") else "--:" for i, name in enumerate(head)]
    return ["| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)]


def share(floor: float | None, us: float | None) -> str:
    return f"{100 * floor / us:.0f} %" if floor and us else "–"


def peers(data: dict[str, Any]) -> list[str]:
    """Fulmen beside others: microseconds, and how many times Fulmen's."""
    names = list(dict.fromkeys(n for row in data["rows"] for n in [*row["peers"], *row["problems"]] if n != "fulmen"))
    rows, notes = [], []
    for row in data["rows"]:
        us, cells = row["us"], []
        for name in names:
            theirs = row["peers"].get(name)
            cells.append(f"{number(theirs)} ({theirs / us:.2f}×)" if theirs and us else number(theirs))
        rows.append([row["id"], row["shape"], number(row["floor_us"]), number(us), share(row["floor_us"], us), *cells])
        for name, text in row["problems"].items():
            notes.append(f"- {row['id']}, {name}: not timed: {text.splitlines()[0] if text else ''}")
        for name in [n for n, method in row["methods"].items() if method == "queue"]:
            notes.append(f"- {row['id']}, {name}: no CUDA graph can capture it; timed queued behind a busy kernel")
    lines = table(["id", "shape", "floor µs", "fulmen µs", "% of floor", *(f"{n} µs" for n in names)], rows)
    return [*lines, "", *notes] if notes else lines


def gpu_operators(data: dict[str, Any]) -> list[str]:
    rows = [[r["id"], r["shape"], number(r.get("floor_us")), number(r["us"]), number(r.get("graph_us")),
             share(r.get("floor_us"), r["us"]), share(r.get("floor_us"), r.get("graph_us"))]
            for r in data["rows"] if "us" in r]  # fmt: skip
    return table(["id", "shape", "floor µs", "one launch µs", "in a graph µs", "% of floor", "in a graph"], rows)


def host_cost(data: dict[str, Any]) -> list[str]:
    rows = [[r["id"], number(r["us"])] for r in data["rows"]]
    facts = [[name.replace("_", " "), f"{value:,}"] for name, value in data["facts"].items()]
    for m in data["memory"]:
        facts.append([f"{m['device']}: KB of memory added by calls {m['calls'] // 10:,} to {m['calls']:,}",
                      f"{m['added_kb'][-1]:,}"])
    return [*table(["call", "µs (best)"], rows), "", *table(["what", ""], facts)]


def jit(data: dict[str, Any]) -> list[str]:
    def cells(times: dict[str, float]) -> list[str]:
        return [number(times[name]) for name in ("median", "max")]

    places = ("compile_cpu_ms", "disk_hit_ms", "pack_hit_ms")
    families = sorted(data["rows"], key=lambda r: (r["id"] == "all", r["id"]))
    rows = [[r["id"], str(r["kernels"]), *(c for place in places for c in cells(r[place]))] for r in families]
    head = ["kernels of", "how many"]
    for what in ("compiling", "disk hit", "pack hit"):
        head += [f"{what}, ms", "at most"]
    return table(head, rows)


def texts(data: dict[str, Any]) -> list[str]:
    rows = [[r["id"], r["shape"], number(r["us"]), number(r.get("option_us")), number(r.get("compiler_ms"))]
            for r in data["rows"]]  # fmt: skip
    return table(["id", "shape", "text µs", "built-in option µs", "compiler, processor ms"], rows)


def facts(data: dict[str, Any]) -> list[str]:
    return table(["what", ""], [[r["id"], f"{r['value']:,}"] for r in data["rows"]])


def cpu_operators(files: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """All operators' files of one machine in one table."""
    rows = []
    for _, data in files:
        for r in data["rows"]:
            foreign = r.get("foreign_cpu")
            rows.append([r["id"], r["shape"], number(r["floor_us"]), number(r["us"]), number(r.get("median_us")),
                         share(r["floor_us"], r["us"]), "–" if foreign is None else f"{100 * foreign:.0f} %"])
    head = ["row", "shape", "floor µs", "best µs", "median µs", "% of floor, best", "CPU used by others"]
    return table(head, rows)


def kind_of(data: dict[str, Any]) -> tuple[str, Any] | None:
    """(title, writer) of a file that has a section of its own."""
    rows = data["rows"]
    if data["suite"].startswith("gpu") and rows and {"id", "shape"} <= rows[0].keys():
        return f"Operators, GPU: {data['suite'].removeprefix('gpu-')}", gpu_operators
    if data["suite"].startswith("peers"):
        return f"Beside PyTorch and FlashInfer, GPU: {data['suite'].removeprefix('peers').strip('-') or 'all'}", peers
    titles = {
        "host_cost": ("Cost of a call on the host", host_cost),
        "jit": ("Kernels: compiling, and finding them again", jit),
        "tests": ("Tests on a GPU", facts),
        "serving-pack": ("The pack of all kernels that serving needs", facts),
        "jit_crash": ("Processes killed on one cache", facts),
        "cpu_texts": ("Texts of users on the CPU", texts),
    }
    return titles.get(data["suite"])


def origin(name: str, data: dict[str, Any]) -> str:
    words = [data["device"], data.get("driver", "").split("\n")[0], f"commit {data['commit'][:16]}", data["date"][:10]]
    versions = ", ".join(f"{n} {v}" for n, v in data.get("versions", {}).items())
    copy = data.get("ceilings", {}).get("copy_bytes_per_second")
    words += [versions] + ([f"copy {copy / 1e12:.2f} TB/s"] if copy else [])
    return f"`benchmarks/results/{name}`: " + "; ".join(w for w in words if w) + "."


def result_files() -> list[tuple[str, dict[str, Any]]]:
    return [(f.name, json.loads(f.read_text())) for f in sorted(RESULTS.glob("*.json"), key=lambda f: f.stem)]


def newest(files: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Of each suite and device the last file that has a section: …-SUITE_3.json after …-SUITE.json after
    …-SUITE-first.json.
    """

    def age(item: tuple[str, dict[str, Any]]) -> tuple[str, int]:
        stem = item[0].removesuffix(".json")
        number = stem.rpartition("_")[2]
        return item[1]["date"][:10], int(number) if number.isdigit() else int(stem.endswith(item[1]["suite"]))

    return list({(d["suite"], d["device"]): (n, d) for n, d in sorted(files, key=age) if kind_of(d)}.values())


def compared(suites: dict[str, str]) -> list[tuple[str, float, str]]:
    """Per row of these suites' newest files, each row of the first that has it: (label, their best time by ours,
    whose). suites: to the peer, by how its series' names begin.
    """
    found: dict[str, tuple[str, float, str]] = {}
    files = {data["suite"]: data for _, data in newest(result_files())}
    for suite, peer in suites.items():
        data = files[suite]
        version = data["versions"].get(peer, "")
        name = "PyTorch's FlashAttention 2" if peer == "pytorch fa2" else f"FlashInfer {version}"
        steps = any(row["id"].endswith(" step") for row in data["rows"])
        for row in data["rows"]:
            times = [us for series, us in row["peers"].items() if series.startswith(peer) and us]
            if times and (row["id"].endswith(" step") or not steps):
                label = f"{row['id'].removesuffix(' step')}  {row['shape'].removesuffix(', 8 layers')}"
                found.setdefault(row["id"], (label, min(times) / row["us"], name))
    return list(found.values())


def draw_overview(output: pathlib.Path) -> None:
    """The README's picture: every row that a peer could run."""
    import plot

    rows = compared({
        "peers-sampling": "flashinfer",
        "peers-paged-attention": "flashinfer",
        "peers-attention": "pytorch fa2",
        "peers-memory-flashinfer-0.7": "flashinfer",
        "peers-memory": "flashinfer",
    })

    def place(row: tuple[str, float, str]) -> tuple[int, int]:
        letter, number = re.match(r"([A-Z])(\d+)", row[0]).groups()
        return "SDPCN".index(letter), int(number)

    plot.draw_ratios(sorted(rows, key=place), "One H100; every row that both could run", output)


def draw_plots() -> None:
    import plot

    draw_overview(ROOT / "docs" / "images" / "speed.svg")

    for name, data in newest(result_files()):
        if data["suite"].startswith(("gpu", "peers")):
            plot.draw([RESULTS / name], RESULTS / name.replace(".json", ".svg"))


def page() -> str:
    files, parts = result_files(), [HEAD]
    for name, data in sorted(newest(files), key=lambda item: kind_of(item[1])[0]):
        title, write = kind_of(data)
        plot = name.replace(".json", ".svg")
        picture = [f"![{title}](../benchmarks/results/{plot})", ""] if (RESULTS / plot).exists() else []
        parts.append("\n".join([f"## {title}", "", origin(name, data), "", *picture, *write(data)]) + "\n")
    plain = [(n, d) for n, d in files if d["rows"] and not kind_of(d)
             and {"id", "us", "floor_us", "shape"} <= d["rows"][0].keys()]  # fmt: skip
    if plain:
        _, data = plain[0]
        about = (f"`benchmarks/results/*-cpu-*.json`: {data['device']}, {data.get('level', '')}, "
                 f"{data.get('num_threads', '?')} threads.")
        parts.append("\n".join(["## Operators, CPU", "", about, "", *cpu_operators(plain)]) + "\n")
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--plots", action="store_true")
    args = parser.parse_args()
    if args.plots:
        draw_plots()
    text = page()
    if args.check:
        stale = not PAGE.exists() or PAGE.read_text() != text
        print("docs/benchmarks.md " + ("is stale: run python3 benchmarks/tables.py" if stale else "is current"))
        return int(stale)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
