# SPDX-License-Identifier: Apache-2.0
"""tools/new_op.py in a copy of the tree: what it writes must compile without warnings, and its test must pass.

The copy keeps only the new op, so that this costs seconds. Called by ctest with a scratch folder.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
OP = "scale_rows"


def copy_tree(root: pathlib.Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    for folder in ("cmake", "include", "src/ops", "src/runtime", "src/cpu", "src/jit", "tests/support", "tools"):
        shutil.copytree(ROOT / folder, root / folder)
    for folder in ("benchmarks", "fuzz"):  # present, empty
        (root / folder).mkdir()
        (root / folder / "CMakeLists.txt").touch()
    shutil.copy(ROOT / "CMakeLists.txt", root)
    (root / "tests/CMakeLists.txt").write_text((ROOT / "tests/CMakeLists.txt").read_text().split("add_subdirectory")[0])


def keep_only_the_new_op(root: pathlib.Path) -> None:
    for file in [*(root / "src/cpu").rglob("*.cc"), *(root / "src/ops").glob("*.cc")]:
        if file.name not in ("backend.cc", "table.cc", "schema.cc", "overlap.cc", f"{OP}.cc"):
            file.unlink()
    table = root / "src/cpu/levels/table.cc"
    table.write_text(re.sub(rf'^ *row<[\w:]+>\("(?!{OP}).*\n', "", table.read_text(), flags=re.M))


def main(root: pathlib.Path) -> None:
    copy_tree(root)
    run = lambda *command, **more: subprocess.run(command, check=True, **more)
    run(sys.executable, root / "tools/new_op.py", OP, "--root", root)
    again = subprocess.run([sys.executable, root / "tools/new_op.py", OP, "--root", root], capture_output=True)
    assert again.returncode != 0, "an op that exists must be refused"
    keep_only_the_new_op(root)
    # Debug: compiles fastest. Paths relative to the copy, so that ccache knows them next time.
    environment = dict(os.environ, CCACHE_BASEDIR=str(root), CCACHE_NOHASHDIR="1")
    run("cmake", "-S", root, "-B", root / "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug", "-DFULMEN_WERROR=ON",
        "-DFULMEN_BUILD_BENCHMARKS=OFF", "-DFULMEN_BUILD_EXAMPLES=OFF", stdout=subprocess.DEVNULL, env=environment)
    run("cmake", "--build", root / "build", "--target", f"{OP}_test", env=environment)
    run("ctest", "--test-dir", root / "build", "--output-on-failure", "--no-tests=error")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
