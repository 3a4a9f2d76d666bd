# SPDX-License-Identifier: Apache-2.0
"""`fulmen why-not OP name=value …`: which kernel a call would run, or why none does, for given dtypes and sizes.

The call is made with stand-ins for tensors and never runs: the op checks it, the registry chooses, and there it ends.
"""

from __future__ import annotations

import json
import re
from typing import Any, Sequence

from ._dtypes import dtype_name
from ._ffi import lib

# What a call says where nobody says anything.
_DEFAULTS: dict[str, Any] = {
    "eps": 1e-6, "activation": "silu", "lse_base": "2", "bitorder": "little", "values": "probs", "temperature": 1.0,
    "top_k": 50, "top_p": 0.9, "rope_scale": 1.0, "rope_theta": 1e4, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "group_size": 128, "page_size": 16, "dynamic": True,
}  # fmt: skip
_BY_TYPE = {"int": 0, "float": 0.0, "bool": False, "str": ""}
_PREFERRED = ("bfloat16", "float16", "float32", "int32", "uint8", "float8_e4m3fn")


def _size(name: str) -> int:
    return 2 if name.startswith("num_") or name in ("batch_size", "nnz") else 128


def _tensor(text: str) -> tuple[str, list[int] | None]:
    """"bfloat16[4,4096]" or "bfloat16": dtype and shape."""
    found = re.fullmatch(r"(\w+)(?:\[([\d,\s]*)\])?", text)
    if not found:
        raise ValueError(f"{text!r} is not a tensor, expected a dtype or dtype[size,size,…]")
    sizes = None if found[2] is None else [int(n) for n in found[2].split(",") if n.strip()]
    if sizes and max(sizes) >= 2**62:
        raise ValueError(f"{text!r} is not a tensor: a size of it does not fit 64 bits")
    return dtype_name(found[1]), sizes


def _bind(words: str, shape: Sequence[int], sizes: dict[str, int]) -> None:
    """What a given shape says about the sizes that a schema's shape names."""
    axes = words.strip("[]").replace(",", " ").split()
    while len(axes) > len(shape) and any(word.endswith("?") for word in axes):
        axes.remove(next(word for word in axes if word.endswith("?")))
    for word, size in zip(axes, shape):  # "n", "n?", "2*n" or "n+1"
        found = re.fullmatch(r"(?:(\d+)\*)?([a-z_]\w*)\??(?:\+(\d+))?", word)
        if found is None:
            continue
        bound, rest = divmod(size - int(found[3] or 0), int(found[1] or 1))
        if rest == 0 and bound >= 0:
            sizes.setdefault(found[2], bound)


def _shape(words: str, sizes: dict[str, int]) -> list[int]:
    """A schema's shape with every name bound; axes that may be missing are left out."""
    shape = []
    for word in words.strip("[]").replace(",", " ").split():
        if word.endswith("?") or word == "...":
            continue
        factor, _, rest = word.rpartition("*")
        name, _, add = rest.partition("+")
        value = int(name) if name.isdigit() else sizes.setdefault(name, _size(name))
        shape.append(int(factor or 1) * value + int(add or 0))
    return shape


def _stand_in(dtype: str, shape: Sequence[int], device: tuple[int, int]) -> Any:
    import tvm_ffi

    return lib.stand_in(list(shape), tvm_ffi.dtype(dtype), *device)


_BOOLS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _number(name: str, text: str, type_: str) -> Any:
    try:
        return _BOOLS[text.lower()] if type_ == "bool" else {"int": int, "float": float, "str": str}[type_](text)
    except (KeyError, ValueError):
        raise ValueError(f"{name} is {text!r}, expected a value of type {type_}") from None


def _complete(op: str, given: dict[str, str], sizes: dict[str, int]) -> None:
    """Adds what fits by a rule that no schema's row can say."""
    if op == "rope":
        if not given.keys() & {"pos_ids", "indptr", "offsets"}:
            given["pos_ids"] = "int32"
        for name, other in (("indptr", "offsets"), ("offsets", "indptr")):
            if name in given:
                given.setdefault(other, "int32")
    elif op == "packbits":
        sizes.setdefault("num_bytes", (sizes.setdefault("num_bits", _size("num_bits")) + 7) // 8)
    elif op == "per_token_group_quant_fp8":
        tokens, hidden = (sizes.setdefault(name, _size(name)) for name in ("num_tokens", "hidden_size"))
        groups = hidden // max(1, _number("group_size", given.get("group_size", "128"), "int"))
        by_group = _number("group_major_scales", given.get("group_major_scales", "0"), "bool")
        given.setdefault("scales", f"float32[{groups},{tokens}]" if by_group else f"float32[{tokens},{groups}]")


def arguments(op: str, given: dict[str, str], device: tuple[int, int]) -> list[Any]:
    """The exported function's arguments. Raises ValueError on a name that the op does not have."""
    function = next(f for f in json.loads(lib.list_functions()) if f["name"] == op)
    rows = {t["name"]: t for t in next(s for s in json.loads(lib.list_schemas()) if s["op"] == op)["tensors"]}
    given, sizes, first, values = dict(given), {}, None, []
    names = function["arguments"].split(", ")
    for name in [n for n in given if n not in names]:
        sizes[name] = _number(name, given.pop(name), "int")
    known = set(re.findall(r"[a-z_]\w*", " ".join(row["shape"] for row in rows.values())))
    for name in set(sizes) - known:
        raise ValueError(f"{op} has no argument and no size {name!r}; arguments: {', '.join(names)}; "
                         f"sizes: {', '.join(sorted(known))}")
    for name in [n for n in given if n in rows]:
        _bind(rows[name]["shape"], _tensor(given[name])[1] or (), sizes)
    _complete(op, given, sizes)
    for name, type_ in zip(names, function["types"]):
        text = given.get(name)
        if not type_.startswith("Tensor"):
            value = _DEFAULTS.get(name, _BY_TYPE[type_]) if text is None else _number(name, text, type_)
        elif text is None and rows[name]["optional"]:
            value = None
        else:
            dtype, shape = _tensor(text) if text else (None, None)
            allowed = rows[name]["dtypes"]
            if dtype is None:
                dtype = first if first in allowed else next((d for d in _PREFERRED if d in allowed), allowed[0])
            first = first or dtype
            value = _stand_in(dtype, _shape(rows[name]["shape"], sizes) if shape is None else shape, device)
        values.append(value)
    return values


def ask(op: str, given: dict[str, str], device: tuple[int, int]) -> tuple[str, str]:
    """(kernel that would run, "") or ("", why none does)."""
    values = arguments(op, given, device)
    function = lib.function(op)
    lib.dry_run(True)
    try:
        function(*values)
    except (ValueError, NotImplementedError, RuntimeError) as error:
        return "", str(error)
    finally:
        kernels = str(lib.dry_run(False)).split()
    return (", ".join(kernels), "") if kernels else ("nothing: there is nothing to do", "")


def can_ask(op: str) -> bool:
    """Whether the op is a function of tensors and numbers alone."""
    return any(f["name"] == op and f["types"] and "object" not in f["types"] for f in json.loads(lib.list_functions()))
