# SPDX-License-Identifier: Apache-2.0
"""Decode attention over a 2-D block table, as fulmen.decode exports it."""

from __future__ import annotations

from typing import Any

from . import _attention as core
from ._arrays import Array, arg, out_arg, takes_dlpack
from ._ffi import lib
from ._options import only, only_newer, unpack_paged_kv_cache

NEWER = {"bmm1_scale_log2": None, "enable_block_sparse_attention": False,
         "cp_world": 1, "cp_rank": 0, "causal_seqlens_kv_global": None, "bf16q_fp8kv_transform_mode": None,
         "request_order": None, "request_order_plan": None}  # fmt: skip


@takes_dlpack
def trtllm_batch_decode_with_kv_cache(
    query: Array,
    kv_cache: Array | tuple[Array, Array],
    workspace_buffer: Array | None,
    block_tables: Array,
    seq_lens: Array,
    max_seq_len: int,
    bmm1_scale: float = 1.0,
    bmm2_scale: float = 1.0,
    window_left: int = -1,
    out: Array | None = None,
    out_dtype: Any = None,
    o_sf_scale: Any = None,
    o_sf_vec_size: int | None = None,
    sinks: Any = None,
    kv_layout: str = "HND",
    enable_pdl: bool | None = None,
    backend: str = "auto",
    q_len_per_req: int = 1,
    o_scale: float = 1.0,
    mask: Any = None,
    max_q_len: int | None = None,
    cum_seq_lens_q: Array | None = None,
    skip_softmax_threshold_scale_factor: Any = None,
    kv_cache_sf: Any = None,
    uses_shared_paged_kv_idx: bool = True,
    lse: Array | None = None,
    return_lse: bool = False,
    **newer: Any,
) -> Array | tuple[Array, Array]:
    """Decode attention over a 2-D block table.

    query: [batch_size * q_len_per_req, num_qo_heads, head_dim]; kv_cache as in the wrappers; block_tables: int32
    [batch_size, max_num_pages]; seq_lens: int32 [batch_size] tokens. bmm1_scale multiplies q·k (it includes sm_scale),
    bmm2_scale the output. max_seq_len bounds seq_lens on GPUs and is not needed here. workspace_buffer is not used.
    newer: options that FlashInfer has added since, NEWER, each with the value that asks for nothing.
    """
    op = "trtllm_batch_decode_with_kv_cache"
    only(op, None, o_sf_scale=o_sf_scale, o_sf_vec_size=o_sf_vec_size, mask=mask, max_q_len=max_q_len)
    only(op, None, cum_seq_lens_q=cum_seq_lens_q, kv_cache_sf=kv_cache_sf)
    only(op, None, skip_softmax_threshold_scale_factor=skip_softmax_threshold_scale_factor)
    only(op, 1.0, o_scale=o_scale)
    only(op, True, uses_shared_paged_kv_idx=uses_shared_paged_kv_idx)
    only_newer(op, NEWER, newer)
    if backend not in ("auto", "trtllm-gen", "xqa"):
        raise NotImplementedError(f"{op}: backend={backend!r} is not implemented")
    k, v = unpack_paged_kv_cache(kv_cache, kv_layout)
    dtype = core.output_dtype(core.dtype_of(query), out_dtype)
    out, lse = core.outputs(query, (*query.shape[:-1], v.shape[-1]), dtype, out, lse, return_lse)
    s = core.Scaled(query, out, {"bmm1_scale": bmm1_scale}, {"bmm2_scale": bmm2_scale})
    lib.attention(
        "batch_decode", arg(s.q), arg(k), arg(v), None, None, None, None, arg(core.index(block_tables)),
        arg(core.index(seq_lens)), out_arg(s.out), None if lse is None else out_arg(lse, "lse"), None, None, None,
        None if sinks is None else core.sinks_arg(sinks), None,
        *core.options(kv_layout, q_len_per_req > 1, window_left, None, s.logits, 1.0, 1.0, s.values),
    )  # fmt: skip
    s.finish()
    return (out, lse) if return_lse else out
