# SPDX-License-Identifier: Apache-2.0
"""What a call costs on the host: microseconds per Python call and where they go, import time, size, memory.

    python benchmarks/host_cost.py --out benchmarks/results/DATE-DEVICE-host_cost.json

Measures the installed package. Sections: NumPy, PyTorch's CPU tensors, PyTorch's CUDA tensors where there is a GPU.
Best of many rounds: other programs only make a round slower.
"""

import argparse
import datetime
import gc
import json
import os
import pathlib
import platform
import random
import subprocess
import sys
import time
from typing import Any, Callable

import numpy as np

import fulmen
from fulmen._arrays import arg, empty_like
from fulmen._ffi import lib

try:
    import torch
except ImportError:
    torch = None

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


def best_us(call: Callable[[], Any], wait: Callable[[], Any], calls: int = 1000, rounds: int = 25) -> float:
    """Microseconds per call while the device keeps up."""
    call()
    best = float("inf")
    for _ in range(rounds):
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, (time.perf_counter() - start) / calls)
    wait()
    return round(best * 1e6, 3)


def call_rows(where: str, x: Any, w: Any, out: Any, gate: Any, wait: Callable[[], Any]) -> list[dict[str, Any]]:
    """Calls on arrays of one kind: x and out [1, 4096], w [4096], gate [1, 8192]."""
    rmsnorm = lib.function("rmsnorm")
    empty = x[:0]
    calls = {
        "rmsnorm 1 x 4096": lambda: fulmen.rmsnorm(x, w),
        "rmsnorm 1 x 4096, out given": lambda: fulmen.rmsnorm(x, w, out=out),
        "silu_and_mul 1 x 8192": lambda: fulmen.silu_and_mul(gate),
        "of it: library call": lambda: rmsnorm(x, w, out, None, 1e-6, 0.0),
        "of it: library call, nothing to do": lambda: rmsnorm(empty, w, empty, None, 1e-6, 0.0),
        "of it: allocating the output": lambda: empty_like(x),
        "of it: looking at an argument": lambda: arg(x),
    }
    if where == "torch cuda":
        calls["PyTorch: rms_norm 1 x 4096"] = lambda: torch.nn.functional.rms_norm(x, (4096,), w)
        calls["PyTorch: add 1 x 4096, out given"] = lambda: torch.add(x, x, out=out)
    return [{"id": f"{where}: {name}", "us": best_us(call, wait)} for name, call in calls.items()]


def all_call_rows() -> list[dict[str, Any]]:
    def nothing() -> None:
        """CPU calls are over when they return."""

    x, w, gate = np.ones((1, 4096), np.float32), np.ones(4096, np.float32), np.ones((1, 8192), np.float32)
    rows = call_rows("numpy", x, w, np.empty_like(x), gate, nothing)
    if torch is not None:
        x, w, gate = torch.ones(1, 4096), torch.ones(4096), torch.ones(1, 8192)
        rows += call_rows("torch cpu", x, w, torch.empty_like(x), gate, nothing)
        if torch.cuda.is_available():
            x, w, gate = (t.cuda().bfloat16() for t in (x, w, gate))
            rows += call_rows("torch cuda", x, w, torch.empty_like(x), gate, torch.cuda.synchronize)
    return rows


def import_ms() -> dict[str, float]:
    """Processor time of `import fulmen` after NumPy, best of 5 processes; of the first call in one (it imports tvm_ffi,
    which imports PyTorch where that is installed).
    """
    code = ("import numpy as np, time; t = time.process_time(); import fulmen; u = time.process_time();"
            "FIRST; print(u - t, time.process_time() - u)")
    call = "x = np.ones((1, 8), np.float32); fulmen.rmsnorm(x, x[0])"

    def run(first: str) -> list[float]:
        command = [sys.executable, "-c", code.replace("FIRST", first)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [float(word) * 1e3 for word in done.stdout.split()]

    imports = [run("pass")[0] for _ in range(5)]
    return {"import_after_numpy_ms": round(min(imports), 2), "first_call_ms": round(run(call)[1], 2)}


def sizes() -> dict[str, int]:
    """Bytes of the installed package, by part."""
    folder = pathlib.Path(fulmen.__file__).parent
    files = [f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    libraries = sum(f.stat().st_size for f in files if ".so" in f.name)
    python = sum(f.stat().st_size for f in files if f.suffix == ".py")
    return {"libraries_bytes": libraries, "python_bytes": python, "package_bytes": sum(f.stat().st_size for f in files)}


def resident_kb() -> int:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * PAGE_KB


def memory_rows(calls: int, device: str) -> dict[str, Any]:
    """Resident memory over calls with random shapes: after a tenth of them, and what the rest adds."""
    choose = random.Random(1)
    if device == "numpy":
        pool: Any = np.ones(8 * 1024, np.float32)
    else:
        pool = torch.ones(8 * 1024, device=device)

    def some(count: int) -> None:
        for _ in range(count):
            hidden, rows = 8 * choose.randint(1, 128), choose.randint(1, 8)
            fulmen.rmsnorm(pool[: rows * hidden].reshape(rows, hidden), pool[:hidden])

    some(calls // 10)
    gc.collect()
    before = resident_kb()
    on_device = torch.cuda.memory_reserved() if device == "cuda" else 0
    marks = []
    for _ in range(9):
        some(calls // 10)
        gc.collect()
        marks.append(resident_kb() - before)
    if device == "cuda":
        torch.cuda.synchronize()
        on_device = torch.cuda.memory_reserved() - on_device
    return {"device": device, "calls": calls, "resident_kb_at_a_tenth": before, "added_kb": marks,
            "added_device_bytes": on_device}  # fmt: skip


def commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return os.environ.get("FULMEN_COMMIT") or done.stdout.strip() or "unknown"


def processor() -> str:
    names = [line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].split(":", 1)[1].strip() if names else platform.machine()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, help="the JSON file to write")
    parser.add_argument("--calls", type=int, default=1_000_000, help="of the memory section (default: 1e6)")
    parser.add_argument("--wheel", type=pathlib.Path, help="a wheel whose size to record")
    args = parser.parse_args()
    fulmen.set_num_threads(1)
    gpu = torch is not None and torch.cuda.is_available()
    result: dict[str, Any] = {
        "device": f"{processor()}{', ' + torch.cuda.get_device_name() if gpu else ''}",
        "commit": commit(), "date": datetime.date.today().isoformat(), "suite": "host_cost",
        "versions": {"python": platform.python_version(), "numpy": np.__version__,
                     "torch": torch.__version__ if torch else "not installed"},
        "facts": {**import_ms(), **sizes()}, "rows": all_call_rows(),
    }  # fmt: skip
    if args.wheel:
        result["facts"]["wheel_bytes"] = args.wheel.stat().st_size
    result["memory"] = [memory_rows(args.calls, "numpy")]
    if gpu:
        result["memory"].append(memory_rows(args.calls, "cuda"))
    for row in result["rows"]:
        print(f"{row['us']:9.2f} us  {row['id']}")
    for name, value in result["facts"].items():
        print(f"{name:24} {value:,}")
    for memory in result["memory"]:
        print(f"memory after {memory['calls']:,} calls on {memory['device']}: {memory['added_kb']} KB added per tenth, "
              f"{memory['added_device_bytes']:,} bytes on the device")
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
