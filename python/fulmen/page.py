# SPDX-License-Identifier: Apache-2.0
"""Paged KV caches: writing new tokens, and what a page table says about lengths.

A table is CSR: kv_indptr [batch_size + 1] counts pages, kv_indices holds page numbers, kv_last_page_len [batch_size] is
1 to page_size. Indices are int32 or int64.
"""

from __future__ import annotations

from ._arrays import Array, arg, empty, out_arg, takes_dlpack
from ._ffi import lib
from ._options import check_kv_layout, nhd, unpack_paged_kv_cache


@takes_dlpack
def append_paged_kv_cache(
    append_key: Array,
    append_value: Array,
    batch_indices: Array,
    positions: Array,
    paged_kv_cache: Array | tuple[Array, Array],
    kv_indices: Array,
    kv_indptr: Array,
    kv_last_page_len: Array,
    kv_layout: str = "NHD",
) -> None:
    """Copies keys and values of new tokens to their slots; in place.

    append_key, append_value: [nnz, num_kv_heads, head_dim], the cache's dtype. batch_indices, positions: [nnz]; a
    negative batch index is padding and skipped. paged_kv_cache: [num_pages, 2, page_size, num_kv_heads, head_dim] (NHD)
    or heads before page_size (HND), or a pair of arrays without the axis of 2. The table counts the new tokens already.
    Raises ValueError on an index outside its table, naming the token; nothing is written then. On a GPU, where raising
    would mean waiting, such a token is dropped.
    """
    check_kv_layout(kv_layout)
    k, v = unpack_paged_kv_cache(paged_kv_cache, kv_layout)
    lib.append_paged_kv_cache(
        arg(append_key), arg(append_value), arg(batch_indices), arg(positions),
        out_arg(nhd(k, kv_layout), "paged_kv_cache"), out_arg(nhd(v, kv_layout), "paged_kv_cache"),
        arg(kv_indices), arg(kv_indptr), arg(kv_last_page_len),
    )  # fmt: skip


@takes_dlpack
def rope_append_paged_kv_cache(
    q: Array,
    k: Array,
    v: Array,
    pos_ids: Array,
    batch_indices: Array,
    positions: Array,
    paged_kv_cache: Array | tuple[Array, Array],
    kv_indices: Array,
    kv_indptr: Array,
    kv_layout: str = "NHD",
    interleave: bool = False,
    rope_scale: float = 1.0,
    rope_theta: float = 1e4,
    out: Array | None = None,
) -> Array:
    """Rotates q and k and appends k and v to the cache in one pass over new tokens; the rotated q (out, else new).

    As apply_rope_pos_ids followed by append_paged_kv_cache. pos_ids: [nnz], positions for the angles; positions: [nnz],
    those in the cache, mostly the same.
    """
    check_kv_layout(kv_layout)
    k_cache, v_cache = unpack_paged_kv_cache(paged_kv_cache, kv_layout)
    out = empty(q, q.shape) if out is None else out
    lib.rope_append_paged_kv_cache(
        arg(q), arg(k), None, None, arg(v), out_arg(out, "out"), None,
        out_arg(nhd(k_cache, kv_layout), "paged_kv_cache"), None, out_arg(nhd(v_cache, kv_layout), "paged_kv_cache"),
        arg(pos_ids), arg(batch_indices), arg(positions), arg(kv_indices), arg(kv_indptr), None, interleave, rope_scale,
        rope_theta, 1.0, 1.0,
    )  # fmt: skip
    return out


@takes_dlpack
def append_paged_mla_kv_cache(
    append_ckv: Array,
    append_kpe: Array,
    batch_indices: Array,
    positions: Array,
    ckv_cache: Array,
    kpe_cache: Array,
    kv_indices: Array,
    kv_indptr: Array,
    kv_last_page_len: Array,
) -> None:
    """Copies compressed KV and rotary keys of new tokens to their slots; in place.

    append_ckv: [nnz, head_dim_ckv]; append_kpe: [nnz, head_dim_kpe]; caches: [num_pages, page_size, ...].
    """
    lib.append_paged_mla_kv_cache(
        arg(append_ckv), arg(append_kpe), arg(batch_indices), arg(positions), out_arg(ckv_cache, "ckv_cache"),
        out_arg(kpe_cache, "kpe_cache"), arg(kv_indices), arg(kv_indptr), arg(kv_last_page_len),
    )  # fmt: skip


@takes_dlpack
def get_batch_indices_positions(
    append_indptr: Array,
    seq_lens: Array,
    nnz: int,
    batch_indices: Array | None = None,
    positions: Array | None = None,
) -> tuple[Array, Array]:
    """Request and position of each appended token, int32 [nnz] each.

    append_indptr: [batch_size + 1] first token of each request; seq_lens: [batch_size] kv lengths after the append.
    Tokens behind append_indptr[-1] get request -1, which append_paged_kv_cache skips.
    """
    if batch_indices is None:
        batch_indices = empty(append_indptr, (nnz,), "int32")
    if positions is None:
        positions = empty(append_indptr, (nnz,), "int32")
    lib.get_batch_indices_positions(
        arg(append_indptr), arg(seq_lens), out_arg(batch_indices, "batch_indices"), out_arg(positions, "positions")
    )
    return batch_indices, positions


@takes_dlpack
def get_seq_lens(kv_indptr: Array, kv_last_page_len: Array, page_size: int) -> Array:
    """kv length in tokens of each request, kv_last_page_len's dtype [batch_size]; a request without pages has 0."""
    out = empty(kv_last_page_len, (kv_indptr.shape[0] - 1,))
    lib.get_seq_lens(arg(kv_indptr), arg(kv_last_page_len), arg(out), page_size)
    return out
