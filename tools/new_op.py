# SPDX-License-Identifier: Apache-2.0
"""Makes the full set of files of a new op: new_op.py NAME [--root DIR].

What it writes compiles and its test passes: the op scales a tensor, out = scale * input. Replace the formula in the
header first, then in the reference, then in the kernel; docs/adding_an_op.md walks through it.
"""

import argparse
import pathlib
import re
import sys

TOOLS = pathlib.Path(__file__).resolve().parent
# template → file of the op; {} is its name
FILES = {
    "ops.h": "include/fulmen/ops/{}.h",
    "ops.cc": "src/ops/{}.cc",
    "reference.h": "include/fulmen/reference/{}.h",
    "cpu.h": "include/fulmen/cpu/{}.h",
    "level.cc": "src/cpu/levels/{}.cc",
    "test.cc": "tests/{}_test.cc",
    "bench.cc": "benchmarks/{}_bench.cc",
}


def insert_before(file: pathlib.Path, anchor: str, line: str) -> None:
    text = file.read_text()
    match = re.search(anchor, text, re.M)
    if match is None:
        sys.exit(f"{file}: no line matches {anchor}")
    file.write_text(text[:match.start()] + line + text[match.start():])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="snake_case, one word that says what it computes")
    parser.add_argument("--root", type=pathlib.Path, default=TOOLS.parent)
    arguments = parser.parse_args()
    op, root = arguments.name, arguments.root
    if not re.fullmatch(r"[a-z][a-z0-9_]*", op):
        sys.exit(f"{op}: expected snake_case")
    if (root / FILES["ops.h"].format(op)).exists():
        sys.exit(f"{op} exists: {FILES['ops.h'].format(op)}")
    type_name = "".join(word.capitalize() for word in op.split("_"))
    for template, path in FILES.items():
        file = root / path.format(op)
        text = (TOOLS / "templates" / f"{template}.txt").read_text()
        file.write_text(text.replace("@op@", op).replace("@Op@", type_name))
        print("wrote", path.format(op))
    # The two lists that name every kernel: its declaration and its row.
    kernels = root / "src/cpu/levels/kernels.h"
    insert_before(kernels, r"^#include <fulmen/runtime/", f"#include <fulmen/ops/{op}.h>\n")
    insert_before(kernels, r"^\}  // namespace FULMEN_CPU_NS",
                  f"void launch(const {type_name}Args& args, const Context& context);\n")
    row = " " * 30 + f'row<{type_name}Args>("{op}"),\n'
    insert_before(root / "src/cpu/levels/table.cc", r"^ +row<", row)
    print("added its lines to src/cpu/levels/kernels.h and table.cc")
    print("next: ./dev test, then python3 tools/gen_docs.py build/release/tests/house/print_contracts")


if __name__ == "__main__":
    main()
