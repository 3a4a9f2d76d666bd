# SPDX-License-Identifier: Apache-2.0
"""Sampling rows S1 to S8 beside FlashInfer in each form that it has for a row, in one process on one GPU.

    python3 benchmarks/peers/gpu_sampling.py --out peers-sampling.json

FlashInfer picks other kernels for a top_k that is a number than for one per row, and others while a stream is captured;
every form is timed in a graph where it can be captured, else queued. Results are judged as in gpu_memory.py.
"""

import argparse
import datetime
import importlib
import json
import sys
import time
from types import SimpleNamespace
from typing import Any, Callable

import torch
from gpu_memory import clocks, problem_of
from gpu_rows import Row, add_timing, new_entry, returned
from gpu_sampling_rows import TOP_K, TOP_P, logits, sampling_rows
from gpu_timing import Timer, num_sets

import fulmen

Call = Callable[[Any, Any], Any]  # (flashinfer, inputs)
NUM_SELECTED = 2048


def selected(s: Any, results: tuple[Any, ...]) -> str:
    """The k largest, in any order: rows hold few equal values, whose choice is free."""
    values, indices = results
    want = s.x.topk(NUM_SELECTED, -1).values
    if not bool((values.sort(-1, descending=True).values == want).all()):
        return "values are not the largest"
    return "" if bool((s.x.gather(1, indices.long()) == values).all()) else "indices do not belong to the values"


def select_row() -> Row:
    batch, vocab = 64, 65536
    return Row(
        "S7", f"top-k {NUM_SELECTED} of f32 {batch} x {vocab}, in any order",
        4.0 * batch * vocab + 8.0 * batch * NUM_SELECTED,
        logits(batch, vocab, torch.float32),
        lambda s: fulmen.top_k(s.x, NUM_SELECTED),
        lambda s: torch.topk(s.x, NUM_SELECTED, -1, sorted=False),
        lambda fi, s: fi.top_k(s.x, NUM_SELECTED),
        returned,
        selected,
    )  # fmt: skip


def per_row(value: float, dtype: torch.dtype, s: Any) -> torch.Tensor:
    """Made once per buffer, so that no contestant is timed with it."""
    name = f"per_row_{value}"
    if not hasattr(s, name):
        setattr(s, name, torch.full((s.x.shape[0],), value, dtype=dtype, device="cuda"))
    return getattr(s, name)


def forms(row: Row) -> dict[str, Call]:
    """FlashInfer's ways to do a row."""
    if row.id == "S7":
        return {
            "flashinfer": lambda fi, s: fi.top_k(s.x, NUM_SELECTED),
            "flashinfer, clusters": lambda fi, s: fi.topk.topk_clusters_exact(
                s.x, NUM_SELECTED, output_values=True
            )[::-1],
        }
    if row.id == "S6":
        return {"flashinfer": row.flashinfer}
    if row.id == "S5":
        return {
            "flashinfer": lambda fi, s: fi.sampling_from_logits(s.x),
            "flashinfer, f32": row.flashinfer,
        }
    return {
        "flashinfer": row.flashinfer,
        "flashinfer, top_k per row": lambda fi, s: fi.top_k_top_p_sampling_from_logits(
            s.x, per_row(TOP_K, torch.int32, s), TOP_P
        ),
    }


def measure(row: Row, timer: Timer, flashinfer: Any, copy_rate: float) -> dict[str, Any]:
    sets = [row.make() for _ in range(num_sets(row.num_bytes))]
    for s in sets:
        per_row(TOP_K, torch.int32, s)
    entry = new_entry(row, len(sets), copy_rate)
    runs: dict[str, Callable[[SimpleNamespace], Any]] = {"fulmen": row.fulmen}
    for name, call in forms(row).items() if flashinfer is not None else ():
        runs[name] = lambda s, call=call: call(flashinfer, s)
    for name, run in runs.items():
        problem = problem_of(row, run, sets[0])
        if not problem:
            try:
                timing = timer.time(run, sets)
            except Exception as error:  # a peer that cannot do a row says why, whatever it raises
                problem = f"{type(error).__name__}: {error}".strip()[:200]
        if problem:
            entry["problems"][name] = problem
            continue
        add_timing(entry, name, timing)
    return entry


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="ids, comma separated (default: all)")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no further row after this many seconds")
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--out", default="peers-sampling.json")
    args = parser.parse_args()
    start = time.monotonic()
    torch.manual_seed(1)
    try:
        flashinfer = importlib.import_module("flashinfer")
    except Exception as error:
        flashinfer = None
        print(f"flashinfer cannot be imported: {error}")
    timer = Timer(replays=15)
    copy_rate = timer.copy_bytes_per_second()
    versions = {"fulmen": fulmen.__version__, "torch": torch.__version__}
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(), "driver": clocks(), "commit": args.commit,
        "date": datetime.date.today().isoformat(), "suite": "peers-sampling",
        "versions": versions | {"flashinfer": getattr(flashinfer, "__version__", "none")},
        "ceilings": {"copy_bytes_per_second": copy_rate}, "rows": [],
    }  # fmt: skip
    for row in [*sampling_rows(), select_row()]:
        if (args.rows and row.id not in args.rows.split(",")) or time.monotonic() - start > args.seconds:
            continue
        entry = measure(row, timer, flashinfer, copy_rate)
        torch.cuda.empty_cache()
        result["rows"].append(entry)
        print(row.id, entry["us"], entry["peers"], entry["problems"], f"{time.monotonic() - start:.1f} s", flush=True)
        with open(args.out, "w") as file:
            json.dump(result, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
