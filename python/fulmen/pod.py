# SPDX-License-Identifier: Apache-2.0
"""Prefill and decode in one call (POD), with tensors of their own: on a GPU beside each other where that pays."""

from __future__ import annotations

import contextlib
from typing import Any

from . import _attention as core
from ._arrays import Array
from ._device_plan import OnDevice, as_bytes, near, on_device
from ._explain import checked
from ._ffi import is_recording
from ._launch import asks_pdl
from ._options import check_kv_layout, only
from .decode import BatchDecodeWithPagedKVCacheWrapper
from .jit import Variant, gen_customize_batch_decode_module, gen_customize_pod_module
from .prefill import (
    BatchPrefillWithPagedKVCacheWrapper,
    single_prefill_with_kv_cache,
    single_prefill_with_kv_cache_with_jit_module,
)
from .quantization import packbits


def _variants(jit_args: Any) -> tuple[Variant, Variant]:
    """Of the prefill and of the decodes."""
    if isinstance(jit_args[6], int):  # a second head dim: the form of one variant
        module = gen_customize_batch_decode_module(*jit_args).load()
        return module, module
    return gen_customize_pod_module(*jit_args).load()  # type: ignore[no-any-return]


def _halves(args: tuple[Any, ...], count: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    return (args[:count], args[count:]) if len(args) == 2 * count else (args, args)


def _divided(buffer: Any) -> tuple[Any, Any]:
    """The prefill's and the decodes' part of a workspace, in which both may have partial results at a time.

    None, which a wrapper's own memory stands for, where half of the workspace is little.
    """
    if buffer is None or not on_device(buffer):
        return buffer, buffer  # on the host one comes after the other
    flat = as_bytes(buffer)
    half = flat.shape[0] // 2 // 256 * 256
    return (flat[half:], flat[:half]) if half >= _LEAST_HALF else (None, buffer)


_LEAST_HALF = 16 << 20


def _on_one_gpu(*tensors: Any) -> bool:
    return all(on_device(x) for x in tensors) and len({x.device for x in tensors}) == 1


def _beside(decode: core.PlannedBatch, prefill: core.PlannedBatch) -> contextlib.AbstractContextManager[None]:
    return decode._device_plan.beside(prefill._device_plan)


class _Prefill(core.PlannedBatch):
    """A GPU's prefill of one request over contiguous keys; options come with each run."""

    _entry = "single_prefill"

    def __init__(self, float_workspace_buffer: Any) -> None:
        self._init_state(float_workspace_buffer, "NHD", False, "auto")
        self._plan_info: Any = OnDevice()
        self._total_q = 0
        self._sizes: tuple[Any, ...] = ()

    def _tables(self) -> tuple[Any, ...]:
        return (None,) * 6

    def _plans_on_device(self) -> bool:
        return True

    def _state(self) -> tuple[Any, ...]:
        return (*super()._state(), *self._sizes)

    def run(
        self, q: Array, k: Array, v: Array, kv_layout: str, causal: bool, packed_mask: Array | None, options: Any,
        extras: Any,
    ) -> Array:  # fmt: skip
        """options: after `causal` those of PlannedBatch._set_options. extras: what a variant gets; None without one."""
        check_kv_layout(kv_layout)
        self._set_options(causal, *options)
        tokens, heads = (0, 1) if kv_layout == "NHD" else (1, 0)
        dtypes = (core.dtype_of(q), core.dtype_of(k), None)
        self._set_shapes(
            q.shape[1], k.shape[heads], q.shape[2], v.shape[2], None, *dtypes, q.shape[0], k.shape[tokens]
        )  # fmt: skip
        self._kv_layout, self._custom_mask_buf = kv_layout, packed_mask
        mask: Any = packed_mask
        place = None if mask is None else mask.data_ptr()
        self._sizes = (tuple(q.shape), tuple(k.shape), tuple(v.shape), *dtypes, kv_layout, place)
        return self._scaled_run(q, k, v, None, None, False, None, None, None, None, None, extras)  # type: ignore


class PODWithPagedKVCacheWrapper:
    """One prefill request over ragged keys beside a batch of paged decodes; plan() is the decode wrapper's."""

    @checked
    def __init__(
        self,
        float_workspace_buffer: Array | None,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
        paged_kv_indptr_buffer: Array | None = None,
        paged_kv_indices_buffer: Array | None = None,
        paged_kv_last_page_len_buffer: Array | None = None,
        jit_args: Any = None,
    ) -> None:
        """jit_args: of fulmen.jit.gen_customize_pod_module, or gen_customize_batch_decode_module's: one for both."""
        workspace_p, workspace_d = _divided(float_workspace_buffer)
        self._decode = BatchDecodeWithPagedKVCacheWrapper(
            workspace_d, kv_layout, use_cuda_graph, True, paged_kv_indptr_buffer, paged_kv_indices_buffer,
            paged_kv_last_page_len_buffer,
        )  # fmt: skip
        self._prefill = _Prefill(workspace_p)
        self._variants: tuple[Variant, Variant] | None = None
        if jit_args is not None:
            self._variants = _variants(jit_args)
            self._decode._jit_module = self._variants[1]

    @property
    def is_cuda_graph_enabled(self) -> bool:
        """Whether the decode batch is fixed."""
        return self._decode.is_cuda_graph_enabled

    def reset_workspace_buffer(self, float_workspace_buffer: Array, int_workspace_buffer: Array) -> None:
        """Another workspace."""
        workspace_p, workspace_d = _divided(float_workspace_buffer)
        self._decode.reset_workspace_buffer(workspace_d, int_workspace_buffer)
        self._prefill.reset_workspace_buffer(workspace_p)

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
        q_data_type: Any = "float16",
        kv_data_type: Any = None,
        data_type: Any = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
        non_blocking: bool = True,
    ) -> None:
        """Plans the decodes, as BatchDecodeWithPagedKVCacheWrapper.plan."""
        self._decode.plan(
            indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size, pos_encoding_mode,
            window_left,
            None, q_data_type, kv_data_type, data_type, sm_scale, rope_scale, rope_theta, non_blocking,
        )  # fmt: skip

    begin_forward = plan

    @asks_pdl
    def run(
        self,
        q_p: Array,
        k_p: Array,
        v_p: Array,
        q_d: Array,
        paged_kv_cache_d: Array | tuple[Array, Array],
        custom_mask_p: Array | None = None,
        packed_custom_mask_p: Array | None = None,
        causal_p: bool = False,
        kv_layout_p: str = "NHD",
        pos_encoding_mode_p: str = "NONE",
        sm_scale_p: float | None = None,
        window_left_p: int = -1,
        rope_scale_p: float | None = None,
        rope_theta_p: float | None = None,
        return_lse_p: bool = False,
        custom_mask_d: Array | None = None,
        packed_custom_mask_d: Array | None = None,
        causal_d: bool = False,
        kv_layout_d: str = "NHD",
        pos_encoding_mode_d: str = "NONE",
        sm_scale_d: float | None = None,
        window_left_d: int = -1,
        rope_scale_d: float | None = None,
        rope_theta_d: float | None = None,
        q_scale: float | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        return_lse_d: bool = False,
        use_fp16_qk_reduction: bool = False,
        enable_pdl: bool | None = None,
        *args: Any,
    ) -> tuple[Array, Array]:
        """(prefill output, decode output), without log-sum-exps whatever return_lse_p and return_lse_d say.

        Arguments that end in _d repeat the plan; a mask of their own raises NotImplementedError. args: what variants
        get (jit_args), once for both or the prefill's and then the decodes'.
        """
        op = "PODWithPagedKVCacheWrapper.run"
        only(op, None, custom_mask_d=custom_mask_d, packed_custom_mask_d=packed_custom_mask_d)
        extras_p: Any = None
        extras_d: Any = ()
        if self._variants is not None:
            only(op, None, custom_mask_p=custom_mask_p, packed_custom_mask_p=packed_custom_mask_p)
            only(op, "NONE", pos_encoding_mode_p=pos_encoding_mode_p)
            extras_p, extras_d = _halves(args, self._variants[0].num_extras)
        elif args:
            raise TypeError(f"{op}: {len(args)} extra arguments and no jit_args")
        scales = {} if self._variants is not None else {"q_scale": q_scale, "k_scale": k_scale, "v_scale": v_scale}
        of_p = (pos_encoding_mode_p, window_left_p, None, sm_scale_p, rope_scale_p, rope_theta_p)
        masks = (custom_mask_p, packed_custom_mask_p)
        prefill, is_beside = (q_p, k_p, v_p), self._runs_beside(q_p, k_p, v_p, q_d)
        with _beside(self._decode, self._prefill) if is_beside else contextlib.nullcontext():
            run = self._prefill_beside if is_beside else self._prefill_apart
            out_p = run(prefill, masks, causal_p, kv_layout_p, of_p, use_fp16_qk_reduction, extras_p)
            return out_p, self._decode.run(q_d, paged_kv_cache_d, *extras_d, **scales)  # type: ignore[return-value]

    def _prefill_beside(
        self, prefill: Any, masks: Any, causal: bool, kv_layout: str, options: Any, use_fp16: bool, extras: Any
    ) -> Array:
        q, k, _ = prefill
        custom_mask, packed_mask = (near(x, q) for x in masks)
        if custom_mask is not None and packed_mask is None:
            expected = (q.shape[0], k.shape[0 if kv_layout == "NHD" else 1])
            if custom_mask.numel() != expected[0] * expected[1]:
                raise ValueError(f"custom_mask has shape {tuple(custom_mask.shape)}, expected {expected}")
            packed_mask = packbits(custom_mask.reshape(-1), "little")
        self._prefill._jit_module = None if self._variants is None else self._variants[0]
        return self._prefill.run(*prefill, kv_layout, causal, packed_mask, (*options, use_fp16), extras)

    def _prefill_apart(
        self, prefill: Any, masks: Any, causal: bool, kv_layout: str, options: Any, use_fp16: bool, extras: Any
    ) -> Array:
        pos_encoding_mode, window_left, _, sm_scale, rope_scale, rope_theta = options
        if self._variants is not None:
            return single_prefill_with_kv_cache_with_jit_module(  # type: ignore[return-value]
                self._variants[0], *prefill, *extras, kv_layout=kv_layout, mask_mode=int(causal),
                window_left=window_left,
            )  # fmt: skip
        return single_prefill_with_kv_cache(  # type: ignore[return-value]
            *prefill, custom_mask=masks[0], packed_custom_mask=masks[1], causal=causal, kv_layout=kv_layout,
            pos_encoding_mode=pos_encoding_mode, use_fp16_qk_reduction=use_fp16, sm_scale=sm_scale,
            window_left=window_left, rope_scale=rope_scale, rope_theta=rope_theta,
        )  # fmt: skip

    def _runs_beside(self, *tensors: Any) -> bool:
        """Whether all lie on one GPU, and nobody records the call."""
        return _on_one_gpu(*tensors) and all(len(x.shape) == 3 for x in tensors) and not is_recording()

    def end_forward(self) -> None:
        """Does nothing."""


class BatchPODWithPagedKVCacheWrapper:
    """A batch of paged prefills beside a batch of paged decodes."""

    @checked
    def __init__(self, float_workspace_buffer: Array | None, kv_layout: str = "NHD") -> None:
        workspace_p, workspace_d = _divided(float_workspace_buffer)
        self._prefill = BatchPrefillWithPagedKVCacheWrapper(workspace_p, kv_layout)
        self._decode = BatchPrefillWithPagedKVCacheWrapper(workspace_d, kv_layout)
        self._arguments: Any = None  # of the prefills' plan; None: there is no plan of both
        self._planned_causal: bool | None = None  # None: another mask

    @property
    def is_cuda_graph_enabled(self) -> bool:
        """False."""
        return False

    @checked
    def plan(
        self,
        qo_indptr_p: Array,
        kv_indptr_p: Array,
        kv_indices_p: Array,
        last_page_len_p: Array,
        qo_indptr_d: Array,
        kv_indptr_d: Array,
        kv_indices_d: Array,
        last_page_len_d: Array,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        page_size: int,
        pos_encoding_mode: str = "NONE",
        window_left: int = -1,
        q_data_type: Any = "float16",
        kv_data_type: Any = None,
        data_type: Any = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
        non_blocking: bool = True,
    ) -> None:
        """Plans both batches; masks and causal come with run()."""
        if data_type is not None:
            q_data_type = kv_data_type = data_type
        shape = (num_qo_heads, num_kv_heads, head_dim, page_size)
        options = dict(
            pos_encoding_mode=pos_encoding_mode, window_left=window_left, q_data_type=q_data_type,
            kv_data_type=kv_data_type, sm_scale=sm_scale, rope_scale=rope_scale, rope_theta=rope_theta,
        )  # fmt: skip
        of_p = (qo_indptr_p, kv_indptr_p, kv_indices_p, last_page_len_p, *shape)
        self._arguments = None  # until both have their plan: one half's must not run with the other's old one
        self._prefill.plan(*of_p, **options)
        self._decode.plan(qo_indptr_d, kv_indptr_d, kv_indices_d, last_page_len_d, *shape, **options)
        self._arguments, self._planned_causal = (of_p, options), False

    begin_forward = plan

    @asks_pdl
    def run(
        self,
        q_p: Array,
        paged_kv_cache_p: Array | tuple[Array, Array],
        q_d: Array,
        paged_kv_cache_d: Array | tuple[Array, Array],
        custom_mask_p: Array | None = None,
        packed_custom_mask_p: Array | None = None,
        causal_p: bool = False,
        q_scale: float | None = None,
        k_scale: float | None = None,
        v_scale: float | None = None,
        return_lse: bool = False,
        use_fp16_qk_reduction: bool = False,
        enable_pdl: bool | None = None,
    ) -> Any:
        """(out_p, out_d), or ((out_p, out_d), (lse_p, lse_d)) with return_lse."""
        only("BatchPODWithPagedKVCacheWrapper.run", False, use_fp16_qk_reduction=use_fp16_qk_reduction)
        if self._arguments is None:
            raise RuntimeError("run() before plan()")
        positional, options = self._arguments
        has_mask = custom_mask_p is not None or packed_custom_mask_p is not None
        if has_mask or bool(causal_p) != self._planned_causal:
            mask = {"custom_mask": custom_mask_p, "packed_custom_mask": packed_custom_mask_p, "causal": causal_p}
            self._planned_causal = None  # also if this fails
            self._prefill.plan(*positional, **options, **mask)
            self._planned_causal = None if has_mask else bool(causal_p)
        scales = {"q_scale": q_scale, "k_scale": k_scale, "v_scale": v_scale, "return_lse": return_lse}
        # Results that a scale on the GPU multiplies are looked at between the halves.
        is_beside = _on_one_gpu(q_p, q_d) and not is_recording() and not any(map(on_device, scales.values()))
        with _beside(self._decode, self._prefill) if is_beside else contextlib.nullcontext():
            of_p = self._prefill.run(q_p, paged_kv_cache_p, **scales)
            of_d = self._decode.run(q_d, paged_kv_cache_d, **scales)
        return ((of_p[0], of_d[0]), (of_p[1], of_d[1])) if return_lse else (of_p, of_d)

    def end_forward(self) -> None:
        """Does nothing."""
