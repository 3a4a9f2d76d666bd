# SPDX-License-Identifier: Apache-2.0
"""Attention of one query token per request (or a few): over one sequence, or over a batch with a paged cache.

Layouts: NHD [.., token, head, dim], HND [.., head, token, dim]. Log-sum-exps are base 2, float32. A row that sees no
key has output 0 and lse -inf. The library's attention is one op for any head_dim (a multiple of 8 up to 576), any ratio
of heads, and any page size.
"""

from __future__ import annotations

from typing import Any

from . import _attention as core
from ._arrays import Array, arg, out_arg, takes_dlpack
from ._dtypes import dtype_name
from ._explain import checked
from ._ffi import lib
from ._options import attention_cache, check_backend, check_kv_layout, check_pos_encoding_mode, only
from ._positional import o_data_type_may_come_before
from ._trtllm import trtllm_batch_decode_with_kv_cache  # noqa: F401
from .jit import gen_customize_batch_decode_module
from .page import get_seq_lens  # noqa: F401  engines import it from here
from .utils import _get_range_buf  # noqa: F401  and this
from .xqa import xqa_batch_decode_with_kv_cache  # noqa: F401


@takes_dlpack
def single_decode_with_kv_cache(
    q: Array,
    k: Array,
    v: Array,
    kv_layout: str = "NHD",
    pos_encoding_mode: str = "NONE",
    use_tensor_cores: bool = False,
    q_scale: float | None = None,
    k_scale: float | None = None,
    v_scale: float | None = None,
    window_left: int = -1,
    logits_soft_cap: float | None = None,
    sm_scale: float | None = None,
    rope_scale: float | None = None,
    rope_theta: float | None = None,
    return_lse: bool = False,
) -> Array | tuple[Array, Array]:
    """Attention of one query token over one sequence.

    q: [num_qo_heads, head_dim]; k: [kv_len, num_kv_heads, head_dim] (NHD) or [num_kv_heads, kv_len, head_dim]; v alike,
    its head_dim may differ. k and v may be FP8. Returns [num_qo_heads, head_dim_vo] of q's dtype (float16 for an FP8
    q), with return_lse also float32 [num_qo_heads]. Raises ValueError on shapes and dtypes that do not fit, KeyError
    on a layout or position encoding that does not exist.
    """
    check_kv_layout(kv_layout)
    check_pos_encoding_mode(pos_encoding_mode)
    shape = (q.shape[0], v.shape[-1])
    out, lse = core.outputs(q, shape, core.output_dtype(core.dtype_of(q)), None, None, return_lse)
    s = core.Scaled(q, out, {"q_scale": q_scale, "k_scale": k_scale}, {"v_scale": v_scale})
    lib.attention(
        "single_decode", arg(s.q), arg(k), arg(v), None, None, None, None, None, None, arg(s.out), arg(lse), None, None,
        core.alibi_slopes_for(q, pos_encoding_mode, q.shape[0]), None, None,
        *core.options(
            kv_layout, False, window_left, logits_soft_cap, sm_scale, s.logits, 1.0, s.values,
            core.rope_of(pos_encoding_mode, rope_scale, rope_theta),
        ),
    )  # fmt: skip
    s.finish()
    return (out, lse) if return_lse else out


def single_decode_with_kv_cache_with_jit_module(
    jit_module: Any,
    q: Array,
    k: Array,
    v: Array,
    *args: Any,
    kv_layout: str = "NHD",
    window_left: int = -1,
    return_lse: bool = False,
) -> Array | tuple[Array, Array]:
    """single_decode_with_kv_cache with a variant of the caller's (fulmen.jit); args: its tensors, then its scalars."""
    shape = (q.shape[0], v.shape[-1])
    return jit_module.run_single("single_decode", q, k, v, shape, args, kv_layout, False, window_left, return_lse)


def _decode_order_is_new(rest: tuple[Any, ...]) -> bool:
    """After kv_data_type: (o_data_type, data_type, sm_scale, ...) or (data_type, sm_scale, ...)."""
    if len(rest) < 2:
        return False
    if rest[1] is None or isinstance(rest[1], (int, float)):  # an sm_scale, or a data_type that is not given
        return len(rest) > 5 and isinstance(rest[5], bool)
    return True


class BatchDecodeWithPagedKVCacheWrapper(core.PlannedBatch):
    """Decode attention of a batch over a paged KV cache: plan() once per batch shape, run() once per layer."""

    _entry = "batch_decode"

    @checked
    def __init__(
        self,
        float_workspace_buffer: Array | None,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
        use_tensor_cores: bool = False,
        paged_kv_indptr_buffer: Array | None = None,
        paged_kv_indices_buffer: Array | None = None,
        paged_kv_last_page_len_buffer: Array | None = None,
        backend: str = "auto",
        jit_args: Any = None,
    ) -> None:
        """float_workspace_buffer: scratch of any dtype, None lets the wrapper allocate what a plan needs.

        use_cuda_graph fixes the batch size and copies tables into the three buffers, as a captured graph would want.
        """
        check_backend("BatchDecodeWithPagedKVCacheWrapper", backend)
        self._init_state(float_workspace_buffer, kv_layout, use_cuda_graph, backend)
        if jit_args is not None:
            self._jit_module = gen_customize_batch_decode_module(*jit_args).build_and_load()
        self._use_tensor_cores, self._q_len_per_req = use_tensor_cores, 1
        self._fixed_batch_size = 0
        if use_cuda_graph:
            for name, buffer in (("paged_kv_indptr_buffer", paged_kv_indptr_buffer),
                                 ("paged_kv_indices_buffer", paged_kv_indices_buffer),
                                 ("paged_kv_last_page_len_buffer", paged_kv_last_page_len_buffer)):  # fmt: skip
                if buffer is None:
                    raise ValueError(f"{name} should not be None in cudagraph mode")
            self._fixed_batch_size = int(paged_kv_last_page_len_buffer.shape[0])  # type: ignore[union-attr]
        self._buffers = (paged_kv_indptr_buffer, paged_kv_indices_buffer, paged_kv_last_page_len_buffer)
        self._paged_kv_indptr_buf, self._paged_kv_indices_buf, self._paged_kv_last_page_len_buf = self._buffers

    @property
    def use_tensor_cores(self) -> bool:
        """As given; a hint for GPUs."""
        return self._use_tensor_cores

    @o_data_type_may_come_before("data_type", _decode_order_is_new)
    @checked
    def plan(
        self,
        indptr: Array,
        indices: Array,
        last_page_len: Array,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        page_size: int,
        pos_encoding_mode: str = "NONE",
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        q_data_type: Any = "float16",
        kv_data_type: Any = None,
        data_type: Any = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
        non_blocking: bool = True,
        block_tables: Array | None = None,
        seq_lens: Array | None = None,
        fixed_split_size: int | None = None,
        disable_split_kv: bool = False,
        q_len_per_req: int = 1,
        *,
        o_data_type: Any = None,
        window_right: int = 0,
    ) -> None:
        """Plans a batch: indptr [batch_size + 1], indices [num_pages], last_page_len [batch_size] as in fulmen.page.

        data_type is the old name that sets q_data_type and kv_data_type. fixed_split_size counts pages; it makes a
        request's bits independent of the batch. q_len_per_req > 1 is causal among a request's own queries. block_tables
        and seq_lens repeat what the table says for other backends of FlashInfer and are not read.
        """
        self._plan_info = None  # a plan that fails leaves none
        only("plan", 0, window_right=window_right)
        if q_len_per_req < 1:
            raise ValueError(f"plan: q_len_per_req is {q_len_per_req}, expected 1 or more")
        if data_type is not None:
            q_data_type = kv_data_type = data_type
        self._adopt_tables(indptr, indices, last_page_len)
        batch_size = self._paged_kv_last_page_len_buf.shape[0]
        self._q_len_per_req = q_len_per_req
        self._set_options(
            q_len_per_req > 1, pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale, rope_theta
        )
        num_pages = core.largest(indices) + 1
        self._set_shapes(
            num_qo_heads, num_kv_heads, head_dim, head_dim, page_size, q_data_type, kv_data_type, o_data_type,
            batch_size * q_len_per_req, num_pages,
        )  # fmt: skip
        self._set_split(fixed_split_size, disable_split_kv, page_size)
        self._make_plan()

    begin_forward = plan

    def _adopt_tables(self, indptr: Array, indices: Array, last_page_len: Array) -> None:
        if not self._use_cuda_graph:
            self._paged_kv_indptr_buf = core.index(indptr)
            self._paged_kv_indices_buf = core.index(indices)
            self._paged_kv_last_page_len_buf = core.index(last_page_len)
            return
        batch_size = len(last_page_len)
        if batch_size != self._fixed_batch_size:
            raise ValueError(
                f"The batch size should be fixed in cudagraph mode, the runtime batch size {batch_size} mismatches the "
                f"batch size set during initialization {self._fixed_batch_size}"
            )
        core.check_pages(indptr, indices)
        given = {"indptr": indptr, "indices": indices, "last_page_len": last_page_len}
        copies = [core.copy_into(buffer, x, name) for buffer, (name, x) in zip(self._buffers, given.items())]
        # A captured graph sees all of the buffer of page ids, whose used part varies.
        self._paged_kv_indptr_buf, self._paged_kv_last_page_len_buf = copies[0], copies[2]
        self._paged_kv_indices_buf = self._buffers[1]

    def _state(self) -> tuple[Any, ...]:
        return (*super()._state(), self._q_len_per_req)

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
        q_len_per_req: int | None = None,
        skip_softmax_threshold_scale_factor: float | None = None,
        kv_cache_sf: Any = None,
    ) -> Array | tuple[Array, Array]:
        """q: [batch_size * q_len_per_req, num_qo_heads, head_dim] of the planned dtype.

        paged_kv_cache: [num_pages, 2, page_size, num_kv_heads, head_dim] (NHD; HND has heads first), or a pair without
        the axis of 2; strides are honoured. Returns like q, with return_lse also float32 [rows, num_qo_heads].
        q_scale and k_scale multiply the logits, v_scale the output. sinks: float32 [num_qo_heads], natural log.
        """
        only(
            "run",
            None,
            skip_softmax_threshold_scale_factor=skip_softmax_threshold_scale_factor,
            kv_cache_sf=kv_cache_sf,
        )
        if q_len_per_req is not None and not q_len_per_req >= 1:
            raise ValueError(f"run: q_len_per_req is {q_len_per_req}, expected 1 or more")
        if q_len_per_req is not None and q_len_per_req != self._q_len_per_req and q_len_per_req > 1:
            self._q_len_per_req, self._causal = q_len_per_req, True
            self._total_q = self._paged_kv_last_page_len_buf.shape[0] * q_len_per_req
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
        pos_encoding_mode: str = "NONE",
        q_scale: float | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
    ) -> Array:
        """The old run(): these options replace the planned ones."""
        self._set_options(
            self._causal, pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale, rope_theta
        )
        return self.run(q, paged_kv_cache, q_scale=q_scale, k_scale=k_scale, v_scale=v_scale)

    def forward_return_lse(
        self,
        q: Array,
        paged_kv_cache: Array | tuple[Array, Array],
        pos_encoding_mode: str = "NONE",
        q_scale: float | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
    ) -> tuple[Array, Array]:
        """forward, with the lse."""
        self._set_options(
            self._causal, pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale, rope_theta
        )
        scales = {"q_scale": q_scale, "k_scale": k_scale, "v_scale": v_scale}
        return self.run(q, paged_kv_cache, return_lse=True, **scales)  # type: ignore[return-value]


class CUDAGraphBatchDecodeWithPagedKVCacheWrapper(BatchDecodeWithPagedKVCacheWrapper):
    """BatchDecodeWithPagedKVCacheWrapper with use_cuda_graph=True."""

    @checked
    def __init__(
        self,
        workspace_buffer: Array | None,
        indptr_buffer: Array,
        indices_buffer: Array,
        last_page_len_buffer: Array,
        kv_layout: str = "NHD",
        use_tensor_cores: bool = False,
    ) -> None:
        super().__init__(
            workspace_buffer, kv_layout, True, use_tensor_cores, indptr_buffer, indices_buffer, last_page_len_buffer
        )


def fast_decode_plan(
    self: BatchDecodeWithPagedKVCacheWrapper,
    indptr: Array,
    indices: Array,
    last_page_len: Array,
    num_qo_heads: int,
    num_kv_heads: int,
    head_dim: int,
    page_size: int,
    pos_encoding_mode: str = "NONE",
    window_left: int = -1,
    logits_soft_cap: float | None = None,
    q_data_type: Any = None,
    kv_data_type: Any = None,
    data_type: Any = None,
    sm_scale: float | None = None,
    rope_scale: float | None = None,
    rope_theta: float | None = None,
    non_blocking: bool = True,
    fixed_split_size: int | None = None,
    disable_split_kv: bool = False,
    q_len_per_req: Any = 1,
    global_override_indptr_cpu: Array | None = None,
) -> None:
    """plan() of the wrapper given first; planning here never waits for a device, so both are the same.

    global_override_indptr_cpu, where given, is the indptr to plan with; older callers give it in the place of
    q_len_per_req.
    """
    if q_len_per_req is None or hasattr(q_len_per_req, "shape"):
        q_len_per_req, global_override_indptr_cpu = 1, q_len_per_req
    if data_type is None and q_data_type is None:
        q_data_type = "float16"
    BatchDecodeWithPagedKVCacheWrapper.plan(
        self, indptr if global_override_indptr_cpu is None else global_override_indptr_cpu, indices, last_page_len,
        num_qo_heads, num_kv_heads, head_dim, page_size, pos_encoding_mode, window_left, logits_soft_cap,
        q_data_type if q_data_type is not None else dtype_name(data_type), kv_data_type, data_type, sm_scale,
        rope_scale,
        rope_theta, non_blocking, fixed_split_size=fixed_split_size, disable_split_kv=disable_split_kv,
        q_len_per_req=q_len_per_req,
    )  # fmt: skip


class BatchDecodeMlaWithPagedKVCacheWrapper:
    """FlashInfer's deprecated MLA decode; not implemented."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("BatchDecodeMlaWithPagedKVCacheWrapper is not implemented")


def cudnn_batch_decode_with_kv_cache(*args: Any, **kwargs: Any) -> Any:
    """Raises NotImplementedError: use BatchDecodeWithPagedKVCacheWrapper."""
    raise NotImplementedError(
        "cudnn_batch_decode_with_kv_cache is not implemented; use BatchDecodeWithPagedKVCacheWrapper"
    )
