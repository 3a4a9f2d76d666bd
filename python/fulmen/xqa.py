# SPDX-License-Identifier: Apache-2.0
"""FlashInfer's XQA entry points, served by the same attention as all others. `fulmen.xqa` is the function."""

from __future__ import annotations

from typing import Any

from . import _attention as core
from ._arrays import Array, arg, joined, out_arg, takes_dlpack
from ._ffi import lib
from ._launch import asks_pdl
from ._options import check_kv_layout, only


@takes_dlpack
def xqa(
    q: Array,
    k_cache: Array,
    v_cache: Array,
    page_table: Array,
    seq_lens: Array,
    output: Array,
    workspace_buffer: Array | None,
    semaphores: Array | None,
    num_kv_heads: int,
    page_size: int,
    sinks: Array | None = None,
    q_scale: float = 1.0,
    kv_scale: float = 1.0,
    sliding_win_size: int = 0,
    kv_layout: str = "NHD",
    sm_count: int | None = None,
    enable_pdl: bool | None = None,
    rcp_out_scale: float = 1.0,
    q_seq_len: int = 1,
    mask: Any = None,
    *,
    q_cu_seq_lens: Any = None,
    k_sf_cache: Any = None,
    v_sf_cache: Any = None,
) -> None:
    """Decode attention into `output`.

    q and output: [batch_size, 1, num_qo_heads, head_dim], with q_seq_len > 1 [batch_size, 1, q_seq_len, heads, dim],
    causal among a request's own queries; caches [num_pages, page_size, num_kv_heads, head_dim] (NHD) or heads first;
    page_table int32 [batch_size, max_num_pages]; seq_lens [batch_size, 1] of any integers; sinks float32 [num_kv_heads,
    group_size]. Logits are multiplied with q_scale * kv_scale / sqrt(head_dim), outputs with kv_scale * rcp_out_scale.
    sliding_win_size: keys that a row sees, itself included; 0 is all. workspace_buffer, semaphores and sm_count serve
    FlashInfer's kernel.
    """
    check_kv_layout(kv_layout)
    sizes = k_cache.shape[1:3] if kv_layout == "NHD" else (k_cache.shape[2], k_cache.shape[1])
    if tuple(sizes) != (page_size, num_kv_heads):
        raise ValueError(f"xqa: k_cache has page_size, num_kv_heads {tuple(sizes)}, expected {page_size, num_kv_heads}")
    only("xqa", None, mask=mask, q_cu_seq_lens=q_cu_seq_lens, k_sf_cache=k_sf_cache, v_sf_cache=v_sf_cache)
    batch, heads, dim = q.shape[0], q.shape[-2], q.shape[-1]
    rows, out = joined(q, (batch * q_seq_len, heads, dim)), joined(output, (batch * q_seq_len, heads, dim))
    of_values = {"kv_scale": kv_scale, "rcp_out_scale": rcp_out_scale}
    s = core.Scaled(rows, out, {"q_scale": q_scale, "kv_scale": kv_scale}, of_values)
    lib.attention(
        "batch_decode", arg(s.q), arg(k_cache), arg(v_cache), None, None, None, None, arg(core.index(page_table)),
        arg(core.index(seq_lens.reshape(-1))), out_arg(s.out), None, None, None, None,
        None if sinks is None else core.sinks_arg(sinks.reshape(-1)), None,
        *core.options(
            kv_layout, q_seq_len > 1, sliding_win_size - 1, None, None, s.logits, 1.0, s.values,
        ),
    )  # fmt: skip
    s.finish()


def xqa_mla(*args: Any, **kwargs: Any) -> None:
    """Raises NotImplementedError: attention over compressed keys has no kernels yet."""
    raise NotImplementedError(
        "xqa_mla is not implemented: multi-head latent attention (head dims 576 and 512) comes with the MLA operators, "
        "which this version does not have"
    )


@asks_pdl
def xqa_batch_decode_with_kv_cache(
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
    sinks: Any = None,
    kv_layout: str = "NHD",
    enable_pdl: bool | None = None,
    q_len_per_req: int = 1,
    o_scale: float = 1.0,
    mask: Any = None,
    kv_cache_sf: Any = None,
    q_cu_seq_lens: Any = None,
) -> Array:
    """trtllm_batch_decode_with_kv_cache with other defaults."""
    from .decode import trtllm_batch_decode_with_kv_cache

    only("xqa_batch_decode_with_kv_cache", None, kv_cache_sf=kv_cache_sf, q_cu_seq_lens=q_cu_seq_lens)
    return trtllm_batch_decode_with_kv_cache(
        query, kv_cache, workspace_buffer, block_tables, seq_lens, max_seq_len, bmm1_scale, bmm2_scale, window_left,
        out, sinks=sinks, kv_layout=kv_layout, q_len_per_req=q_len_per_req, o_scale=o_scale, mask=mask,
    )  # type: ignore[return-value]  # fmt: skip
