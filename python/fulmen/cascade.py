# SPDX-License-Identifier: Apache-2.0
"""Attention over a union of sets of keys, from the results over each set; and batches that share prefixes.

A state is (v, s): v [num_tokens, num_heads, head_dim] and its log-sum-exp s, float32 [num_tokens, num_heads], base 2. A
state with s = -inf is neutral.
"""

from __future__ import annotations

from typing import Any, Sequence

from . import _attention as core
from ._arrays import Array, arg, cast, dtype_of, empty, empty_like, out_arg, takes_dlpack
from ._cascade_choice import MOST_LEVELS, DeviceChoice
from ._cascade_flat import flat_tables
from ._device_plan import on_device
from ._dtypes import dtype_name
from ._explain import checked
from ._ffi import is_compiling, lib
from .decode import BatchDecodeWithPagedKVCacheWrapper
from .prefill import BatchPrefillWithPagedKVCacheWrapper, single_prefill_with_kv_cache_return_lse


@takes_dlpack
def merge_state(v_a: Array, s_a: Array, v_b: Array, s_b: Array) -> tuple[Array, Array]:
    """The state over both sets of keys."""
    s_a, s_b = cast(s_a, "float32"), cast(s_b, "float32")
    out, lse = empty_like(v_a), empty_like(s_a)
    lib.merge_state(arg(v_a), arg(s_a), arg(v_b), arg(s_b), arg(out), arg(lse), None, "2")
    return out, lse


@takes_dlpack
def merge_state_in_place(v: Array, s: Array, v_other: Array, s_other: Array, mask: Array | None = None) -> None:
    """(v, s) becomes the state over both sets. mask: bool or uint8 [num_tokens], rows with 0 stay as they are."""
    own, lse = out_arg(v, "v"), out_arg(s, "s")
    lib.merge_state(own, lse, arg(v_other), arg(cast(s_other, "float32")), own, lse, arg(mask), "2")


@takes_dlpack
def merge_states(v: Array, s: Array) -> tuple[Array, Array]:
    """The union of many: v [num_tokens, num_states, num_heads, head_dim], s [num_tokens, num_states, num_heads]."""
    if len(v.shape) != 4:
        expected = "[num_tokens, num_states, num_heads, head_dim]"
        raise ValueError(f"merge_states: v has shape {tuple(v.shape)}, expected {expected}")
    tokens, _, heads, dim = v.shape
    out, lse = empty(v, (tokens, heads, dim)), empty(v, (tokens, heads), "float32")
    lib.merge_states(arg(v), arg(cast(s, "float32")), arg(out), arg(lse), "2", None)
    return out, lse


class MultiLevelCascadeAttentionWrapper:
    """Prefill attention where requests share prefixes: level 0 is shared by most, the last level is each one's own.

    Every level has its own qo_indptr, which groups the rows of q by who shares, and its own page table of one cache.
    Levels leave float32 results, which are merged into q's dtype: rounded once. On a GPU, one pass over each request's
    pages of all levels is taken where that is the same and predicted to be faster: by plan() where the tables are in
    host memory, by the GPU, anew for each replay of a graph, where they lie there.
    """

    @checked
    def __init__(
        self,
        num_levels: int,
        float_workspace_buffer: Array | None,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
        qo_indptr_buf_arr: Sequence[Array] | None = None,
        paged_kv_indptr_buf_arr: Sequence[Array] | None = None,
        paged_kv_indices_buf_arr: Sequence[Array] | None = None,
        paged_kv_last_page_len_buf_arr: Sequence[Array] | None = None,
    ) -> None:
        if isinstance(num_levels, bool) or not hasattr(num_levels, "__index__") or num_levels < 1:
            raise ValueError(f"num_levels is {num_levels!r}, expected 1 or more")
        arrays = (qo_indptr_buf_arr, paged_kv_indptr_buf_arr, paged_kv_indices_buf_arr, paged_kv_last_page_len_buf_arr)
        for array in arrays:
            if use_cuda_graph and (array is None or len(array) != num_levels):
                raise ValueError(f"every list of buffers should have {num_levels} entries in cudagraph mode")
        buffers: list[tuple[Any, ...]] = [()] * num_levels
        if use_cuda_graph:
            buffers = list(zip(*arrays))  # type: ignore[arg-type]
        self._use_cuda_graph, self._num_levels, self._kv_layout = use_cuda_graph, num_levels, kv_layout
        self._flat = BatchPrefillWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout)
        self._is_flat = self._is_planned = False
        self._batch_prefill_wrappers = [
            BatchPrefillWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout, use_cuda_graph, *b) for b in buffers
        ]
        self._choice = DeviceChoice(self._batch_prefill_wrappers)

    @property
    def is_cuda_graph_enabled(self) -> bool:
        """Whether the batch size is fixed and the caller's index buffers are used."""
        return self._use_cuda_graph

    def reset_workspace_buffer(self, float_workspace_buffer: Array, int_workspace_buffers: Sequence[Array]) -> None:
        """Another workspace; levels run one after the other and share it."""
        for wrapper, int_buffer in zip(self._batch_prefill_wrappers, int_workspace_buffers):
            wrapper.reset_workspace_buffer(float_workspace_buffer, int_buffer)
        self._flat.reset_workspace_buffer(float_workspace_buffer)

    @checked
    def plan(
        self,
        qo_indptr_arr: Sequence[Array],
        paged_kv_indptr_arr: Sequence[Array],
        paged_kv_indices_arr: Sequence[Array],
        paged_kv_last_page_len: Sequence[Array],
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        page_size: int,
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
    ) -> None:
        """Plans every level; lists have one entry per level. causal holds at the last level only."""
        arrays = (qo_indptr_arr, paged_kv_indptr_arr, paged_kv_indices_arr, paged_kv_last_page_len)
        shape = (num_qo_heads, num_kv_heads, head_dim, page_size)
        options = dict(
            pos_encoding_mode=pos_encoding_mode, use_fp16_qk_reduction=use_fp16_qk_reduction, sm_scale=sm_scale,
            window_left=window_left, logits_soft_cap=logits_soft_cap, rope_scale=rope_scale, rope_theta=rope_theta,
            q_data_type=q_data_type, kv_data_type=kv_data_type,
        )  # fmt: skip
        self._is_flat = self._is_planned = False
        self._check_tables(arrays)
        self._choice.drop()
        if not self._use_cuda_graph and pos_encoding_mode == "NONE" and window_left < 0:
            kv_size = core.numpy_size(dtype_name(q_data_type if kv_data_type is None else kv_data_type))
            tables = flat_tables(self._flat._float_workspace_buffer, arrays, shape, causal, kv_size)
            if tables is not None:
                self._flat.plan(*tables, *shape, causal=causal, **options)
                self._is_flat = self._is_planned = True
                return
        if 1 < self._num_levels <= MOST_LEVELS and pos_encoding_mode == "NONE" and window_left < 0:
            kv_size = core.numpy_size(dtype_name(q_data_type if kv_data_type is None else kv_data_type))
            self._choice.plan(shape, causal, kv_size)
        if self._num_levels > 1:
            options["o_data_type"] = "float32"
        for i, (wrapper, *tables) in enumerate(zip(self._batch_prefill_wrappers, *arrays)):
            wrapper.plan(*tables, *shape, causal=causal and i + 1 == self._num_levels, **options)
        self._is_planned = True

    def _check_tables(self, arrays: Sequence[Sequence[Array]]) -> None:
        names = ("qo_indptr_arr", "paged_kv_indptr_arr", "paged_kv_indices_arr", "paged_kv_last_page_len")
        for name, tables in zip(names, arrays):
            if not isinstance(tables, (list, tuple)) or len(tables) != self._num_levels:
                what = f"has {len(tables)} entries" if isinstance(tables, (list, tuple)) else f"is a {type(tables)}"
                raise ValueError(f"{name} {what}, expected a list of {self._num_levels}, one per level")
        # The rows of a level that left some out would be merged with what lay in memory.
        rows = [int(x[-1]) for x in arrays[0] if not on_device(x) and len(x) > 0]
        if len(set(rows)) > 1:
            raise ValueError(f"qo_indptr_arr: the levels have {rows} rows, expected one number for all")

    begin_forward = plan

    def run(self, q: Array, paged_kv_cache: Array | tuple[Array, Array]) -> Array:
        """q: [total_q, num_qo_heads, head_dim]; paged_kv_cache as in BatchPrefillWithPagedKVCacheWrapper.run."""
        if not self._is_planned:
            raise RuntimeError("run() before plan()")
        if self._is_flat or self._num_levels == 1:
            return (self._flat if self._is_flat else self._batch_prefill_wrappers[0]).run(q, paged_kv_cache)
        return _levels_run(q, paged_kv_cache, self._batch_prefill_wrappers, self._choice)

    forward = run

    def end_forward(self) -> None:
        """Does nothing."""


@takes_dlpack
def _levels_run(
    q: Array, paged_kv_cache: Any, wrappers: Sequence[BatchPrefillWithPagedKVCacheWrapper], choice: DeviceChoice
) -> Array:
    chooses = choice.choose(q)
    merges = on_device(q) and not is_compiling()  # in the last level's launch
    alone = wrappers[:-1] if merges else wrappers
    shape = (*q.shape[:-1], wrappers[0]._head_dim_vo)
    v, s = (empty(q, (len(alone), *x), "float32") for x in (shape, shape[:-1]))
    for i, wrapper in enumerate(alone):
        wrapper._device_plan.above = (None, None, None) if merges else None
        wrapper.run(q, paged_kv_cache, out=v[i], lse=s[i], return_lse=True)
        wrapper._device_plan.above = None
    out, lse = core.outputs(q, shape, core.output_dtype(dtype_of(q)), None, None, not merges)
    if merges:
        return _last_run(q, paged_kv_cache, wrappers[-1], out, (v, s, choice.num_above if chooses else None))
    lib.merge_states(arg(v.swapaxes(0, 1)), arg(s.swapaxes(0, 1)), arg(out), arg(lse), "2", None)
    return out


def _last_run(
    q: Array, paged_kv_cache: Any, wrapper: BatchPrefillWithPagedKVCacheWrapper, out: Array, above: tuple[Any, ...]
) -> Array:
    wrapper._cached_o_data_type = core.output_dtype(dtype_of(q))  # whatever was planned: it is rounded once, here
    wrapper._device_plan.above = above
    try:
        return wrapper.run(q, paged_kv_cache, out=out)
    finally:
        wrapper._device_plan.above = None


def _merged(q: Array, prefix: tuple[Array, Array], own: tuple[Array, Array]) -> Array:
    """The union of two float32 states, in the dtype of q's results."""
    out, lse = core.outputs(q, own[0].shape, core.output_dtype(dtype_of(q)), None, None, True)
    lib.merge_state(*map(arg, (*prefix, *own)), arg(out), arg(lse), None, "2")
    return out


class BatchDecodeWithSharedPrefixPagedKVCacheWrapper:
    """FlashInfer's old two-level decode: one ragged prefix for all, a paged rest for each."""

    @checked
    def __init__(self, float_workspace_buffer: Array | None, kv_layout: str = "NHD") -> None:
        self._wrapper = BatchDecodeWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout)
        self._kv_layout = kv_layout

    def reset_workspace_buffer(self, float_workspace_buffer: Array, int_workspace_buffer: Array) -> None:
        """Another workspace from the next call on."""
        self._wrapper.reset_workspace_buffer(float_workspace_buffer, int_workspace_buffer)

    @checked
    def begin_forward(
        self,
        unique_kv_indptr: Array,
        unique_kv_indices: Array,
        unique_kv_last_page_len: Array,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        page_size: int,
        data_type: Any = "float16",
    ) -> None:
        """Plans the paged part; the table is that of the tokens behind the shared prefix."""
        self._wrapper.plan(
            unique_kv_indptr, unique_kv_indices, unique_kv_last_page_len, num_qo_heads, num_kv_heads, head_dim,
            page_size, data_type=data_type, o_data_type="float32",
        )  # fmt: skip

    @takes_dlpack
    def forward(self, q: Array, k_shared: Array, v_shared: Array, unique_kv_cache: Any) -> Array:
        """q: [batch_size, num_qo_heads, head_dim]; k_shared, v_shared: [shared_len, num_kv_heads, head_dim] (NHD)."""
        prefix = single_prefill_with_kv_cache_return_lse(
            q, k_shared, v_shared, o_dtype="float32", kv_layout=self._kv_layout
        )
        return _merged(q, prefix, self._wrapper.run(q, unique_kv_cache, return_lse=True))

    def end_forward(self) -> None:
        """Does nothing."""


class BatchPrefillWithSharedPrefixPagedKVCacheWrapper:
    """FlashInfer's old two-level prefill: one ragged prefix for all, a paged rest for each."""

    @checked
    def __init__(self, float_workspace_buffer: Array | None, kv_layout: str = "NHD") -> None:
        self._wrapper = BatchPrefillWithPagedKVCacheWrapper(float_workspace_buffer, kv_layout)
        self._kv_layout, self._plan_arguments = kv_layout, ()

    def reset_workspace_buffer(self, float_workspace_buffer: Array, int_workspace_buffer: Array) -> None:
        """Another workspace from the next call on."""
        self._wrapper.reset_workspace_buffer(float_workspace_buffer, int_workspace_buffer)

    @checked
    def begin_forward(
        self,
        qo_indptr: Array,
        paged_kv_indptr: Array,
        paged_kv_indices: Array,
        paged_kv_last_page_len: Array,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        page_size: int,
    ) -> None:
        """Keeps the tables; dtypes and options come with forward(), which plans."""
        self._plan_arguments = (
            qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, num_qo_heads, num_kv_heads, head_dim,
            page_size,
        )  # fmt: skip

    @takes_dlpack
    def forward(
        self,
        q: Array,
        k_shared: Array,
        v_shared: Array,
        unique_kv_cache: Any,
        causal: bool = False,
        use_fp16_qk_reduction: bool = False,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
    ) -> Array:
        """q: [total_q, num_qo_heads, head_dim]; the prefix is seen by all rows, causal holds for the paged part."""
        if not self._plan_arguments:
            raise RuntimeError("forward() before begin_forward()")
        self._wrapper.plan(
            *self._plan_arguments, causal=causal, use_fp16_qk_reduction=use_fp16_qk_reduction, sm_scale=sm_scale,
            rope_scale=rope_scale, rope_theta=rope_theta, q_data_type=q.dtype, kv_data_type=k_shared.dtype,
            o_data_type="float32",
        )  # fmt: skip
        prefix = single_prefill_with_kv_cache_return_lse(
            q, k_shared, v_shared, o_dtype="float32", kv_layout=self._kv_layout, sm_scale=sm_scale,
            rope_scale=rope_scale, rope_theta=rope_theta,
        )  # fmt: skip
        return _merged(q, prefix, self._wrapper.run(q, unique_kv_cache, return_lse=True))

    def end_forward(self) -> None:
        """Does nothing."""
