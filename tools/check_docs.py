# SPDX-License-Identifier: Apache-2.0
"""Compiles and runs every snippet of the docs.

  check_docs.py --python PYTHON --compiler CXX --build BUILD --scratch DIR

  ```cpp        a whole program if it has main(), else statements that are put into one; compiled, linked and run
  ```python     a script; run with the package of .venv if it is there (else skipped)
  ```cpp file   `file` names an example; the block must be a part of it, line for line, and ctest runs the example
  ```sh, ```text and others are not checked

Also: links to files of the repository must lead somewhere, and the READMEs in two languages show the same code.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.M | re.S)
PRELUDE = "".join(f"#include <{h}>\n" for h in ("cmath", "cstdio", "string", "vector"))


def documents() -> list[pathlib.Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


def check_links(file: pathlib.Path) -> list[str]:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", file.read_text(), flags=re.S)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    return [f"{file.relative_to(ROOT)}: links to {t}, which does not exist" for t in targets
            if not re.match(r"\w+:", t) and not (file.parent / t).exists()]


def check_languages() -> list[str]:
    names = ("README.md", "README.zh-CN.md")
    code = [[b[2] for b in FENCE.findall((ROOT / f).read_text()) if b[0] != "sh"] for f in names]
    return [] if code[0] == code[1] else ["README.zh-CN.md: its code differs from README.md's"]


def run(command: list, name: str, **more) -> list[str]:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=900, check=False, **more)
    return [] if done.returncode == 0 else [f"{name} failed:\n{done.stdout[-1500:]}{done.stderr[-2500:]}"]


def check_cpp(code: str, name: str, a: argparse.Namespace) -> list[str]:
    if "main(" not in code:  # includes and declarations stay outside, statements go into main
        head = [line for line in code.splitlines() if line.startswith(("#include", "using namespace"))]
        body = [line for line in code.splitlines() if line not in head]
        code = "\n".join([PRELUDE, *head, "int main() {", *body, "}", ""])
    source, program = a.scratch / f"{name}.cc", a.scratch / name
    source.write_text(code)
    errors = run([a.compiler, "-std=c++20", "-Wall", f"-I{ROOT / 'include'}", source, "-o", program, f"-L{a.build}",
                  "-lfulmen", f"-Wl,-rpath,{a.build}", "-pthread"], name)
    return errors or run([program], name)


def check_snippet(language: str, example: str, code: str, name: str, a: argparse.Namespace) -> list[str]:
    if example:
        is_part = (ROOT / example).exists() and code.strip() in (ROOT / example).read_text()
        return [] if is_part else [f"{name}: is not a part of {example}"]
    if language == "cpp":
        return check_cpp(code, name, a)
    has_package = (shutil.which(a.python or "") is not None
                   and subprocess.run([a.python, "-c", "import fulmen"], capture_output=True).returncode == 0)
    if language == "python" and has_package:
        script = a.scratch / f"{name}.py"
        script.write_text(code)
        return run([a.python, script], name)
    if language == "python":
        print(f"{name}: skipped, no package in {a.python}")
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", help="interpreter that has the package")
    parser.add_argument("--compiler", default="c++")
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--scratch", type=pathlib.Path, required=True)
    a = parser.parse_args()
    a.scratch.mkdir(parents=True, exist_ok=True)
    errors, num_snippets = check_languages(), 0
    for file in documents():
        errors += check_links(file)
        for i, (language, example, code) in enumerate(FENCE.findall(file.read_text()), 1):
            if language in ("cpp", "python"):
                num_snippets += 1
                errors += check_snippet(language, example, code, f"{file.stem}_{i}", a)
    print("\n".join(errors) if errors else f"{num_snippets} snippets work, all links lead somewhere")
    return bool(errors)


if __name__ == "__main__":
    sys.exit(main())
