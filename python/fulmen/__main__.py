# SPDX-License-Identifier: Apache-2.0
"""Command line: `fulmen show-config`, `fulmen why-not OP`, `fulmen jit …`, `fulmen pack …`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
from typing import Any, Sequence

import numpy as np

from . import __version__
from ._ffi import lib, library_path, without_torch
from ._kernels_cli import add_commands


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
        "cuda": json.loads(lib.jit_config()),
        "kernels": kernels,
    }


def show_config(as_json: bool) -> int:
    facts = config()
    if as_json:
        print(json.dumps(facts, indent=2))
        return 0
    kernels, devices, cuda = facts.pop("kernels"), facts.pop("devices"), facts.pop("cuda")
    facts["cuda driver"] = cuda["driver_problem"] or "found"
    facts["compiler"] = f"{cuda['compiler']} {cuda['compiler_path']}" if cuda["compiler"] else cuda["compiler_problem"]
    facts["compiler for the CPU"] = cuda["host_compiler"] or cuda["host_compiler_problem"]
    facts["may compile"] = "yes" if cuda["may_compile"] else "no: FULMEN_JIT=off"
    facts["cache"] = cuda["cache_folder"] or "memory alone"
    facts["packs"] = ", ".join(cuda["pack_folders"]) or "none"
    names = {("cuda", d["device_id"]): f", {d['name']}, {d['target']}" for d in cuda["devices"]}
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
    for device in devices:
        print(f"{'device':<{width}}  {device['backend']}:{device['device_id']}, {device['num_workers']} workers"
              f"{names.get((device['backend'], device['device_id']), '')}")
    print("\nkernels, most specialised first")
    width = max(map(len, kernels))
    for op, names in sorted(kernels.items()):
        print(f"  {op:<{width}}  {', '.join(names)}")
    return 0


_DEVICES = {"cpu": 1, "cuda": 2}


def why_not(op: str, device: str, words: Sequence[str] = ()) -> int:
    """0 and the kernel that runs, or 1 and why none does; 2 for a name that is no op."""
    from . import _why_not

    kind, _, index = device.partition(":")
    if kind not in _DEVICES or (index and not (index.isdigit() and len(index) < 8)):
        return _usage(f"device {device!r} is not cpu or cuda[:index]")
    ops = sorted({row["op"] for row in _table()} | {row["op"] for row in json.loads(lib.list_schemas())})
    if op not in ops:
        return _usage(f"no op {op!r}; there are: {', '.join(ops)}")
    place = (_DEVICES[kind], int(index or 0))
    given = dict(word.split("=", 1) for word in words if "=" in word)
    if len(given) != len(words):
        return _usage(f"expected name=value, got {' '.join(w for w in words if '=' not in w) or 'a name twice'}")
    refusals, kernel = str(lib.why_not(op, *place)), ""
    if not refusals and given:
        if not _why_not.can_ask(op):
            return _usage(f"{op} can only be asked about as a whole, without name=value")
        try:
            kernel, refusals = _why_not.ask(op, given, place)
        except (ValueError, TypeError) as error:
            return _usage(str(error))
        refusals = "\n  " + refusals if refusals else ""
    if refusals:
        print(f"{op} does not run on {device}:{refusals}")
        return 1
    serving = kernel or next(row["kernel"] for row in _table(op) if row["backend"] == kind and not row["refusal"])
    print(f"{op} runs on {device} with {serving}")
    return 0


def _usage(text: str) -> int:
    print(f"fulmen: {text}", file=sys.stderr)
    return 2


WHY_NOT = """\
Without name=value: does the device serve the op at all? With them a call is described, checked and thrown away:
tensors as dtype or dtype[size,size,…], numbers, and sizes by their names in the op's contract. What is not given is
made up to fit.

  fulmen why-not rmsnorm --device cuda
  fulmen why-not rmsnorm --device cuda input=float16[4,100] weight=float32
  fulmen why-not rope q=bfloat16 head_dim=96 interleave=true
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="fulmen", description="Fulmen: kernels for LLM inference. What runs here, and why not."
    )
    parser.add_argument("--version", action="version", version=f"fulmen {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    show = commands.add_parser("show-config", help="versions, CPU level, threads, devices, and the kernels of every op")
    show.add_argument("--json", action="store_true", help="as JSON, for bug reports and scripts")
    why = commands.add_parser(
        "why-not", help="the kernel that would run an op on a device, or why none does", description=WHY_NOT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    why.add_argument("op", help="an op's name, such as rmsnorm; show-config lists them")
    why.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1 (default: cpu)")
    why.add_argument("words", nargs="*", metavar="name=value", help="tensors, numbers and sizes of the call")
    add_commands(commands)
    args, words = parser.parse_known_args(argv)
    if words and (args.command != "why-not" or any(word.startswith("-") for word in words)):
        parser.error(f"unrecognized arguments: {' '.join(words)}")
    try:
        # A process of its own needs no PyTorch; a caller from Python may need it later.
        with without_torch() if argv is None else contextlib.nullcontext():
            status = _run(parser, args, words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read it has seen enough; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, NotImplementedError, RuntimeError, OSError, ImportError) as error:
        print(f"fulmen: {str(error).removeprefix('fulmen: ')}", file=sys.stderr)
        return 1


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace, words: Sequence[str]) -> int:
    if hasattr(args, "run"):
        return int(args.run(args))
    if args.command == "show-config":
        return show_config(args.json)
    if args.command == "why-not":
        return why_not(args.op, args.device, [*args.words, *words])
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
