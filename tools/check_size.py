# SPDX-License-Identifier: Apache-2.0
"""The budgets that keep the house small: lines per file and function, line length, macros, preprocessor branches.

Exceptions are lines of tools/size_exceptions.txt: WHAT NUMBER REASON, where WHAT is a path (lines of the file),
path:function (lines of the function) or path:#if (preprocessor branches). Run by ./dev check.
"""

import ast
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE_LINES, FUNCTION_LINES, LINE_LENGTH, MACROS = 400, 60, 120, 12
SOURCES = (".h", ".cuh", ".cc", ".py")


def exceptions() -> dict[str, int]:
    table = {}
    for line in (ROOT / "tools/size_exceptions.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            what, number, reason = line.split(maxsplit=2)
            assert reason, f"{what}: an exception needs a reason"
            table[what] = int(number)
    return table


def blank(text: str) -> str:
    """C++ without comments, strings and preprocessor lines; line numbers stay."""
    pattern = r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|^[ \t]*#(?:\\\n|[^\n])*'
    return re.sub(pattern, lambda m: "\n" * m[0].count("\n"), text, flags=re.S | re.M)


def cpp_functions(text: str) -> list[tuple[str, int]]:
    """(name, lines) of every function body that stands in a namespace or class."""
    found, stack, head, line = [], [], "", 1  # stack of (kind, name, first line)
    for char in blank(text):
        if char == "{":
            is_scope = re.search(r"\b(namespace|class|struct|union|enum|extern)\b[^()]*$", head) is not None
            is_top = all(kind == "scope" for kind, _, _ in stack)
            name = re.search(r"([\w~]+|operator\S+)\s*\(", head)
            kind = "scope" if is_scope else "function" if is_top and name and "=" not in head.split("(")[0] else "block"
            stack.append((kind, name[1] if name else "", line))
        elif char == "}" and stack:
            kind, name, first = stack.pop()
            if kind == "function":
                found.append((name, line - first + 1))
        head = "" if char in "{};" else head + char
        line += char == "\n"
    return found


def python_functions(text: str) -> list[tuple[str, int]]:
    return [(n.name, n.end_lineno - n.lineno + 1) for n in ast.walk(ast.parse(text))
            if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def num_branches(path: str, text: str) -> int:
    """#if other than a test for an optional header; core/portable.h is the place for them."""
    if not path.startswith(("include/", "src/")) or path.endswith("core/portable.h"):
        return 0
    return len(re.findall(r"^\s*#\s*(?:if|ifdef|ifndef)\b", text, re.M))


def check(path: str, text: str, allowed: dict[str, int]) -> list[str]:
    errors = []

    def budget(what: str, number: int, limit: int, text: str) -> None:
        if number > allowed.get(what, limit):
            errors.append(f"{what}: {number} {text}, budget {allowed.get(what, limit)}")

    lines = text.splitlines()
    budget(path, len(lines), FILE_LINES, "lines")
    for name, length in python_functions(text) if path.endswith(".py") else cpp_functions(text):
        budget(f"{path}:{name}", length, FUNCTION_LINES, "lines in one function")
    errors += [f"{path}:{i}: {len(line)} columns" for i, line in enumerate(lines, 1) if len(line) > LINE_LENGTH]
    budget(f"{path}:#if", num_branches(path, text), 0, "preprocessor branches outside core/portable.h")
    if not any("SPDX-License-Identifier: Apache-2.0" in line for line in lines[:3]):
        errors.append(f"{path}: no SPDX line")
    return errors


def main() -> int:
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout.split("\n")
    allowed, errors, macros, num_lines = exceptions(), [], set(), 0
    for path in sorted(f for f in files if f.endswith(SOURCES) and (ROOT / f).exists()):
        text = (ROOT / path).read_text()
        num_lines += text.count("\n")
        errors += check(path, text, allowed)
        if path.startswith(("include/", "src/")):
            own = set(re.findall(r"^\s*#\s*define\s+(\w+)", text, re.M))
            if len(own) > allowed.get(f"{path}:#define", 0):  # a file's exception covers all of its macros
                macros |= own
    if len(macros) > MACROS:
        errors.append(f"{len(macros)} macros, budget {MACROS}: {' '.join(sorted(macros))}")
    errors += [f"tools/size_exceptions.txt: {what.split(':')[0]} does not exist" for what in allowed
               if not (ROOT / what.split(":")[0]).exists()]
    print("\n".join(errors) if errors else f"sizes: {num_lines} lines, {len(macros)} macros, all within budget")
    return bool(errors)


if __name__ == "__main__":
    sys.exit(main())
