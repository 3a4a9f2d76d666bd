# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding. Angles in float32 from 64-bit positions, error of sin and cos at most 1e-6 to position
10M.

q: [nnz, num_qo_heads, head_dim], k: [nnz, num_kv_heads, head_dim], float32, float16 or bfloat16, last axis contiguous.
Positions: pos_ids [nnz], or indptr [batch_size + 1] and offsets [batch_size], where token t of request b is at
offsets[b] + t - indptr[b]. rotary_dim None rotates all of head_dim; the rest is copied. interleave pairs neighbours,
else halves. Plain functions return new arrays (q, k); those named inplace write q and k and return None.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._arrays import Array, arg, cast, dtype_of, empty, empty_like, out_arg, takes_dlpack
from ._dtypes import FP8, dtype_name
from ._ffi import lib
from ._options import check_kv_layout, nhd


def _index(x: Array) -> Any:
    """Positions of any integer type as the library's int32 or int64."""
    kind = dtype_of(x)
    if "int" not in kind:
        raise TypeError(f"positions and indices of {kind}, expected integers")
    return arg(x if kind in ("int32", "int64") else cast(x, "int64"))


def _rope(
    q: Array,
    k: Array,
    inplace: bool,
    pos_ids: Array | None,
    indptr: Array | None,
    offsets: Array | None,
    rotary_dim: int | None,
    interleave: bool,
    rope_scale: float,
    rope_theta: float,
    llama31: tuple[float, float, int] = (1.0, 4.0, 0),
) -> tuple[Array, Array]:
    q_out, k_out = (q, k) if inplace else (empty_like(q), empty_like(k))
    lib.rope(
        arg(q), arg(k), out_arg(q_out, "q"), out_arg(k_out, "k"),
        None if pos_ids is None else _index(pos_ids),
        None if indptr is None else _index(indptr),
        None if offsets is None else _index(offsets),
        None, rotary_dim or 0, interleave, rope_scale, rope_theta, *llama31,
    )  # fmt: skip
    return q_out, k_out


@takes_dlpack
def apply_rope_inplace(
    q: Array,
    k: Array,
    indptr: Array,
    offsets: Array,
    rotary_dim: int | None = None,
    interleave: bool = False,
    rope_scale: float = 1,
    rope_theta: float = 1e4,
) -> None:
    """Rotates q and k in place; positions from indptr and offsets."""
    _rope(q, k, True, None, indptr, offsets, rotary_dim, interleave, rope_scale, rope_theta)


@takes_dlpack
def apply_rope_pos_ids_inplace(
    q: Array,
    k: Array,
    pos_ids: Array,
    rotary_dim: int | None = None,
    interleave: bool = False,
    rope_scale: float = 1,
    rope_theta: float = 1e4,
) -> None:
    """Rotates q and k in place by pos_ids."""
    _rope(q, k, True, pos_ids, None, None, rotary_dim, interleave, rope_scale, rope_theta)


@takes_dlpack
def apply_llama31_rope_inplace(
    q: Array,
    k: Array,
    indptr: Array,
    offsets: Array,
    rotary_dim: int | None = None,
    interleave: bool = False,
    rope_scale: float = 8,
    rope_theta: float = 5e5,
    low_freq_factor: float = 1,
    high_freq_factor: float = 4,
    old_context_len: int = 8192,
) -> None:
    """Rotates q and k in place with Llama 3.1's frequencies; positions from indptr and offsets."""
    llama31 = (low_freq_factor, high_freq_factor, old_context_len)
    _rope(q, k, True, None, indptr, offsets, rotary_dim, interleave, rope_scale, rope_theta, llama31)


@takes_dlpack
def apply_llama31_rope_pos_ids_inplace(
    q: Array,
    k: Array,
    pos_ids: Array,
    rotary_dim: int | None = None,
    interleave: bool = False,
    rope_scale: float = 8,
    rope_theta: float = 5e5,
    low_freq_factor: float = 1,
    high_freq_factor: float = 4,
    old_context_len: int = 8192,
) -> None:
    """Rotates q and k in place by pos_ids with Llama 3.1's frequencies."""
    llama31 = (low_freq_factor, high_freq_factor, old_context_len)
    _rope(q, k, True, pos_ids, None, None, rotary_dim, interleave, rope_scale, rope_theta, llama31)


@takes_dlpack
def apply_rope(
    q: Array,
    k: Array,
    indptr: Array,
    offsets: Array,
    rotary_dim: int | None = None,
    interleave: bool = False,
    rope_scale: float = 1,
    rope_theta: float = 1e4,
) -> tuple[Array, Array]:
    """Rotated copies of q and k; positions from indptr and offsets. Rows that no request owns are undefined."""
    return _rope(q, k, False, None, indptr, offsets, rotary_dim, interleave, rope_scale, rope_theta)


@takes_dlpack
def apply_rope_pos_ids(
    q: Array,
    k: Array,
    pos_ids: Array,
    rotary_dim: int | None = None,
    interleave: bool = False,
    rope_scale: float = 1,
    rope_theta: float = 1e4,
) -> tuple[Array, Array]:
    """Copies of q and k, rotated by pos_ids."""
    return _rope(q, k, False, pos_ids, None, None, rotary_dim, interleave, rope_scale, rope_theta)


@takes_dlpack
def apply_llama31_rope(
    q: Array,
    k: Array,
    indptr: Array,
    offsets: Array,
    rotary_dim: int | None = None,
    interleave: bool = False,
    rope_scale: float = 8,
    rope_theta: float = 5e5,
    low_freq_factor: float = 1,
    high_freq_factor: float = 4,
    old_context_len: int = 8192,
) -> tuple[Array, Array]:
    """Rotated copies with Llama 3.1's frequencies; positions from indptr and offsets."""
    llama31 = (low_freq_factor, high_freq_factor, old_context_len)
    return _rope(q, k, False, None, indptr, offsets, rotary_dim, interleave, rope_scale, rope_theta, llama31)


@takes_dlpack
def apply_llama31_rope_pos_ids(
    q: Array,
    k: Array,
    pos_ids: Array,
    rotary_dim: int | None = None,
    interleave: bool = False,
    rope_scale: float = 8,
    rope_theta: float = 5e5,
    low_freq_factor: float = 1,
    high_freq_factor: float = 4,
    old_context_len: int = 8192,
) -> tuple[Array, Array]:
    """Copies rotated by pos_ids with Llama 3.1's frequencies."""
    llama31 = (low_freq_factor, high_freq_factor, old_context_len)
    return _rope(q, k, False, pos_ids, None, None, rotary_dim, interleave, rope_scale, rope_theta, llama31)


def _heads(x: Array, head_size: int) -> Array:
    """[nnz, heads * head_size] as [nnz, heads, head_size], the same memory."""
    if x.ndim == 3:
        return x
    heads, rest = divmod(x.shape[-1], head_size)
    if rest:
        raise ValueError(f"query or key has {x.shape[-1]} columns, expected a multiple of head_size, {head_size}")
    if isinstance(x, np.ndarray):  # reshape would copy rows that are further apart than their length
        strides = (x.strides[0], head_size * x.itemsize, x.strides[1])
        return np.lib.stride_tricks.as_strided(x, (x.shape[0], heads, head_size), strides)
    return x.view(x.shape[0], heads, head_size)


def _cached(
    positions: Array, query: Array, key: Array, head_size: int, cache: Array, is_neox: bool, outs: tuple[Array, Array]
) -> None:
    q, k = _heads(query, head_size), _heads(key, head_size)
    q_out = q if outs[0] is query else _heads(outs[0], head_size)
    k_out = k if outs[1] is key else _heads(outs[1], head_size)
    lib.rope(
        arg(q), arg(k), out_arg(q_out, "query"), out_arg(k_out, "key"), _index(positions), None, None, arg(cache),
        0, not is_neox, 1.0, 1e4, 1.0, 4.0, 0,
    )  # fmt: skip


@takes_dlpack
def apply_rope_with_cos_sin_cache(
    positions: Array, query: Array, key: Array, head_size: int, cos_sin_cache: Array, is_neox: bool = True
) -> tuple[Array, Array]:
    """Copies of query and key, rotated by rows of a table.

    positions: [nnz]; query, key: [nnz, num_heads * head_size]; cos_sin_cache: [max_position, rotary_dim], a float type,
    cos of every pair, then sin. is_neox pairs halves, else neighbours.
    """
    outs = empty_like(query), empty_like(key)
    _cached(positions, query, key, head_size, cos_sin_cache, is_neox, outs)
    return outs


@takes_dlpack
def apply_rope_with_cos_sin_cache_inplace(
    positions: Array, query: Array, key: Array, head_size: int, cos_sin_cache: Array, is_neox: bool = True
) -> None:
    """apply_rope_with_cos_sin_cache, writing query and key."""
    _cached(positions, query, key, head_size, cos_sin_cache, is_neox, (query, key))


def _fp8_of(quantize_dtype: Any, *outs: Array | None) -> str:
    """The FP8 format that a call means: named, else that of the first output given, else float8_e4m3fn."""
    given = next((dtype_of(x) for x in outs if x is not None), "float8_e4m3fn")
    name = given if quantize_dtype is None else dtype_name(quantize_dtype)
    if name not in FP8:
        raise ValueError(f"quantize_dtype is {name}, expected float8_e4m3fn or float8_e5m2")
    return name


def _optional(x: Array | None) -> Array | None:
    """x unless it has no elements per head: a part that a model does not have."""
    return None if x is None or x.shape[-1] == 0 else x


def _heads_of(x: Array | None) -> Array | None:
    """[nnz, dim] of MLA as [nnz, 1, dim]."""
    return x[:, None] if x is not None and x.ndim == 2 else x


def _part_out(part: Array | None, out: Array | None, like: Array, dtype: str) -> Array:
    if out is not None:
        return out
    return empty(like, (*like.shape[:-1], 0) if part is None else part.shape, dtype)


def _check_table(cos_sin_cache: Array) -> None:
    if dtype_of(cos_sin_cache) != "float32":
        raise ValueError(f"cos_sin_cache has dtype {dtype_of(cos_sin_cache)}, expected float32")


@takes_dlpack
def rope_quantize_fp8(
    q_rope: Array,
    k_rope: Array,
    q_nope: Array | None,
    k_nope: Array | None,
    cos_sin_cache: Array,
    pos_ids: Array,
    is_neox: bool = True,
    quantize_dtype: Any = None,
    quant_scale_q: float = 1.0,
    quant_scale_kv: float = 1.0,
    q_rope_out: Array | None = None,
    k_rope_out: Array | None = None,
    q_nope_out: Array | None = None,
    k_nope_out: Array | None = None,
    enable_pdl: bool = False,
    backend: str = "cuda",
) -> tuple[Array, Array, Array, Array]:
    """Rotates q_rope and k_rope and narrows all four parts to FP8: (q_rope_out, k_rope_out, q_nope_out, k_nope_out).

    q_rope: [nnz, num_qo_heads, rope_dim]; k_rope: [nnz, num_kv_heads, rope_dim], or [nnz, rope_dim] for MLA; q_nope and
    k_nope: what is not rotated, None if there is none. cos_sin_cache: float32 [max_position, rope_dim]. A value is
    multiplied by quant_scale_q or quant_scale_kv, then rounded to nearest even; it saturates.
    """
    _check_table(cos_sin_cache)
    dtype = _fp8_of(quantize_dtype, q_rope_out, k_rope_out, q_nope_out, k_nope_out)
    q_nope, k_nope = _optional(q_nope), _optional(k_nope)
    outs = (
        _part_out(q_rope, q_rope_out, q_rope, dtype), _part_out(k_rope, k_rope_out, k_rope, dtype),
        _part_out(q_nope, q_nope_out, q_rope, dtype), _part_out(k_nope, k_nope_out, k_rope, dtype),
    )  # fmt: skip
    lib.rope_quantize_fp8(
        arg(q_rope), arg(_heads_of(k_rope)), arg(q_nope), arg(_heads_of(k_nope)), out_arg(outs[0], "q_rope_out"),
        out_arg(_heads_of(outs[1]), "k_rope_out"), None if q_nope is None else out_arg(outs[2], "q_nope_out"),
        None if k_nope is None else out_arg(_heads_of(outs[3]), "k_nope_out"), _index(pos_ids), arg(cos_sin_cache),
        not is_neox, 1.0, 1e4, quant_scale_q, quant_scale_kv,
    )  # fmt: skip
    return outs


mla_rope_quantize_fp8 = rope_quantize_fp8


def _paged_parts(
    caches: tuple[Array, Array], rope_dim: int, is_mla: bool, kv_layout: str
) -> tuple[Array, Array, Array | None]:
    """The caches of k_rope, k_nope and v as [num_pages, page_size, num_kv_heads, dim]."""
    first, second = caches
    if is_mla:
        return second[:, :, None], first[:, :, None], None
    k = nhd(first, kv_layout)
    return k[..., :rope_dim], k[..., rope_dim:], nhd(second, kv_layout)


@takes_dlpack
def rope_quantize_fp8_append_paged_kv_cache(
    q_rope: Array,
    k_rope: Array,
    q_nope: Array | None,
    k_nope: Array | None,
    v: Array | None,
    cos_sin_cache: Array,
    pos_ids: Array,
    paged_kv_cache: tuple[Array, Array],
    kv_indices: Array,
    kv_indptr: Array,
    batch_indices: Array,
    positions: Array,
    is_neox: bool = True,
    quantize_dtype: Any = None,
    quant_scale_q: float = 1.0,
    quant_scale_kv: float = 1.0,
    page_size: int = 16,
    kv_layout: str = "NHD",
    q_rope_out: Array | None = None,
    q_nope_out: Array | None = None,
    enable_pdl: bool = False,
) -> tuple[Array, Array]:
    """rope_quantize_fp8 whose keys, and v, go to a paged cache: (q_rope_out, q_nope_out).

    paged_kv_cache: (k_cache, v_cache) [num_pages, page_size, num_kv_heads, head_dim] (NHD, or HND), a key being its
    rotated part, then the rest; for MLA (k_rope [nnz, rope_dim], v None) (ckv_cache, kpe_cache) [num_pages, page_size,
    dim] of k_nope and k_rope. The caches are FP8. page_size is the caches' own; another value is an error.
    """
    _check_table(cos_sin_cache)
    check_kv_layout(kv_layout)
    is_mla = k_rope.ndim == 2
    if (v is None) != is_mla:
        raise ValueError("v is given, expected None for MLA" if is_mla else "v is missing, expected values for GQA")
    dtype = _fp8_of(quantize_dtype, q_rope_out, q_nope_out)
    for cache in paged_kv_cache:
        if dtype_of(cache) != dtype:
            raise ValueError(f"paged_kv_cache has dtype {dtype_of(cache)}, expected {dtype}")
    k_rope_cache, k_nope_cache, v_cache = _paged_parts(paged_kv_cache, k_rope.shape[-1], is_mla, kv_layout)
    if k_rope_cache.shape[1] != page_size:
        raise ValueError(f"page_size is {page_size}, paged_kv_cache has pages of {k_rope_cache.shape[1]}")
    q_nope, k_nope = _optional(q_nope), _optional(k_nope)
    outs = _part_out(q_rope, q_rope_out, q_rope, dtype), _part_out(q_nope, q_nope_out, q_rope, dtype)
    lib.rope_append_paged_kv_cache(
        arg(q_rope), arg(_heads_of(k_rope)), arg(q_nope), arg(_heads_of(k_nope)), arg(v),
        out_arg(outs[0], "q_rope_out"), None if q_nope is None else out_arg(outs[1], "q_nope_out"),
        out_arg(k_rope_cache, "paged_kv_cache"), None if k_nope is None else out_arg(k_nope_cache, "paged_kv_cache"),
        None if v is None else out_arg(v_cache, "paged_kv_cache"), _index(pos_ids), _index(batch_indices),
        _index(positions), arg(kv_indices), arg(kv_indptr), arg(cos_sin_cache), not is_neox, 1.0, 1e4,
        quant_scale_q, quant_scale_kv,
    )  # fmt: skip
    return outs
