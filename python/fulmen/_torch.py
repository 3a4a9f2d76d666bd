# SPDX-License-Identifier: Apache-2.0
"""Every operator of the library as torch.ops.fulmen.<name>, for torch.compile, torch.export and tensor subclasses.

Made from the module's own lists: argument types from `list_functions`, which tensors are written from the ops' schemas
(`list_schemas`). The library allocates no tensors, so an operator returns nothing and its fake implementation is empty.
Eager calls do not pass through here. Importing this module imports PyTorch and registers all operators.
"""

from __future__ import annotations

import functools
import json
from typing import Any, Callable

import torch

from ._ffi import lib

NAMESPACE = "fulmen"


def schema_of(function: dict[str, Any], written: dict[str, bool]) -> str | None:
    """PyTorch's schema of a function; None where it takes something that PyTorch has no type for."""
    if "object" in function["types"] or not any(t.startswith("Tensor") for t in function["types"]):
        return None
    arguments = []
    for name, type_ in zip(function["arguments"].split(", "), function["types"]):
        if type_.startswith("Tensor") and written[name]:
            type_ = type_.replace("Tensor", f"Tensor(a{len(arguments)}!)")
        arguments.append(f"{type_} {name}")
    return f"{function['name']}({', '.join(arguments)}) -> ()"


def attention_schema(function: dict[str, Any]) -> str:
    """Of the one call whose types the module does not list: it takes too many arguments for a typed signature."""
    needed, written = ("q", "k", "v"), ("out", "lse", "workspace")
    words = {"entry": "str", "kv_layout": "str", "lse_base": "str", "causal": "bool", "disable_split": "bool"}
    words |= {"window_left": "int", "fixed_split_len": "int"}
    names = function["arguments"].split(", ")
    arguments = []
    for i, name in enumerate(names):
        type_ = words.get(name, "float" if i > names.index("kv_layout") else "Tensor")
        if type_ == "Tensor":
            type_ += f"(a{i}!)" if name in written else ""
            type_ += "" if name in (*needed, "out") else "?"
        arguments.append(f"{type_} {name}")
    return f"attention({', '.join(arguments)}) -> ()"


PLANNED = (
    "planned_attention(int wrapper, Tensor q, Tensor k, Tensor v, Tensor(a4!) out, Tensor(a5!)? lse, Tensor? sinks, "
    "float q_scale, float k_scale, float v_scale) -> ()"
)


def _planned(handle: int, *args: Any) -> None:
    from ._copies import wrapper_of

    *tensors, q_scale, k_scale, v_scale = args
    wrapper_of(handle)._run_into(*tensors, (q_scale, k_scale, v_scale))


def _implementation(name: str) -> Callable[..., None]:
    from ._arrays import arg

    function = lib.function(name)

    def run(*args: Any) -> None:
        function(*[arg(x) if isinstance(x, torch.Tensor) else x for x in args])

    return run


def _fake(*args: Any) -> None:
    """Nothing to infer: outputs are arguments."""


def _register() -> torch.library.Library:
    library = torch.library.Library(NAMESPACE, "DEF")
    schemas = json.loads(lib.function("list_schemas")())
    written = {s["op"]: {t["name"]: t["access"] != "read" for t in s["tensors"]} for s in schemas}
    for function in json.loads(lib.function("list_functions")()):
        if function["name"] == "attention":
            schema: str | None = attention_schema(function)
        else:
            schema = schema_of(function, written.get(function["name"], {}))
        if schema is None:
            continue
        library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        library.impl(function["name"], _implementation(function["name"]), "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{function['name']}", _fake, lib=library)
    library.define(PLANNED, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl("planned_attention", _planned, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::planned_attention", _fake, lib=library)
    return library


_library = _register()


def is_registered(name: str) -> bool:
    """Whether the function is an operator: it takes tensors, and nothing that PyTorch has no type for."""
    return hasattr(torch.ops.fulmen, name)


def traced(name: str) -> Callable[..., None]:
    """What stands for `lib.<name>` while PyTorch traces."""
    return functools.partial(call_traced, name)


def call_traced(name: str, *args: Any) -> None:
    """The operator through PyTorch's dispatcher. Like the eager call it gives no gradients."""
    args = tuple(x.detach() if isinstance(x, torch.Tensor) and x.requires_grad else x for x in args)
    getattr(torch.ops.fulmen, name)(*args)
