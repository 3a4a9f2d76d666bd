# SPDX-License-Identifier: Apache-2.0
"""Packed bits for masks, and FP8 with a scale per tensor or per group."""

from __future__ import annotations

from typing import Any

from ._arrays import Array, arg, empty, from_numpy, host_ints, takes_dlpack
from ._dtypes import FP8, dtype_name
from ._ffi import lib
from ._options import only


@takes_dlpack
def packbits(x: Array, bitorder: str = "big") -> Array:
    """Eight booleans to a byte: uint8 [ceil(n / 8)] of bool or uint8 [n].

    bitorder: "big" puts element 0 into bit 7, "little" into bit 0. Attention masks are little.
    """
    flat = x.reshape(-1)
    out = empty(x, (-(-flat.shape[0] // 8),), "uint8")
    lib.packbits(arg(flat), arg(out), bitorder)
    return out


@takes_dlpack
def segment_packbits(x: Array, indptr: Array, bitorder: str = "big") -> tuple[Array, Array]:
    """packbits of each segment x[indptr[b] : indptr[b + 1]], every one from a byte on.

    Returns (packed uint8 [num_bytes], int32 [batch_size + 1] offsets into it).
    """
    bounds = host_ints(indptr, "int64")
    num_bytes = int(((bounds[1:] - bounds[:-1] + 7) // 8).clip(min=0).sum())
    packed, offsets = empty(x, (num_bytes,), "uint8"), empty(x, bounds.shape, "int32")
    lib.segment_packbits(arg(x), arg(from_numpy(x, bounds)), arg(packed), arg(offsets), bitorder)
    return packed, offsets


@takes_dlpack
def per_tensor_quant_fp8(x: Array, scale: Array | None = None, dst_dtype: Any = "float8_e4m3fn") -> tuple[Array, Array]:
    """(fp8(x / scale), scale), nearest even, saturating; scale float32 [1], None: max|x| / the largest FP8 number."""
    name = _fp8_name(dst_dtype)
    out = empty(x, x.shape, name)
    used = empty(x, (1,), "float32") if scale is None else scale
    lib.per_tensor_quant_fp8(arg(x), arg(out), arg(used), scale is None)
    return out, used


@takes_dlpack
def per_token_group_quant_8bit(
    x: Array,
    group_size: int,
    eps: float = 1e-10,
    dst_dtype: Any = None,
    column_major_scales: bool = False,
    scale_tma_aligned: bool = False,
    scale_ue8m0: bool = False,
    backend: str = "auto",
) -> tuple[Array, Array]:
    """FP8 with one scale per token and group of group_size elements: (out like x, scales float32).

    x: [num_tokens, hidden_size]; scales: [num_tokens, hidden_size / group_size], of which column_major_scales changes
    only the strides; scale_ue8m0 rounds scales up to powers of two, still stored as float32. dst_dtype: float8_e4m3fn
    (None) or float8_e5m2; int8 raises NotImplementedError. backend names GPU compilers and changes nothing here.
    """
    only("per_token_group_quant_8bit", False, scale_tma_aligned=scale_tma_aligned)
    name = _fp8_name("float8_e4m3fn" if dst_dtype is None else dst_dtype)
    groups = x.shape[-1] // group_size
    out = empty(x, x.shape, name)
    shape = (groups, x.shape[0]) if column_major_scales else (x.shape[0], groups)
    scales = empty(x, shape, "float32")
    lib.per_token_group_quant_fp8(arg(x), arg(out), arg(scales), group_size, eps, column_major_scales, scale_ue8m0)
    return out, scales.swapaxes(0, 1) if column_major_scales else scales


def _fp8_name(dtype: Any) -> str:
    name = dtype_name(dtype)
    if name not in FP8:
        raise NotImplementedError(f"dst_dtype {name} is not implemented; expected float8_e4m3fn or float8_e5m2")
    return name
