# SPDX-License-Identifier: Apache-2.0
"""Attention of mixed batches, prefill and decode together, and with attention sinks."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _attention as core
from ._arrays import Array, takes_dlpack
from ._explain import checked
from ._options import attention_cache, only
from .prefill import BatchPrefillWithPagedKVCacheWrapper


class BatchAttention(core.PlannedBatch):
    """Any batch over a paged KV cache; one query token and thousands may stand side by side."""

    _entry = "batch_prefill_paged"

    @checked
    def __init__(self, kv_layout: str = "NHD", device: Any = "cuda") -> None:
        """device is FlashInfer's and not needed: arrays say where they are. The workspace is the wrapper's own."""
        self._init_state(None, kv_layout, False, "auto")

    @checked
    def plan(
        self,
        qo_indptr: Array,
        kv_indptr: Array,
        kv_indices: Array,
        kv_len_arr: Array,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim_qk: int,
        head_dim_vo: int,
        page_size: int,
        causal: bool = False,
        sm_scale: float | None = None,
        logits_soft_cap: float | None = None,
        q_data_type: Any = "bfloat16",
        kv_data_type: Any = "bfloat16",
        use_profiler: bool = False,
    ) -> None:
        """Plans a batch: qo_indptr and kv_indptr [batch_size + 1], kv_indices page ids, kv_len_arr [batch_size]
        tokens.
        """
        self._plan_info = None  # a plan that fails leaves none
        only("BatchAttention.plan", False, use_profiler=use_profiler)
        self._qo_indptr_buf, self._paged_kv_indptr_buf = core.index(qo_indptr), core.index(kv_indptr)
        self._paged_kv_indices_buf, self._seq_lens_buf = core.index(kv_indices), core.index(kv_len_arr)
        self._set_options(causal, "NONE", -1, logits_soft_cap, sm_scale, None, None)
        num_pages, total_q = core.largest(kv_indices) + 1, core.last_of(qo_indptr)
        self._set_shapes(
            num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo, page_size, q_data_type, kv_data_type, None, total_q,
            num_pages,
        )  # fmt: skip
        self._set_split(None, False, page_size)
        self._make_plan()

    @takes_dlpack
    def run(
        self,
        q: Array,
        kv_cache: Array | tuple[Array, Array],
        out: Array | None = None,
        lse: Array | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        logits_soft_cap: float = 0.0,
        profiler_buffer: Any = None,
        kv_cache_sf: Any = None,
    ) -> tuple[Array, Array]:
        """(out [total_q, num_qo_heads, head_dim_vo], lse float32 [total_q, num_qo_heads], base 2).

        logits_soft_cap must be the planned one (0: not given); ValueError else.
        """
        only("BatchAttention.run", None, profiler_buffer=profiler_buffer, kv_cache_sf=kv_cache_sf)
        if logits_soft_cap and not np.isclose(logits_soft_cap, self._logits_soft_cap):
            raise ValueError(f"logits_soft_cap is {logits_soft_cap}, but {self._logits_soft_cap} in the plan function")
        k, v = attention_cache(kv_cache, self._kv_layout)
        return self._scaled_run(q, k, v, out, lse, True, None, None, k_scale, v_scale)  # type: ignore[return-value]


class BatchAttentionWithAttentionSinkWrapper(BatchPrefillWithPagedKVCacheWrapper):
    """The paged prefill wrapper with a sink per head: run(q, paged_kv_cache, sink, sm_scale)."""

    @checked
    def __init__(
        self,
        float_workspace_buffer: Array | None,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
        qo_indptr_buf: Array | None = None,
        paged_kv_indptr_buf: Array | None = None,
        paged_kv_indices_buf: Array | None = None,
        paged_kv_last_page_len_buf: Array | None = None,
        custom_mask_buf: Array | None = None,
        mask_indptr_buf: Array | None = None,
        backend: str = "auto",
        pos_encoding_mode: str = "NONE",
        use_fp16_qk_reduction: bool = False,
        q_data_type: Any = "bfloat16",
        kv_data_type: Any = "bfloat16",
        head_dim_qk: int = 128,
        head_dim_vo: int = 128,
        window_left: int = -1,
    ) -> None:
        """dtypes, head dims and window say what FlashInfer would compile; plan()'s are what counts here."""
        only("BatchAttentionWithAttentionSinkWrapper", "NONE", pos_encoding_mode=pos_encoding_mode)
        only("BatchAttentionWithAttentionSinkWrapper", False, use_fp16_qk_reduction=use_fp16_qk_reduction)
        super().__init__(
            float_workspace_buffer, kv_layout, use_cuda_graph, qo_indptr_buf, paged_kv_indptr_buf, paged_kv_indices_buf,
            paged_kv_last_page_len_buf, custom_mask_buf, mask_indptr_buf, backend,
        )  # fmt: skip
        self._sink_window_left = window_left

    def run(self, q: Array, paged_kv_cache: Any, *args: Any, **options: Any) -> Array | tuple[Array, Array]:
        """run(q, paged_kv_cache, sink, sm_scale): sink float32 [num_qo_heads] in natural-log units."""
        if len(args) > 2:
            raise TypeError(f"run() takes sink and sm_scale after the cache, {len(args)} arguments were given")
        if args:
            options["sinks"] = args[0]
        if len(args) == 2 and args[1] is not None:
            self._sm_scale = float(args[1])
        if self._sink_window_left >= 0:
            options.setdefault("window_left", self._sink_window_left)
        return super().run(q, paged_kv_cache, **options)
