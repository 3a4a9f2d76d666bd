# SPDX-License-Identifier: Apache-2.0
"""Runs every benchmark program and draws what it found. Called by ./dev bench.

Each program writes one JSON file (benchmarks/support.h); one plot per file shows the share of the floor of every row.
"""

import argparse
import json
import pathlib
import subprocess
import sys


def plot(file: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    result = json.loads(file.read_text())
    rows = [r for r in result["rows"] if r.get("us") and r.get("floor_us")][::-1]
    if not rows:
        return
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.28 * len(rows)))
    axes.barh([f"{r['id']} {r['shape']}" for r in rows], [100 * r["floor_us"] / r["us"] for r in rows], color="#4477aa")
    for y, row in enumerate(rows):
        axes.text(1, y, f"{row['us']:.1f} µs", va="center", fontsize=8, color="white")
    axes.axvline(100, color="black", linewidth=0.8)
    axes.set_xlabel("% of the floor measured in the same run (more is better)")
    axes.set_title(f"{result['suite']}: {result.get('device', '')}, {result.get('num_threads', '?')} threads, "
                   f"{result.get('date', '')}", fontsize=9)
    figure.tight_layout()
    figure.savefig(file.with_suffix(".svg"))
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("filter", nargs="?", default="", help="run the programs whose name holds this text")
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments, more = parser.parse_known_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for program in sorted(arguments.build.glob("*_bench")):
        if arguments.filter not in program.name:
            continue
        file = arguments.out / f"{program.name.removesuffix('_bench')}.json"
        if subprocess.run([program, f"--json={file}", *more], check=False).returncode != 0:
            failed.append(program.name)
        elif file.exists():
            plot(file)
            print(f"{file} and {file.with_suffix('.svg').name}")
    if failed:
        print("failed:", " ".join(failed))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
