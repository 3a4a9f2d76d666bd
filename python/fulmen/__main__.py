# SPDX-License-Identifier: Apache-2.0
"""Command line: `fulmen show-config`, `fulmen why-not OP`."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from typing import Any, Sequence

import numpy as np

from . import __version__
from ._ffi import lib, library_path


def _table(op: str | None = None) -> list[dict[str, str]]:
    return [row for row in json.loads(lib.list_kernels()) if op in (None, row["op"])]


def _version_of(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def config() -> dict[str, Any]:
    """What `fulmen show-config` prints, as a dictionary."""
    kernels: dict[str, list[str]] = {}
    for row in _table():
        kernels.setdefault(row["op"], []).append(row["kernel"] + (f" (no: {row['refusal']})" if row["refusal"] else ""))
    return {
        "fulmen": __version__,
        "library": library_path(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "apache-tvm-ffi": _version_of("apache-tvm-ffi"),
        "ml_dtypes": _version_of("ml_dtypes"),
        "torch": _version_of("torch"),
        "cpu_level": lib.cpu_level(),
        "detected_cpu_level": lib.detected_cpu_level(),
        "num_threads": lib.num_threads(),
        "devices": json.loads(lib.list_devices()),
        "kernels": kernels,
    }


def show_config(as_json: bool) -> int:
    facts = config()
    if as_json:
        print(json.dumps(facts, indent=2))
        return 0
    kernels, devices = facts.pop("kernels"), facts.pop("devices")
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
    for device in devices:
        print(f"{'device':<{width}}  {device['backend']}:{device['device_id']}, {device['num_workers']} workers")
    print("\nkernels, most specialised first")
    width = max(map(len, kernels))
    for op, names in sorted(kernels.items()):
        print(f"  {op:<{width}}  {', '.join(names)}")
    return 0


_DEVICES = {"cpu": 1, "cuda": 2}


def why_not(op: str, device: str) -> int:
    """0 and the kernel that runs, or 1 and why none does; 2 for a name that is no op."""
    kind, _, index = device.partition(":")
    if kind not in _DEVICES or (index and not index.isdigit()):
        print(f"fulmen: device {device!r} is not cpu or cuda[:index]", file=sys.stderr)
        return 2
    ops = sorted({row["op"] for row in _table()} | {row["op"] for row in json.loads(lib.list_schemas())})
    if op not in ops:
        print(f"fulmen: no op {op!r}; there are: {', '.join(ops)}", file=sys.stderr)
        return 2
    refusals = lib.why_not(op, _DEVICES[kind], int(index or 0))
    if refusals:
        print(f"{op} does not run on {device}:{refusals}")
        return 1
    serving = next(row["kernel"] for row in _table(op) if row["backend"] == kind and not row["refusal"])
    print(f"{op} runs on {device} with {serving}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="fulmen", description="Fulmen: kernels for LLM inference. What runs here, and why not."
    )
    parser.add_argument("--version", action="version", version=f"fulmen {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    show = commands.add_parser("show-config", help="versions, CPU level, threads, devices, and the kernels of every op")
    show.add_argument("--json", action="store_true", help="as JSON, for bug reports and scripts")
    why = commands.add_parser("why-not", help="the kernel that would run an op on a device, or why none does")
    why.add_argument("op", help="an op's name, such as rmsnorm; show-config lists them")
    why.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1 (default: cpu)")
    args = parser.parse_args(argv)
    if args.command == "show-config":
        return show_config(args.json)
    if args.command == "why-not":
        return why_not(args.op, args.device)
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
