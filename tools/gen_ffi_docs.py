# SPDX-License-Identifier: Apache-2.0
"""Makes docs/ffi.md from the module's own list of functions; tests/python/test_package.py holds the two equal."""

import json
import pathlib

from fulmen._ffi import lib

HEAD = """# The TVM-FFI module

<!-- Made by tools/gen_ffi_docs.py. -->

`libfulmen_ffi.so` exports every operator as a TVM-FFI function, for any program that speaks TVM-FFI: Python, C++, Rust,
TVM. `examples/05_tvm_ffi.cc` loads it and calls one; `python/fulmen` is written on it.

- Arguments are positional. Tensors are DLPack tensors of any framework, borrowed for the call; `None` stands for an
  optional tensor that is not given. The functions allocate no tensors: outputs are arguments.
- Shapes, dtypes and formulas are the operators' own: `include/fulmen/ops/`, `docs/ops/`.
- Errors arrive as ValueError (the call is wrong), NotImplementedError (no kernel serves it), RuntimeError (a bug) and
  TypeError (number or kind of arguments), with the library's text. Python programs that load the module themselves
  register the second kind first: `tvm_ffi.register_error("NotImplementedError", NotImplementedError)`.
- A name and the order of its arguments stay until the next major version; new arguments come with new names.

| function | does |
|---|---|
"""


def main() -> None:
    functions = sorted(json.loads(lib.list_functions()), key=lambda f: f["name"])
    rows = [f"| `{f['name']}({f['arguments']})` | {f['doc'].replace('|', chr(92) + '|')} |\n" for f in functions]
    path = pathlib.Path(__file__).resolve().parent.parent / "docs" / "ffi.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEAD + "".join(rows))


if __name__ == "__main__":
    main()
