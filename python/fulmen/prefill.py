# SPDX-License-Identifier: Apache-2.0
"""Attention of several query tokens per request: over one sequence, a ragged batch, or a batch with a paged cache.

Queries are the last qo_len positions of their sequence: causal keeps key j of query i where j + qo_len <= kv_len + i,
so appending to a cache is the same call. Layouts, log-sum-exp and empty rows as in fulmen.decode.
"""

from __future__ import annotations

import functools
from typing import Any

from . import _attention as core
from ._arrays import Array, arg, out_arg, takes_dlpack
from ._device_plan import near
from ._ffi import lib
from ._options import check_backend, check_kv_layout, check_pos_encoding_mode, only, only_newer, unpack_paged_kv_cache
from ._prefill_batch import BatchPrefillWithPagedKVCacheWrapper, BatchPrefillWithRaggedKVCacheWrapper
from .quantization import packbits

# Options of newer versions of FlashInfer, each with the value that asks for nothing.
_NEWER = {"use_fp16_softmax": None, "uses_spcompress": None, "backend": "trtllm-gen"}

__all__ = [
    "BatchPrefillWithPagedKVCacheWrapper",
    "BatchPrefillWithRaggedKVCacheWrapper",
    "single_prefill_with_kv_cache",
    "single_prefill_with_kv_cache_return_lse",
    "single_prefill_with_kv_cache_with_jit_module",
    "trtllm_batch_context_with_kv_cache",
]


@takes_dlpack
def single_prefill_with_kv_cache(
    q: Array,
    k: Array,
    v: Array,
    scale_q: Any = None,
    scale_k: Any = None,
    scale_v: Any = None,
    o_dtype: Any = None,
    custom_mask: Array | None = None,
    packed_custom_mask: Array | None = None,
    causal: bool = False,
    kv_layout: str = "NHD",
    pos_encoding_mode: str = "NONE",
    use_fp16_qk_reduction: bool = False,
    sm_scale: float | None = None,
    window_left: int = -1,
    logits_soft_cap: float | None = None,
    rope_scale: float | None = None,
    rope_theta: float | None = None,
    backend: str = "auto",
    return_lse: bool = False,
    kv_cache_sf: Any = None,
    k_scale: Any = None,
    v_scale: Any = None,
) -> Array | tuple[Array, Array]:
    """Attention of one request.

    q: [qo_len, num_qo_heads, head_dim_qk]; k: [kv_len, num_kv_heads, head_dim_qk], v: [.., head_dim_vo] (NHD; HND has
    heads first). custom_mask: bool [qo_len, kv_len], True keeps, replaces causal; packed_custom_mask: its bits, little
    endian, wins over custom_mask. scale_q, scale_k, scale_v: one number each; per-head tensors raise
    NotImplementedError. Returns [qo_len, num_qo_heads, head_dim_vo] of o_dtype (None: q's, float16 for FP8), with
    return_lse also float32 [qo_len, num_qo_heads].
    """
    op = "single_prefill_with_kv_cache"
    check_kv_layout(kv_layout)
    check_pos_encoding_mode(pos_encoding_mode)
    check_backend(op, backend)
    only(op, None, kv_cache_sf=kv_cache_sf)
    only(op, False, use_fp16_qk_reduction=use_fp16_qk_reduction)
    custom_mask, packed_custom_mask = near(custom_mask, q), near(packed_custom_mask, q)
    if packed_custom_mask is None and custom_mask is not None:
        kv_len = k.shape[0] if kv_layout == "NHD" else k.shape[1]
        if custom_mask.reshape(-1).shape[0] != q.shape[0] * kv_len:
            raise ValueError(f"custom_mask has shape {tuple(custom_mask.shape)}, expected {(q.shape[0], kv_len)}")
        packed_custom_mask = packbits(custom_mask, "little")
    shape = (q.shape[0], q.shape[1], v.shape[-1])
    out, lse = core.outputs(q, shape, core.output_dtype(core.dtype_of(q), o_dtype), None, None, return_lse)
    of_logits = {"scale_q": scale_q, "scale_k": scale_k, "k_scale": k_scale}
    s = core.Scaled(q, out, of_logits, {"scale_v": scale_v, "v_scale": v_scale})
    lib.attention(
        "single_prefill", arg(s.q), arg(k), arg(v), None, None, None, None, None, None, arg(s.out), arg(lse),
        arg(packed_custom_mask), None, core.alibi_slopes_for(q, pos_encoding_mode, q.shape[1]), None, None,
        *core.options(
            kv_layout, causal, window_left, logits_soft_cap, sm_scale, s.logits, 1.0, s.values,
            core.rope_of(pos_encoding_mode, rope_scale, rope_theta),
        ),
    )  # fmt: skip
    s.finish()
    return (out, lse) if return_lse else out


single_prefill_with_kv_cache_return_lse = functools.partial(single_prefill_with_kv_cache, return_lse=True)


def single_prefill_with_kv_cache_with_jit_module(
    jit_module: Any,
    q: Array,
    k: Array,
    v: Array,
    *args: Any,
    kv_layout: str = "NHD",
    mask_mode: int = 0,
    window_left: int = -1,
    return_lse: bool = False,
) -> Array | tuple[Array, Array]:
    """single_prefill_with_kv_cache with a variant of the caller's (fulmen.jit); args: its tensors, then its scalars.

    mask_mode: MaskMode 0 (none), 1 (causal) or 2 (custom: the variant masks).
    """
    if mask_mode not in (0, 1, 2):
        raise NotImplementedError(f"single_prefill_with_kv_cache_with_jit_module: mask_mode={mask_mode}")
    shape = (q.shape[0], q.shape[1], v.shape[-1])
    causal = mask_mode == 1
    return jit_module.run_single("single_prefill", q, k, v, shape, args, kv_layout, causal, window_left, return_lse)


@takes_dlpack
def trtllm_batch_context_with_kv_cache(
    query: Array,
    kv_cache: Array | tuple[Array, Array],
    workspace_buffer: Array | None,
    block_tables: Array,
    seq_lens: Array,
    max_q_len: int,
    max_kv_len: int,
    bmm1_scale: float,
    bmm2_scale: float,
    batch_size: int,
    cum_seq_lens_q: Array,
    cum_seq_lens_kv: Array,
    window_left: int = -1,
    out: Array | None = None,
    out_dtype: Any = None,
    o_sf_scale: Any = None,
    o_sf_vec_size: int | None = None,
    kv_layout: str = "HND",
    enable_pdl: bool | None = None,
    sinks: Any = None,
    kv_cache_sf: Any = None,
    skip_softmax_threshold_scale_factor: Any = None,
    uses_shared_paged_kv_idx: bool = True,
    causal: bool = True,
    lse: Array | None = None,
    return_lse: bool = False,
    **newer: Any,
) -> Array | tuple[Array, Array]:
    """Prefill attention over a 2-D block table.

    query: [total_q, num_qo_heads, head_dim]; block_tables: int32 [batch_size, max_num_pages]; seq_lens: int32
    [batch_size] kv tokens; cum_seq_lens_q: int32 [batch_size + 1] offsets into query. bmm1_scale multiplies q·k (it
    includes sm_scale), bmm2_scale the output. max_q_len, max_kv_len, cum_seq_lens_kv and workspace_buffer serve GPUs.
    """
    op = "trtllm_batch_context_with_kv_cache"
    only(op, None, o_sf_scale=o_sf_scale, o_sf_vec_size=o_sf_vec_size, kv_cache_sf=kv_cache_sf)
    only(op, None, skip_softmax_threshold_scale_factor=skip_softmax_threshold_scale_factor)
    only(op, True, uses_shared_paged_kv_idx=uses_shared_paged_kv_idx)
    only_newer(op, _NEWER, newer)
    if batch_size != block_tables.shape[0]:
        raise ValueError(f"{op}: batch_size is {batch_size}, block_tables has {block_tables.shape[0]} rows")
    k, v = unpack_paged_kv_cache(kv_cache, kv_layout)
    dtype = core.output_dtype(core.dtype_of(query), out_dtype)
    out, lse = core.outputs(query, (*query.shape[:-1], v.shape[-1]), dtype, out, lse, return_lse)
    s = core.Scaled(query, out, {"bmm1_scale": bmm1_scale}, {"bmm2_scale": bmm2_scale})
    lib.attention(
        "batch_prefill_paged", arg(s.q), arg(k), arg(v), arg(core.index(cum_seq_lens_q)), None, None, None,
        arg(core.index(block_tables)), arg(core.index(seq_lens)), out_arg(s.out), None if lse is None else out_arg(lse,
        "lse"),
        None, None, None, None if sinks is None else core.sinks_arg(sinks), None,
        *core.options(
            kv_layout, causal, window_left, None, s.logits, 1.0, 1.0, s.values,
        ),
    )  # fmt: skip
    s.finish()
    return (out, lse) if return_lse else out
