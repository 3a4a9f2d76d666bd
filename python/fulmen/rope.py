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

from ._arrays import Array, arg, cast, dtype_of, empty_like, out_arg, takes_dlpack
from ._ffi import lib


def _index(x: Array) -> Any:
    """Positions of any integer type as the library's int32 or int64."""
    return arg(x if dtype_of(x) in ("int32", "int64") else cast(x, "int64"))


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
    return x.unflatten(-1, (heads, head_size))


def _cached(
    positions: Array, query: Array, key: Array, head_size: int, cache: Array, is_neox: bool, outs: tuple[Array, Array]
) -> None:
    q, k, q_out, k_out = (_heads(x, head_size) for x in (query, key, *outs))
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
