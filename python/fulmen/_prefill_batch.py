# SPDX-License-Identifier: Apache-2.0
"""The two batch prefill wrappers of fulmen.prefill: over a paged cache, and over ragged keys and values."""

from __future__ import annotations

from typing import Any

from . import _attention as core
from ._arrays import Array, takes_dlpack
from ._explain import checked
from ._options import attention_cache, only, only_newer
from ._positional import o_data_type_may_come_before
from ._prefill_wrapper import BatchPrefillWrapper, not_a_bool

# Options of newer versions of FlashInfer, each with the value that asks for nothing.
_NEWER = {"lse_base": "log2", "lse_layout": "NH", "use_fp16_softmax": None, "uses_spcompress": None}


class BatchPrefillWithPagedKVCacheWrapper(BatchPrefillWrapper):
    """Prefill, append or mixed attention of a batch over a paged KV cache: plan() per batch shape, run() per layer."""

    _entry = "batch_prefill_paged"

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
        jit_args: Any = None,
        jit_kwargs: Any = None,
        variant_owns_mask: bool = False,
    ) -> None:
        """Buffers are those of a fixed batch (use_cuda_graph); float_workspace_buffer None: the wrapper allocates."""
        only("BatchPrefillWithPagedKVCacheWrapper", False, variant_owns_mask=variant_owns_mask)
        buffers = {
            "qo_indptr_buf": qo_indptr_buf,
            "paged_kv_indptr_buf": paged_kv_indptr_buf,
            "paged_kv_indices_buf": paged_kv_indices_buf,
            "paged_kv_last_page_len_buf": paged_kv_last_page_len_buf,
        }
        name = "BatchPrefillWithPagedKVCacheWrapper"
        self._init_prefill(
            name, float_workspace_buffer, kv_layout, use_cuda_graph, buffers, custom_mask_buf, mask_indptr_buf, backend,
            jit_args, jit_kwargs,
        )  # fmt: skip

    @o_data_type_may_come_before("non_blocking", not_a_bool)
    @checked
    def plan(
        self,
        qo_indptr: Array,
        paged_kv_indptr: Array,
        paged_kv_indices: Array,
        paged_kv_last_page_len: Array,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim_qk: int,
        page_size: int,
        head_dim_vo: int | None = None,
        custom_mask: Array | None = None,
        packed_custom_mask: Array | None = None,
        causal: bool = False,
        pos_encoding_mode: str = "NONE",
        use_fp16_qk_reduction: bool = False,
        sm_scale: float | None = None,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
        q_data_type: Any = "float16",
        kv_data_type: Any = None,
        non_blocking: bool = True,
        prefix_len_ptr: Array | None = None,
        token_pos_in_items_ptr: Array | None = None,
        token_pos_in_items_len: int = 0,
        max_item_len_ptr: Array | None = None,
        seq_lens: Array | None = None,
        seq_lens_q: Array | None = None,
        block_tables: Array | None = None,
        max_token_per_sequence: int | None = None,
        max_sequence_kv: int | None = None,
        fixed_split_size: int | None = None,
        disable_split_kv: bool = False,
        uniform_q_len: int | None = None,
        *,
        o_data_type: Any = None,
    ) -> None:
        """Plans a batch. qo_indptr: [batch_size + 1] rows of q; the page table as in fulmen.page.

        custom_mask: flat bool, sum of qo_len * kv_len; packed_custom_mask: flat uint8, each request from a byte on,
        little endian; either replaces causal. seq_lens: kv lengths instead of paged_kv_last_page_len. prefix_len_ptr
        and the token_pos arguments: multi-item scoring. seq_lens_q, block_tables, uniform_q_len and the max_ bounds
        repeat for other backends what the tables say. fixed_split_size counts pages.
        """
        self._plan_info = None  # a plan that fails leaves none
        self._check_fixed(qo_indptr)
        if self._use_cuda_graph:
            core.check_pages(paged_kv_indptr, paged_kv_indices)
        self._qo_indptr_buf = self._adopt("qo_indptr_buf", qo_indptr)
        self._paged_kv_indptr_buf = self._adopt("paged_kv_indptr_buf", paged_kv_indptr)
        self._paged_kv_indices_buf = self._adopt("paged_kv_indices_buf", paged_kv_indices)
        self._paged_kv_last_page_len_buf = self._adopt("paged_kv_last_page_len_buf", paged_kv_last_page_len)
        self._seq_lens_buf = None if seq_lens is None else core.index(seq_lens)
        qo_lens = core.lens_of(qo_indptr)
        kv_lens = core.paged_lens(paged_kv_indptr, paged_kv_last_page_len, page_size, seq_lens)
        multi_item = self._multi_item(
            prefix_len_ptr, token_pos_in_items_ptr, token_pos_in_items_len, max_item_len_ptr, qo_lens, kv_lens,
            pos_encoding_mode,
        )  # fmt: skip
        self._set_mask(multi_item if multi_item is not None else custom_mask, packed_custom_mask, qo_lens, kv_lens)
        self._set_options(
            causal or self._items is not None, pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale,
            rope_theta, use_fp16_qk_reduction,
        )  # fmt: skip
        num_pages = core.largest(paged_kv_indices) + 1
        self._set_shapes(
            num_qo_heads, num_kv_heads, head_dim_qk, head_dim_qk if head_dim_vo is None else head_dim_vo, page_size,
            q_data_type, kv_data_type, o_data_type, core.last_of(qo_indptr), num_pages,
        )  # fmt: skip
        self._set_split(fixed_split_size, disable_split_kv, page_size)
        self._make_plan()

    begin_forward = plan

    @takes_dlpack
    def run(
        self,
        q: Array,
        paged_kv_cache: Array | tuple[Array, Array],
        *args: Any,
        q_scale: float | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        out: Array | None = None,
        lse: Array | None = None,
        return_lse: bool = False,
        enable_pdl: bool | None = None,
        window_left: int | None = None,
        sinks: Array | None = None,
        kv_cache_sf: Any = None,
        skip_softmax_threshold_scale_factor: float | None = None,
        **newer: Any,
    ) -> Array | tuple[Array, Array]:
        """q: [total_q, num_qo_heads, head_dim_qk] of the planned dtype.

        paged_kv_cache: [num_pages, 2, page_size, num_kv_heads, head_dim] (NHD; HND has heads first), or a pair without
        the axis of 2. Returns [total_q, num_qo_heads, head_dim_vo], with return_lse also float32 [total_q,
        num_qo_heads].
        """
        only(
            "run",
            None,
            kv_cache_sf=kv_cache_sf,
            skip_softmax_threshold_scale_factor=skip_softmax_threshold_scale_factor,
        )
        only_newer("run", _NEWER, newer)
        k, v = attention_cache(paged_kv_cache, self._kv_layout)
        if self._jit_module is not None:
            return self._scaled_run(q, k, v, out, lse, return_lse, None, None, None, None, window_left, args)
        scales = core.scale_args(args, q_scale, k_scale, v_scale)
        return self._scaled_run(q, k, v, out, lse, return_lse, sinks, *scales, window_left)

    def run_return_lse(self, q: Array, paged_kv_cache: Any, *args: Any, **options: Any) -> tuple[Array, Array]:
        """run with return_lse=True."""
        return self.run(q, paged_kv_cache, *args, return_lse=True, **options)  # type: ignore[return-value]

    def forward(
        self,
        q: Array,
        paged_kv_cache: Array | tuple[Array, Array],
        causal: bool = False,
        pos_encoding_mode: str = "NONE",
        use_fp16_qk_reduction: bool = False,
        k_scale: float | None = None,
        v_scale: float | None = None,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
        return_lse: bool = False,
    ) -> Array | tuple[Array, Array]:
        """The old run(): these options replace the planned ones."""
        self._forward_options(
            causal,
            pos_encoding_mode,
            use_fp16_qk_reduction,
            window_left,
            logits_soft_cap,
            sm_scale,
            rope_scale,
            rope_theta,
        )
        return self.run(q, paged_kv_cache, k_scale=k_scale, v_scale=v_scale, return_lse=return_lse)

    def forward_return_lse(self, *args: Any, **kwargs: Any) -> tuple[Array, Array]:
        """forward, with the lse."""
        return self.forward(*args, **kwargs, return_lse=True)  # type: ignore[return-value]


class BatchPrefillWithRaggedKVCacheWrapper(BatchPrefillWrapper):
    """Prefill attention of a batch over ragged keys and values: plan() per batch shape, run() per layer."""

    _entry = "batch_prefill_ragged"

    @checked
    def __init__(
        self,
        float_workspace_buffer: Array | None,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
        qo_indptr_buf: Array | None = None,
        kv_indptr_buf: Array | None = None,
        custom_mask_buf: Array | None = None,
        mask_indptr_buf: Array | None = None,
        backend: str = "auto",
        jit_args: Any = None,
        jit_kwargs: Any = None,
        variant_owns_mask: bool = False,
    ) -> None:
        """Buffers are those of a fixed batch (use_cuda_graph); float_workspace_buffer None: the wrapper allocates."""
        only("BatchPrefillWithRaggedKVCacheWrapper", False, variant_owns_mask=variant_owns_mask)
        buffers = {"qo_indptr_buf": qo_indptr_buf, "kv_indptr_buf": kv_indptr_buf}
        name = "BatchPrefillWithRaggedKVCacheWrapper"
        self._init_prefill(
            name, float_workspace_buffer, kv_layout, use_cuda_graph, buffers, custom_mask_buf, mask_indptr_buf, backend,
            jit_args, jit_kwargs,
        )  # fmt: skip
        self._kv_indptr_buf = None

    def _tables(self) -> tuple[Any, ...]:
        return (self._qo_indptr_buf, self._kv_indptr_buf, None, None, None, None)

    @o_data_type_may_come_before("non_blocking", not_a_bool)
    @checked
    def plan(
        self,
        qo_indptr: Array,
        kv_indptr: Array,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim_qk: int,
        head_dim_vo: int | None = None,
        custom_mask: Array | None = None,
        packed_custom_mask: Array | None = None,
        causal: bool = False,
        pos_encoding_mode: str = "NONE",
        use_fp16_qk_reduction: bool = False,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
        q_data_type: Any = "float16",
        kv_data_type: Any = None,
        non_blocking: bool = True,
        prefix_len_ptr: Array | None = None,
        token_pos_in_items_ptr: Array | None = None,
        token_pos_in_items_len: int = 0,
        max_item_len_ptr: Array | None = None,
        fixed_split_size: int | None = None,
        disable_split_kv: bool = False,
        seq_lens: Array | None = None,
        seq_lens_q: Array | None = None,
        max_token_per_sequence: int | None = None,
        max_sequence_kv: int | None = None,
        v_indptr: Array | None = None,
        o_indptr: Array | None = None,
        uniform_q_len: int | None = None,
        *,
        o_data_type: Any = None,
    ) -> None:
        """Plans a batch: qo_indptr and kv_indptr [batch_size + 1] are offsets into q and into k and v.

        Masks as in the paged wrapper. seq_lens, seq_lens_q, uniform_q_len and the max_ bounds repeat the offsets;
        v_indptr and o_indptr of their own raise NotImplementedError. fixed_split_size counts tokens.
        """
        self._plan_info = None  # a plan that fails leaves none
        only("plan", None, v_indptr=v_indptr, o_indptr=o_indptr)
        self._check_fixed(qo_indptr)
        self._qo_indptr_buf = self._adopt("qo_indptr_buf", qo_indptr)
        self._kv_indptr_buf = self._adopt("kv_indptr_buf", kv_indptr)
        qo_lens, kv_lens = core.lens_of(qo_indptr), core.lens_of(kv_indptr)
        multi_item = self._multi_item(
            prefix_len_ptr, token_pos_in_items_ptr, token_pos_in_items_len, max_item_len_ptr, qo_lens, kv_lens,
            pos_encoding_mode,
        )  # fmt: skip
        self._set_mask(multi_item if multi_item is not None else custom_mask, packed_custom_mask, qo_lens, kv_lens)
        self._set_options(
            causal or self._items is not None, pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale,
            rope_theta, use_fp16_qk_reduction,
        )  # fmt: skip
        self._set_shapes(
            num_qo_heads, num_kv_heads, head_dim_qk, head_dim_qk if head_dim_vo is None else head_dim_vo, None,
            q_data_type, kv_data_type, o_data_type, core.last_of(qo_indptr), core.last_of(kv_indptr),
        )  # fmt: skip
        self._set_split(fixed_split_size, disable_split_kv, 1)
        self._make_plan()

    begin_forward = plan

    @takes_dlpack
    def run(
        self,
        q: Array,
        k: Array,
        v: Array,
        *args: Any,
        q_scale: float | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        o_scale: float | None = None,
        out: Array | None = None,
        lse: Array | None = None,
        return_lse: bool = False,
        enable_pdl: bool | None = None,
        kv_cache_sf: Any = None,
        **newer: Any,
    ) -> Array | tuple[Array, Array]:
        """q: [total_q, num_qo_heads, head_dim_qk]; k, v: [total_kv, num_kv_heads, head_dim] (HND: heads first).

        Returns [total_q, num_qo_heads, head_dim_vo], with return_lse also float32 [total_q, num_qo_heads].
        """
        only("run", None, kv_cache_sf=kv_cache_sf, o_scale=o_scale)
        only_newer("run", _NEWER, newer)
        if self._jit_module is not None:
            return self._scaled_run(q, k, v, out, lse, return_lse, None, None, None, None, None, args)
        scales = core.scale_args(args, q_scale, k_scale, v_scale)
        return self._scaled_run(q, k, v, out, lse, return_lse, None, *scales)

    def run_return_lse(self, q: Array, k: Array, v: Array, *args: Any, **options: Any) -> tuple[Array, Array]:
        """run with return_lse=True."""
        return self.run(q, k, v, *args, return_lse=True, **options)  # type: ignore[return-value]

    def forward(
        self,
        q: Array,
        k: Array,
        v: Array,
        causal: bool = False,
        pos_encoding_mode: str = "NONE",
        use_fp16_qk_reduction: bool = False,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
        return_lse: bool = False,
    ) -> Array | tuple[Array, Array]:
        """The old run(): these options replace the planned ones."""
        self._forward_options(
            causal,
            pos_encoding_mode,
            use_fp16_qk_reduction,
            window_left,
            logits_soft_cap,
            sm_scale,
            rope_scale,
            rope_theta,
        )
        return self.run(q, k, v, return_lse=return_lse)

    def forward_return_lse(self, *args: Any, **kwargs: Any) -> tuple[Array, Array]:
        """forward, with the lse."""
        return self.forward(*args, **kwargs, return_lse=True)  # type: ignore[return-value]
