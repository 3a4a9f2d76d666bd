# SPDX-License-Identifier: Apache-2.0
"""Makes docs/ops/<op>.md, docs/support_matrix.md and README's matrix from the contracts themselves.

  gen_docs.py --schemas-header FILE     the C++ list of all schemas, for tools/print_contracts.cc (run by the build)
  gen_docs.py CONTRACTS_PROGRAM         writes the docs
  gen_docs.py --check CONTRACTS_PROGRAM fails where they are stale (a test does this)

A page is the op's header comment (formula), its schema rows, the other fields of its argument structs, and the bound
that its reference states. What people add below the line `<!-- notes -->` of a page stays.
"""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
OPS = ROOT / "include/fulmen/ops"
NOTES = "<!-- notes -->"
MADE = "<!-- Made by tools/gen_docs.py from {}. Write below the notes line only. -->\n"


def schemas_header() -> str:
    includes, entries = [], []
    for header in sorted(OPS.glob("*.h")):
        text = header.read_text()
        includes.append(f"#include <fulmen/ops/{header.name}>")
        for name in re.findall(r"inline constexpr OpSchema (\w+)\s*\{", text):
            entries.append(f'{{"{header.stem}", &{name}}}')
        # An op with one schema per entry point offers them through a function.
        if "attention_schema(" in text:
            for entry in re.findall(r"\b(k\w+),? *//", text.split("enum class AttentionEntry")[1].split("}")[0]):
                paged = "true" if re.search("Paged|BatchDecode|kBatchAttention", entry) else "false"
                schema = f"&attention_schema(AttentionEntry::{entry}, KvLayout::kNHD, {paged})"
                entries.append(f'{{"{header.stem}", {schema}}}')
    lines = ["// SPDX-License-Identifier: Apache-2.0", "#pragma once", *includes, "#include <array>",
             "namespace fulmen {", "struct NamedSchema {", "  const char* header;", "  const OpSchema* schema;", "};",
             f"inline const std::array<NamedSchema, {len(entries)}> kAllSchemas{{{{"]
    return "\n".join(lines + [f"    {e}," for e in entries] + ["}};", "}  // namespace fulmen", ""])


def opening_comment(path: pathlib.Path) -> str:
    """The comment at the top of a file, less the SPDX line and the comment signs."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("//"):
            break
        if "SPDX" not in line:
            lines.append(line[2:].removeprefix(" "))
    return "\n".join(lines)


def to_markdown(comment: str) -> str:
    """Indented lines of a comment are formulas; the others are prose."""
    out, in_code = [], False
    for line in comment.splitlines():
        is_code = line.startswith("  ")
        if is_code != in_code:
            out += ["", "```text"] if is_code else ["```", ""]
            in_code = is_code
        out.append(line)
    return "\n".join(out + (["```"] if in_code else []))


def option_rows(header: str) -> list[str]:
    """Fields of the header's Args and Options structs that are not tensors: `type name = default;  // meaning`."""
    rows = []
    for body in re.findall(r"struct \w+(?:Args|Options)(?: : \w+)? \{\n(.*?)\n\};", header, re.S):
        for line in body.splitlines():
            field = re.match(r"\s+(?!\s|TensorView)([\w:<>* ]+?) (\w+ = .*?|\w+);\s*(?://\s*(.*))?$", line)
            if field and not field[1].endswith("Options"):
                rows.append(f"| `{field[2]}` | `{field[1]}` | {field[3] or ''} |")
    return rows


def dtypes_text(dtypes: list[str]) -> str:
    return ", ".join(dtypes) if len(dtypes) < 13 else "any"


def tensor_rows(schema: dict) -> list[str]:
    rows = []
    for t in schema["tensors"]:
        how = t["access"] + (", optional" if t["optional"] else "")
        shape = ", ".join(t["shape"].split())
        rows.append(f"| `{t['name']}` | `[{shape}]` | {dtypes_text(t['dtypes'])} | {how} | {t['doc']} |")
    return rows


def page(op: str, contracts: dict) -> str:
    header = OPS / f"{op}.h"
    out = [MADE.format(f"include/fulmen/ops/{op}.h"), f"# {op}\n", to_markdown(opening_comment(header)), ""]
    first: list[str] = []
    for schema in (s for s in contracts["schemas"] if s["header"] == op):
        rows = tensor_rows(schema)
        is_like_first = len(set(rows) & set(first)) > len(rows) / 2
        out.append(f"## Tensors of `{schema['op']}`\n")
        if is_like_first:
            rows = [r for r in rows if r not in first]
            out.append("The same" + (", except:\n" if rows else ".\n"))
        if rows:
            out += ["| name | shape | dtypes | | |", "| --- | --- | --- | --- | --- |", *rows, ""]
        first = first or rows
    if options := option_rows(header.read_text()):
        out += ["## Other arguments\n", "| field | type | meaning |", "| --- | --- | --- |", *options, ""]
    reference = ROOT / f"include/fulmen/reference/{op}.h"
    if reference.exists():
        out += ["## Error bound\n", to_markdown(opening_comment(reference)), ""]
    files = [f"include/fulmen/ops/{op}.h", f"src/ops/{op}.cc", f"include/fulmen/reference/{op}.h",
             f"include/fulmen/cpu/{op}.h", f"tests/{op}_test.cc", f"benchmarks/{op}_bench.cc"]
    links = ", ".join(f"[{f}](../../{f})" for f in files if (ROOT / f).exists())
    return "\n".join(out + ["## Files\n", links, "", NOTES, ""])


def support_matrix(contracts: dict) -> str:
    """One row per op: the dtypes its schema accepts for its first tensor, and the kernels of each backend."""
    out = ["| op | functions | first tensor | kernels, most specialised first |", "| --- | --- | --- | --- |"]
    first = {}
    for s in contracts["schemas"]:
        first.setdefault(s["op"], (s["header"], dtypes_text(s["tensors"][0]["dtypes"])))
    kernels: dict[str, list[str]] = {}
    for row in contracts["kernels"]:
        kernels.setdefault(row["op"], []).append(row["kernel"])
    for op in sorted(kernels):
        header, dtypes = first.get(op, (op, ""))
        if not (OPS / f"{header}.h").exists():  # a step of others' calls
            continue
        text = (OPS / f"{header}.h").read_text()
        functions = re.findall(r"^void (\w+)\(const \w+Args& \w+, const Context&", text, re.M)
        out.append(f"| [{op}]({{ops}}{header}.md) | {', '.join(functions)} | {dtypes} | "
                   f"{', '.join(dict.fromkeys(kernels[op]))} |")
    return "\n".join(out) + "\n"


def between_markers(text: str, name: str, new: str) -> str:
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    if begin not in text:
        return text
    return text.split(begin)[0] + begin + new + end + text.split(end, 1)[1]


def all_docs(contracts: dict) -> dict[pathlib.Path, str]:
    docs = {}
    for op in sorted({s["header"] for s in contracts["schemas"]}):
        file = ROOT / f"docs/ops/{op}.md"
        notes = file.read_text().split(NOTES + "\n", 1)[1] if file.exists() and NOTES in file.read_text() else ""
        docs[file] = page(op, contracts) + notes
    matrix = support_matrix(contracts)
    docs[ROOT / "docs/support_matrix.md"] = (MADE.format("the kernels' tables") +
                                             "# Support matrix\n\n" + matrix.format(ops="ops/"))
    for name in ("README.md", "README.zh-CN.md"):
        file = ROOT / name
        if file.exists():
            docs[file] = between_markers(file.read_text(), "support_matrix", matrix.format(ops="docs/ops/"))
    return docs


def main(arguments: list[str]) -> int:
    if arguments[0] == "--schemas-header":
        pathlib.Path(arguments[1]).write_text(schemas_header())
        return 0
    is_check = arguments[0] == "--check"
    contracts = json.loads(subprocess.run([arguments[-1]], capture_output=True, text=True, check=True).stdout)
    stale = {f: text for f, text in all_docs(contracts).items() if not f.exists() or f.read_text() != text}
    for file, text in stale.items():
        print(("stale: " if is_check else "wrote ") + str(file.relative_to(ROOT)))
        if not is_check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    if is_check and stale:
        print(f"run: python3 tools/gen_docs.py {arguments[-1]}")
    return int(is_check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
