# SPDX-License-Identifier: Apache-2.0
"""Runs every benchmark program and draws what it found. Called by ./dev bench.

Each program writes one JSON file (benchmarks/support.h); one plot per file shows the share of the floor of every row.
"""

import argparse
import pathlib
import subprocess
import sys

from plot import draw


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
            drawn = draw([file], file.with_suffix(".svg"))
            print(f"{file} and {file.with_suffix('.svg').name}" if drawn else file)
    if failed:
        print("failed:", " ".join(failed))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
