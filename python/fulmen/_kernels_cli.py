# SPDX-License-Identifier: Apache-2.0
"""`fulmen jit …` and `fulmen pack …`: kernels compiled at run time or ahead of it. The work is done in the library."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Sequence

from ._ffi import lib

KEY_HELP = 'a kernel\'s key, as `fulmen jit list` and `fulmen pack keys` print it: "rmsnorm x=bfloat16 …"'


def add_commands(commands: Any) -> None:
    """Adds `jit` and `pack` to the command line."""
    jit = commands.add_parser("jit", help="kernels compiled at run time: what the cache holds, why a lookup misses")
    parts = jit.add_subparsers(dest="part", metavar="list|explain|clear", required=True)
    one = parts.add_parser("list", help="the kernels in the cache", description="The kernels in the cache folder.")
    one.add_argument("--json", action="store_true", help="as JSON")
    one.set_defaults(run=lambda args: list_kernels("", args.json))
    one = parts.add_parser(
        "explain",
        help="where a kernel would come from, or why it must be compiled",
        description="Looks for a kernel as a call would, in packs and in the cache, and says what differs about the "
        "nearest kernel of a folder that does not have it. Exit code 1: it would be compiled.",
    )
    one.add_argument("key", nargs="+", help=KEY_HELP)
    one.add_argument("--arch", default="", help="sm_90a, compute_80, … (default: that of the first GPU)")
    one.set_defaults(run=lambda args: explain(" ".join(args.key), args.arch))
    one = parts.add_parser(
        "clear", help="empty the cache", description="Removes every kernel from the cache folder (FULMEN_CACHE_DIR)."
    )
    one.set_defaults(run=lambda args: clear())

    pack = commands.add_parser("pack", help="kernels compiled ahead of time, on a machine with or without a GPU")
    parts = pack.add_subparsers(dest="part", metavar="build|list|keys", required=True)
    one = parts.add_parser(
        "build",
        help="compile kernels into a folder",
        description="Compiles what the folder lacks, in parallel as CPUs and free memory allow. Needs NVRTC, no GPU. "
        "A folder named in FULMEN_PACK_PATH is searched before anything is compiled.",
    )
    one.add_argument("--arch", required=True, help="GPU architectures, comma separated: sm_80,sm_90a")
    one.add_argument("--keys", type=Path, help="a file of keys, one a line (default: those of `fulmen pack keys`)")
    one.add_argument("--out", type=Path, default=Path("fulmen-pack"), help="the folder (default: ./fulmen-pack)")
    one.add_argument("--all", action="store_true", help="usual keys that no device of an architecture asks for, too")
    one.add_argument("--jobs", type=int, default=0, help="kernels at a time (default: as CPUs and memory allow)")
    one.set_defaults(run=lambda args: build(args.arch, args.keys, args.out, args.all, args.jobs))
    one = parts.add_parser(
        "list", help="the kernels in a pack", description="What packs hold: architecture, what the compiler says, key."
    )
    one.add_argument("folder", nargs="*", type=Path, help="packs (default: those that calls would search)")
    one.add_argument("--json", action="store_true", help="as JSON")
    one.set_defaults(run=lambda args: list_packs(args.folder, args.json))
    text = "the keys of the kernels that usual models need"
    one = parts.add_parser("keys", help=f"print {text}", description=f"Prints {text}, one a line.")
    one.set_defaults(run=lambda args: print(str(lib.pack_keys()), end="") or 0)


def list_kernels(folder: str, as_json: bool) -> int:
    kernels = json.loads(lib.jit_list(folder))
    if as_json:
        print(json.dumps(kernels, indent=1))
        return 0
    for k in kernels:
        if k.get("damaged"):
            print(f"damaged, will be rebuilt: {k['file']}")
            continue
        resources = f"{k['registers']:3d} registers {k['spill_bytes']:4d} spilled {k['shared_bytes']:6d} shared"
        if not k["arch"].startswith(("sm_", "compute_")):
            resources = f"{'a text, for the CPU':<41}"
        made = f"{k['image_bytes'] / 1024:6.1f} KB {k['compile_ms']:6.0f} ms  {k['compiler']}"
        print(f"{k['arch']:<13} {resources} {made}  {k['key']}")
    where = folder or json.loads(lib.jit_config())["cache_folder"] or "memory alone: there is no cache folder"
    print(f"{len(kernels)} kernels, {sum(k.get('image_bytes', 0) for k in kernels) / 2**20:.1f} MB in {where}")
    return 0


def list_packs(folders: Sequence[Path], as_json: bool) -> int:
    names = [str(f) for f in folders] or json.loads(lib.jit_config())["pack_folders"]
    if not names:
        print("no pack: name a folder, or set FULMEN_PACK_PATH")
        return 1
    for name in names:
        if not os.path.isdir(name):
            print(f"fulmen: {name} is not a folder", file=sys.stderr)
            return 2
        list_kernels(name, as_json)
    return 0


def explain(key: str, arch: str) -> int:
    try:
        text = str(lib.jit_explain(key, arch))
    except NotImplementedError as error:
        if arch:
            raise
        print(f"fulmen: {error}; or name an architecture, such as --arch sm_90a", file=sys.stderr)
        return 2
    print(text, end="")
    return 0 if "  hit: " in text else 1


def clear() -> int:
    folder = json.loads(lib.jit_config())["cache_folder"]
    print(f"{int(lib.jit_clear(''))} kernels removed from {folder or 'memory'}")
    return 0


class Progress:
    """A bar on a terminal, now and then a line elsewhere."""

    def __init__(self) -> None:
        self.done = self.compiled = 0
        self.milliseconds: list[float] = []
        self.problems: list[str] = []
        self.terminal, self.start = sys.stderr.isatty(), time.monotonic()

    def step(self, text: Any) -> None:
        result = json.loads(str(text))
        self.done += 1
        if result["problem"]:
            self.problems.append(result["problem"])
        else:
            self.compiled += result["compiled"]
            self.milliseconds.append(result["compile_ms"])
        total = result["of"]
        if self.terminal:
            bar = "#" * (30 * self.done // total)
            left = (time.monotonic() - self.start) / self.done * (total - self.done)
            what = f"{result['target']} {result['line']}"[:56]
            print(f"\r[{bar:<30}] {self.done}/{total} {left:4.0f} s left  {what:<56}", end="", file=sys.stderr)
            if self.done == total:
                print(file=sys.stderr)
        elif self.done % 50 == 0 or self.done == total:
            print(f"{self.done}/{total}", file=sys.stderr)


def build(archs: str, keys: Path | None, out: Path, all_keys: bool, jobs: int) -> int:
    try:
        lines = str(lib.pack_keys()) if keys is None else keys.read_text()
    except UnicodeDecodeError:
        raise ValueError(f"{keys} is not a file of text") from None
    progress = Progress()
    lib.pack_build(str(out), archs, lines, all_keys, jobs, progress.step)
    for problem in progress.problems[:5]:  # a broken header fails every kernel alike
        print(problem, file=sys.stderr)
    good, times = len(progress.milliseconds), sorted(progress.milliseconds) or [0.0]
    print(f"{good} kernels in {out}: {progress.compiled} compiled now in {time.monotonic() - progress.start:.1f} s, "
          f"{good - progress.compiled} were there, {len(progress.problems)} failed; compile time of one: "
          f"{times[len(times) // 2]:.0f} ms median, {times[-1]:.0f} ms at most")
    return 1 if progress.problems else 0
