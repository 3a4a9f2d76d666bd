# SPDX-License-Identifier: Apache-2.0
"""Compiles and runs users' programs in each documented way, and refuses what must not compile. Called by ctest.

  ways_of_use.py WAY --compiler CXX --scratch DIR [--build BUILD]
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
USES = ROOT / "tests/compile_only"
WARNINGS = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-Wno-missing-field-initializers"]


def run(*command) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def compilers(first: str) -> list[str]:
    """The build's compiler, and the others that Debian 12 has, if installed."""
    others = [c for c in ("g++-12", "clang++-14") if shutil.which(c)]
    real = {pathlib.Path(shutil.which(c)).resolve(): c for c in [*others, first]}
    return list(real.values())


def build_project(way: str, folder: pathlib.Path, a: argparse.Namespace, *options: str) -> None:
    launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
    run("cmake", "-S", USES / way, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_CXX_COMPILER={a.compiler}", *launcher, *options,
        "-DCMAKE_CXX_FLAGS_RELEASE=-O2 -DNDEBUG")  # the flags of our own build, so that ccache knows the objects
    run("cmake", "--build", folder, "--target", "use")
    print(run(folder / "use"))


def find_package(a: argparse.Namespace) -> None:
    prefix = a.scratch / "prefix"
    run("cmake", "--install", a.build, "--prefix", prefix, "--component", "fulmen")
    build_project("find_package", a.scratch / "find_package", a, f"-DCMAKE_PREFIX_PATH={prefix}")
    if shutil.which("pkg-config"):
        file = next(prefix.rglob("fulmen.pc"))
        flags = run("pkg-config", f"--define-variable=prefix={prefix}", "--cflags", "--libs", file).split()
        program = a.scratch / "use_pkg_config"
        run(a.compiler, USES / "main.cc", "-o", program, *flags, f"-Wl,-rpath,{file.parents[1]}")
        print(run(program))


def add_subdirectory(a: argparse.Namespace) -> None:
    # Beside our own build: ccache knows objects by their relative paths. It refuses warnings if ours does.
    folder = a.build.with_name(a.build.name + "-inside-another")
    shutil.rmtree(folder, ignore_errors=True)
    werror = re.search(r"^FULMEN_WERROR:BOOL=(\w+)", (a.build / "CMakeCache.txt").read_text(), re.MULTILINE)
    build_project("add_subdirectory", folder, a, f"-DFULMEN_WERROR={werror[1]}")
    shutil.rmtree(folder)


def header_only(a: argparse.Namespace) -> None:
    """A kernel at the user's own -march, and at a level that a define names."""
    for compiler in compilers(a.compiler):
        for flags in (["-march=native"], ["-DFULMEN_CPU_LEVEL_ID=0"]):
            program = a.scratch / "header_only"
            run(compiler, *WARNINGS, "-O2", *flags, f"-I{ROOT}/include", USES / "header_only/main.cc", "-o", program)
            print(compiler, *flags, run(program).strip())


def must_not_compile(a: argparse.Namespace) -> None:
    for compiler in compilers(a.compiler):
        for file in sorted((ROOT / "tests/must_not_compile").glob("*.cc")):
            expected = re.search(r"// expect: (.*)", file.read_text())[1]
            done = subprocess.run([compiler, "-std=c++20", "-fsyntax-only", f"-I{ROOT / 'include'}", file],
                                  capture_output=True, text=True, check=False)
            if done.returncode == 0 or not re.search(expected, done.stderr):
                sys.exit(f"{file.name} with {compiler}: expected an error like '{expected}', got\n{done.stderr}")
            print(compiler, "refuses", file.stem)


def main() -> None:
    ways = {f.__name__: f for f in (find_package, add_subdirectory, header_only, must_not_compile)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=ways)
    parser.add_argument("--compiler", default="c++")
    parser.add_argument("--scratch", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.scratch, ignore_errors=True)
    arguments.scratch.mkdir(parents=True)
    ways[arguments.way](arguments)


if __name__ == "__main__":
    main()
