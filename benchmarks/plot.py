#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws the result files of the benchmark programs: each row's share of its floor, and peers on the same scale.

    benchmarks/rope_bench --json=rope.json && python3 benchmarks/plot.py rope.json -o rope.svg
"""
import argparse
import json
import pathlib
import sys


def load(path):
    data = json.loads(pathlib.Path(path).read_text())
    missing = {"device", "commit", "date", "suite", "rows"} - data.keys()
    if missing:
        sys.exit(f"{path}: not a result file, it lacks {', '.join(sorted(missing))}")
    return data


def bars_of(data):
    """[(label, {series: percent of the floor, microseconds})] in the order of the file."""
    bars = []
    for row in data["rows"]:
        if not row.get("floor_us"):
            continue
        times = {"fulmen": row.get("us") or 0, **row.get("peers", {})}
        label = f'{row["id"]}  {row["shape"]}'
        bars.append((label, {name: (100 * row["floor_us"] / us, us) for name, us in times.items() if us > 0}))
    return bars


def draw(files, output):
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "fulmen"})  # small, and the same every time
    import matplotlib.pyplot as plt

    results = [r for r in map(load, files) if bars_of(r)]
    if not results:
        return False
    heights = [max(2.0, 0.32 * sum(len(times) for _, times in bars_of(r)) + 1.2) for r in results]
    figure, axes = plt.subplots(len(results), 1, figsize=(10, sum(heights)), squeeze=False,
                                gridspec_kw={"height_ratios": heights}, layout="constrained")
    for axis, data in zip(axes[:, 0], results):
        names = list(dict.fromkeys(name for _, times in bars_of(data) for name in times))
        colours = {name: f"C{i}" for i, name in enumerate(names)}
        place, ticks, labels = 0.0, [], []
        for label, times in bars_of(data):
            first = place
            for name, (percent, us) in sorted(times.items(), key=lambda item: names.index(item[0])):
                axis.barh(place, percent, 0.9, color=colours[name])
                axis.text(percent + 1, place, f"{us:,.1f} µs", va="center", fontsize=8)
                place += 1
            ticks.append((first + place - 1) / 2)
            labels.append(label)
            place += 0.3
        axis.axvline(100, color="black", linewidth=1)
        axis.set_yticks(ticks, labels, fontsize=8)
        axis.invert_yaxis()
        axis.set_xlim(0, max(115, 1.15 * axis.get_xlim()[1]))
        on_gpu = data["suite"].startswith(("gpu", "peers"))
        bandwidth = "a copy" if on_gpu else "the same working set"
        axis.set_xlabel(f"% of the floor (bandwidth of {bandwidth}, same process)")
        level = f', {data["level"]}, {data["num_threads"]} threads' if "level" in data else ""
        axis.set_title(f'{data["suite"]}: {data["device"]}{level}, {data["commit"]}, {data["date"]}', fontsize=9)
        if len(names) > 1:
            axis.legend([plt.Rectangle((0, 0), 1, 1, color=colours[n]) for n in names], names, fontsize=8)
    figure.savefig(output, dpi=130, metadata={"Date": None} if str(output).endswith(".svg") else None)
    plt.close(figure)
    return True


def draw_ratios(rows, about, output):
    """rows: (label, their time by ours, series); a bar each, from 1 to the right where theirs takes longer."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "fulmen"})
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(10, 0.21 * len(rows) + 1.2), layout="constrained")
    names = list(dict.fromkeys(name for *_, name in rows))
    colours = {name: f"C{i}" for i, name in enumerate(names)}
    for place, (_, ratio, name) in enumerate(rows):
        axis.barh(place, ratio - 1, 0.8, left=1, color=colours[name])
        axis.text(max(ratio, 1) * 1.02, place, f"{ratio:.2f}×", va="center", fontsize=8)
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xscale("log", base=2)
    axis.set_xlim(0.75, 1.3 * max(ratio for _, ratio, _ in rows))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axis.set_yticks(range(len(rows)), [label for label, *_ in rows], fontsize=8)
    axis.invert_yaxis()
    axis.margins(y=0.01)
    axis.set_xlabel("time of the other by time of Fulmen, measured one after the other on one GPU")
    axis.set_title(about, fontsize=9)
    axis.legend([plt.Rectangle((0, 0), 1, 1, color=colours[n]) for n in names], names, fontsize=8, loc="lower right")
    figure.savefig(output, metadata={"Date": None})
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", help="JSON files written by --json=")
    parser.add_argument("-o", "--output", default="benchmark.svg", help="PNG or SVG, by its ending")
    options = parser.parse_args()
    try:
        drawn = draw(options.results, options.output)
    except ImportError:
        sys.exit("plot.py needs matplotlib: pip install matplotlib")
    if not drawn:
        sys.exit("no row of these files has a floor")
    print(options.output)


if __name__ == "__main__":
    main()
