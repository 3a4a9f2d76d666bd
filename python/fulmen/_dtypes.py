# SPDX-License-Identifier: Apache-2.0
"""Names of element types ("float32", "bfloat16", ...) and what NumPy and PyTorch call them.

Everything inside the package speaks names; frameworks are asked only at the border. NumPy's bfloat16 and FP8 are those
of ml_dtypes, which is needed only by callers who use them.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np

ML_DTYPES = frozenset({"bfloat16", "float8_e4m3fn", "float8_e5m2"})
FP8 = frozenset({"float8_e4m3fn", "float8_e5m2"})
NAMES = ML_DTYPES | {
    "float16", "float32", "float64", "bool",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
}  # fmt: skip
_ALIASES = {"half": "float16", "float": "float32", "double": "float64", "float8_e4m3": "float8_e4m3fn",
            "fp8_e4m3": "float8_e4m3fn", "fp8_e5m2": "float8_e5m2", "bf16": "bfloat16", "fp16": "float16",
            "int": "int32", "long": "int64"}  # fmt: skip


def dtype_name(dtype: Any) -> str:
    """The name of a torch.dtype, a NumPy dtype, a scalar type or a name. Raises TypeError on anything else."""
    name = str(dtype).removeprefix("torch.")  # right for dtypes and plain names, which is what most calls ask about
    if name not in NAMES:
        name = _name_of(dtype)
    if name in NAMES:
        return name
    raise TypeError(f"{dtype!r} is not a dtype that fulmen knows; expected one of {', '.join(sorted(NAMES))}")


def _name_of(dtype: Any) -> str:
    if isinstance(dtype, str):
        name = dtype.rsplit(".", 1)[-1]
        return _ALIASES.get(name, name)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(dtype, torch.dtype):
        return str(dtype).rsplit(".", 1)[-1]
    return _numpy_name(dtype)


@functools.lru_cache(maxsize=256)
def _numpy_name(dtype: Any) -> str:
    try:
        return np.dtype(dtype).name
    except TypeError:
        return str(dtype)


@functools.lru_cache(maxsize=64)
def numpy_dtype(name: str) -> np.dtype:
    """NumPy's dtype of a name. Raises ImportError when it is one of ml_dtypes' and that is not installed."""
    if name not in ML_DTYPES:
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError(f"{name} in NumPy needs the package ml_dtypes: pip install ml_dtypes") from error
    return np.dtype(getattr(ml_dtypes, name))


def torch_dtype(name: str) -> Any:
    """PyTorch's dtype of a name; PyTorch must be loaded."""
    return getattr(sys.modules["torch"], name)
