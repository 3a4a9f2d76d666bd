# SPDX-License-Identifier: Apache-2.0
"""Decode attention over a 2-D block table, as fulmen.decode exports it."""

from __future__ import annotations

from typing import Any

from . import _attention as core
from ._arrays import Array, arg, out_arg, takes_dlpack
from ._ffi import lib
from ._options import only, unpack_paged_kv_cache


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
    lse: Array | None = None,
    return_lse: bool = False,
) -> Array | tuple[Array, Array]:
    """Decode attention over a 2-D block table.

    query: [batch_size * q_len_per_req, num_qo_heads, head_dim]; kv_cache as in the wrappers; block_tables: int32
    [batch_size, max_num_pages]; seq_lens: int32 [batch_size] tokens. bmm1_scale multiplies q·k (it includes sm_scale),
    bmm2_scale the output. max_seq_len bounds seq_lens on GPUs and is not needed here. workspace_buffer is not used.
    """
    only("trtllm_batch_decode_with_kv_cache", None, o_sf_scale=o_sf_scale, o_sf_vec_size=o_sf_vec_size, mask=mask)
    only("trtllm_batch_decode_with_kv_cache", 1.0, o_scale=o_scale)
    if backend not in ("auto", "trtllm-gen", "xqa"):
        raise NotImplementedError(f"trtllm_batch_decode_with_kv_cache: backend={backend!r} is not implemented")
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
