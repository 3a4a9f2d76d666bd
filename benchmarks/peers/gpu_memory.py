# SPDX-License-Identifier: Apache-2.0
"""Fulmen's memory-bound operators beside what users would pick instead, in one process on one GPU.

Contestants: fulmen (Python), PyTorch eager, torch.compile, flashinfer-python. Programmatic dependent launch (PDL) hides
what a launch costs; FlashInfer and fulmen use it on an H100 unless a call says enable_pdl=False. Both are timed both
ways. A wrong result is not timed, and a contestant that cannot run is listed with its reason. Times
are device times with a cold L2 (gpu_timing.py).

    pip install torch flashinfer-python==0.5.3    # and fulmen
    python benchmarks/peers/gpu_memory.py --out benchmarks/results/DATE-h100-peers.json
    python benchmarks/peers/gpu_memory.py --check   # compiles everything and compares results, times nothing
"""

import argparse
import copy
import datetime
import functools
import importlib
import inspect
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any, Callable

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from gpu_rows import Row, add_timing, memory_rows, new_entry  # noqa: E402
from gpu_sampling_rows import sampling_rows  # noqa: E402
from gpu_timing import Timer, num_sets  # noqa: E402

import fulmen  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
PEERS = ("fulmen, no PDL", "pytorch", "torch.compile", "flashinfer", "flashinfer, no PDL")


def import_flashinfer() -> tuple[Any, str]:
    """(module, why there is none)."""
    try:
        return importlib.import_module("flashinfer"), ""
    except Exception as error:
        return None, f"import: {type(error).__name__}: {error}"


class WithoutPdl:
    """A module whose functions are called with enable_pdl=False, where they have it."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.used = False

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.module, name)
        if "enable_pdl" not in inspect.signature(function).parameters:
            return function
        self.used = True
        return functools.partial(function, enable_pdl=False)


def without_pdl(run: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call(inputs: Any) -> Any:
        fulmen.set_dependent_launch(False)
        try:
            return run(inputs)
        finally:
            fulmen.set_dependent_launch(True)

    return call


def contestants(
    row: Row, flashinfer: Any, missing: str, inputs: Any, names: tuple[str, ...]
) -> dict[str, Callable[[Any], Any] | str]:
    torch._dynamo.reset()
    result: dict[str, Any] = {
        "fulmen": row.fulmen,
        "fulmen, no PDL": without_pdl(row.fulmen),
        "pytorch": row.pytorch,
        "torch.compile": torch.compile(row.pytorch, dynamic=False),
    }
    if isinstance(row.flashinfer, str) or missing:
        result["flashinfer"] = missing or row.flashinfer
    else:
        theirs, module = row.flashinfer, WithoutPdl(flashinfer)
        result["flashinfer"] = lambda s: theirs(flashinfer, s)
        problem_of(row, lambda s: theirs(module, s), inputs)  # to see whether it has the argument
        if module.used:
            result["flashinfer, no PDL"] = lambda s: theirs(module, s)
    return {name: run for name, run in result.items() if name == "fulmen" or name in names}


def cloned(inputs: Any) -> Any:
    result = copy.copy(inputs)
    for name, value in vars(inputs).items():
        if isinstance(value, torch.Tensor):
            setattr(result, name, value.clone())
    return result


def problem_of(row: Row, run: Callable[[Any], Any], inputs: Any) -> str:
    """What is wrong with a contestant's result on a copy of the inputs; empty: nothing."""
    own = cloned(inputs)
    try:
        outcome = run(own)
        torch.cuda.synchronize()
        return row.problem(inputs, row.results(own, outcome))
    except Exception as error:
        return f"{type(error).__name__}: {error}".strip()[:400]


def measure(
    row: Row, timer: Timer | None, flashinfer: Any, missing: str, copy_rate: float, names: tuple[str, ...]
) -> dict[str, Any]:
    sets = [row.make() for _ in range(num_sets(row.num_bytes) if timer else 1)]
    entry = new_entry(row, len(sets), copy_rate)
    for name, run in contestants(row, flashinfer, missing, sets[0], names).items():
        start = time.perf_counter()
        problem = run if isinstance(run, str) else problem_of(row, run, sets[0])
        if problem:
            entry["problems"][name] = problem
        elif timer:
            try:
                timing = timer.time(run, sets)
            except Exception as error:
                entry["problems"][name] = f"{type(error).__name__}: {error}".strip()[:400]
                continue
            add_timing(entry, name, timing)
        print(f"{row.id} {name}: {entry['us'] if name == 'fulmen' else entry['peers'].get(name)} us "
              f"{problem} ({time.perf_counter() - start:.1f} s)", file=sys.stderr, flush=True)
    return entry


def commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return os.environ.get("FULMEN_COMMIT") or done.stdout.strip() or "unknown"


def clocks() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.mem,power.draw", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return "unknown"


def table(result: dict[str, Any]) -> str:
    lines = [f"{'id':4} {'floor':>9} {'fulmen':>9} {'% floor':>8} " + " ".join(f"{p:>18}" for p in PEERS) + "  shape"]
    for row in result["rows"]:
        us = row["us"]
        times = [row["peers"].get(p) for p in PEERS]
        peers = [f"{t:8.1f} {t / us:3.1f}x" if us and t else f"{t or '-'}" for t in times]
        share = f"{100 * row['floor_us'] / us:7.1f}%" if us else "-"
        lines.append(f"{row['id']:4} {row['floor_us']:9.2f} {us or '-':>9} {share:>8} "
                     + " ".join(f"{p:>18}" for p in peers) + f"  {row['shape']}")
        lines += [f"     {name}: {text}" for name, text in row["problems"].items()]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, help="the JSON file to write")
    parser.add_argument("--rows", default="", help="ids, comma separated (default: all)")
    parser.add_argument("--peers", default="all", help="such as pytorch,flashinfer (default: all)")
    parser.add_argument("--check", action="store_true", help="compare results only")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no further row after this many seconds")
    args = parser.parse_args()
    names = tuple(name for name in PEERS if args.peers == "all" or name.split(",")[0] in args.peers.split(","))
    start = time.perf_counter()
    torch.manual_seed(1)
    flashinfer, missing = import_flashinfer()
    timer = None if args.check else Timer()
    copy_rate = timer.copy_bytes_per_second() if timer else 3e12
    result = {
        "device": torch.cuda.get_device_name(), "driver": clocks(), "commit": commit(),
        "date": datetime.date.today().isoformat(), "suite": "peers",
        "versions": {"fulmen": fulmen.__version__, "torch": torch.__version__,
                     "flashinfer": getattr(flashinfer, "__version__", missing)},
        "ceilings": {"copy_bytes_per_second": copy_rate}, "rows": [],
    }  # fmt: skip
    for row in [*memory_rows(), *sampling_rows()]:
        if args.rows and row.id not in args.rows.split(","):
            continue
        if time.perf_counter() - start > args.seconds:
            print(f"{row.id}: not run, out of time", file=sys.stderr)
            continue
        result["rows"].append(measure(row, timer, flashinfer, missing, copy_rate, names))
        torch.cuda.empty_cache()
        result["driver_after"] = clocks()
        if args.out:
            args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
