# SPDX-License-Identifier: Apache-2.0
"""What every attention entry point of the package shares: options, masks, outputs, and a planned batch.

The library has one attention op. Wrappers keep FlashInfer's state under FlashInfer's names, because serving engines
read and write it; `PlannedBatch` turns that state into a plan, and into a new plan when the state has changed since.
"""

from __future__ import annotations

import math
import operator
from typing import Any, Sequence

import numpy as np

from ._arrays import Array, arg, check_out, dtype_of, empty, empty_like, is_native, is_torch, out_arg
from ._copies import Replanned
from ._device_plan import DevicePlan, OnDevice, alibi_slopes_for, on_device, to_device  # noqa: F401
from ._dtypes import FP8, dtype_name, numpy_dtype
from ._explain import shown
from ._ffi import is_recording, lib
from ._options import check_kv_layout, check_pos_encoding_mode, only
from ._scales import Scaled, product
from ._tables import (  # noqa: F401
    check_pages, copy_into, index, largest, last_of, lens_of, mask_offsets, pack_mask, paged_lens,
)  # fmt: skip

DEFAULT_ROPE_THETA = 1e4


def output_dtype(q_dtype: str, o_dtype: Any = None) -> str:
    """The name of the output's dtype: as asked, else q's, else float16 for an FP8 q."""
    if o_dtype is not None:
        return dtype_name(o_dtype)
    return "float16" if q_dtype in FP8 else q_dtype


def options(
    kv_layout: str = "NHD",
    causal: bool = False,
    window_left: int = -1,
    logits_soft_cap: float | None = None,
    sm_scale: float | None = None,
    q_scale: float = 1.0,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    rope: tuple[float, float] = (0.0, 1.0),
    fixed_split_len: int = 0,
    disable_split: bool = False,
) -> tuple[Any, ...]:
    """The library's options in its order. None and numbers below 0 turn the soft cap off; lse is base 2."""
    cap = 0.0 if logits_soft_cap is None or logits_soft_cap <= 0 else float(logits_soft_cap)
    return (
        kv_layout, bool(causal), max(operator.index(window_left), -1), cap, checked_scale(sm_scale) or 0.0, q_scale,
        k_scale, v_scale, *rope, "2", operator.index(fixed_split_len), bool(disable_split),
    )  # fmt: skip


def checked_scale(sm_scale: float | None) -> float | None:
    """sm_scale itself. Raises ValueError for 0 and NaN, which to the library mean the default."""
    if sm_scale is None:
        return None
    x = float(sm_scale)
    if x == 0 or x != x:
        raise ValueError(f"attention: sm_scale is {x}, expected a number other than 0, or None for 1 / sqrt(head_dim)")
    return x


def rope_of(pos_encoding_mode: str, rope_scale: float | None, rope_theta: float | None) -> tuple[float, float]:
    """(theta, scale) of rotation inside attention; theta 0 is off."""
    theta = DEFAULT_ROPE_THETA if rope_theta is None else float(rope_theta)
    scale = 1.0 if rope_scale is None else float(rope_scale)
    if pos_encoding_mode == "ROPE_LLAMA" and not theta > 0:  # 0 would be none at all
        raise ValueError(f"attention: rope_theta is {theta}, expected more than 0")
    return (theta, scale) if pos_encoding_mode == "ROPE_LLAMA" else (0.0, 1.0)


def sinks_arg(sinks: Any) -> Any:
    """float32 [num_qo_heads] in natural-log units; a list of one array is FlashInfer's other form."""
    if isinstance(sinks, (list, tuple)):
        only("attention", 1, **{"the number of sink tensors": len(sinks)})
        sinks = sinks[0]
    return arg(sinks)


def stand_in(shape: Sequence[int], dtype: str, written: bool = False) -> Any:
    """A tensor that lends a plan its shape and dtype: one row's memory behind every index, none where it is written."""
    import tvm_ffi

    if written:
        return lib.stand_in([int(n) for n in shape], tvm_ffi.dtype(dtype), 1, 0)
    raw = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[numpy_size(dtype)]
    row = np.zeros(shape[-1], raw)
    base = np.lib.stride_tricks.as_strided(row, shape, (0,) * (len(shape) - 1) + (row.itemsize,))
    base = base if base.flags.writeable else base.copy()
    return lib.reinterpret(base, tvm_ffi.dtype(dtype))


def numpy_size(dtype: str) -> int:
    """Bytes of an element, without needing ml_dtypes."""
    return 1 if dtype in FP8 else 2 if dtype == "bfloat16" else numpy_dtype(dtype).itemsize


def outputs(
    q: Array, shape: Sequence[int], dtype: str, out: Array | None, lse: Array | None, return_lse: bool
) -> tuple[Array, Array | None]:
    """The caller's output arrays, checked, or new ones."""
    if out is not None:
        check_out(out, shape, dtype, "out")
    elif tuple(q.shape) == tuple(shape) and dtype_of(q) == dtype:
        out = empty_like(q)  # takes less than the shape in numbers
    else:
        out = empty(q, shape, dtype)
    if lse is not None:
        check_out(lse, shape[:-1], "float32", "lse")
    elif return_lse:
        lse = empty(q, shape[:-1], "float32")
    return out, lse


def call_traced(name: str, *args: Any) -> None:
    """The operator of torch.ops.fulmen, while PyTorch traces."""
    from ._torch import call_traced as call

    call(name, *args)


class NativeModule:
    """What engines call as wrapper._cached_module: planning again from the wrapper's own buffers."""

    def __init__(self, wrapper: "PlannedBatch") -> None:
        self._wrapper = wrapper

    def plan(self, *args: Any) -> Any:
        """Arguments are FlashInfer's native ones; all that they say is in the wrapper's buffers already."""
        self._wrapper._make_plan()
        return self._wrapper._plan_info


class PlannedBatch(Replanned):
    """State and planning of a batch wrapper. Subclasses set _entry and fill the state in plan()."""

    _entry = "batch_attention"

    def _init_state(
        self, float_workspace_buffer: Array | None, kv_layout: str, use_cuda_graph: bool, backend: str
    ) -> None:
        check_kv_layout(kv_layout)
        self._check_workspace(float_workspace_buffer)
        self._register()
        self._kv_layout = kv_layout
        self._float_workspace_buffer = float_workspace_buffer
        self._int_workspace_buffer = self._pin_memory_int_workspace_buffer = None
        self.device = getattr(float_workspace_buffer, "device", "cpu")
        self._use_cuda_graph = bool(use_cuda_graph)
        self._backend = backend
        self._jit_module: Any = None
        self._items: Any = None  # multi-item scoring with tables on a GPU
        self._cached_module: Any = None
        self._plan_info: Any = None
        self._planned_state: Any = None
        self._device_plan = DevicePlan()
        self._qo_indptr_buf = self._custom_mask_buf = self._mask_indptr_buf = None
        self._paged_kv_indptr_buf = self._paged_kv_indices_buf = self._paged_kv_last_page_len_buf = None
        self._seq_lens_buf = None
        self._causal, self._pos_encoding_mode, self._window_left = False, "NONE", -1
        self._logits_soft_cap, self._sm_scale = 0.0, None
        self._rope_scale: float | None = 1.0
        self._rope_theta: float | None = DEFAULT_ROPE_THETA
        self._fixed_split_len, self._disable_split = 0, False

    def _check_workspace(self, buffer: Any) -> None:
        if buffer is not None and not hasattr(buffer, "__dlpack__"):
            words = f"float_workspace_buffer is {shown(buffer)}, expected an array or None"
            raise TypeError(f"{type(self).__name__}: {words}")

    @property
    def is_cuda_graph_enabled(self) -> bool:
        """Whether the wrapper was made with use_cuda_graph: fixed batch size, the caller's index buffers."""
        return self._use_cuda_graph

    def reset_workspace_buffer(self, float_workspace_buffer: Array, int_workspace_buffer: Array | None = None) -> None:
        """Other workspaces from the next plan on; the library keeps no int workspace."""
        self._check_workspace(float_workspace_buffer)
        self._float_workspace_buffer = float_workspace_buffer
        self._int_workspace_buffer = int_workspace_buffer
        if self._plan_info is not None:
            self._device_plan.forget_lengths()
            if not self._plans_on_device():
                self._bind_workspace()

    def _set_options(
        self,
        causal: bool,
        pos_encoding_mode: str,
        window_left: int,
        logits_soft_cap: float | None,
        sm_scale: float | None,
        rope_scale: float | None,
        rope_theta: float | None,
        use_fp16_qk_reduction: bool = False,
    ) -> None:
        check_pos_encoding_mode(pos_encoding_mode)
        only("attention", False, use_fp16_qk_reduction=use_fp16_qk_reduction)
        self._causal, self._pos_encoding_mode, self._window_left = bool(causal), pos_encoding_mode, window_left
        self._logits_soft_cap = 0.0 if logits_soft_cap is None else float(logits_soft_cap)
        self._sm_scale = checked_scale(sm_scale)
        self._rope_scale = 1.0 if rope_scale is None else rope_scale
        self._rope_theta = DEFAULT_ROPE_THETA if rope_theta is None else rope_theta

    def _set_shapes(
        self, num_qo_heads: int, num_kv_heads: int, head_dim_qk: int, head_dim_vo: int, page_size: int | None,
        q_data_type: Any, kv_data_type: Any, o_data_type: Any, total_q: int | None, total_kv: int | None,
    ) -> None:  # fmt: skip
        """page_size None: ragged keys, total_kv counts tokens; else it counts pages. None: a GPU knows."""
        sizes = {"num_qo_heads": num_qo_heads, "num_kv_heads": num_kv_heads, "head_dim": head_dim_qk,
                 "head_dim_vo": head_dim_vo, "page_size": 1 if page_size is None else page_size}  # fmt: skip
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"plan: {name} is {size}, expected 1 or more")
        self._num_qo_heads, self._num_kv_heads = num_qo_heads, num_kv_heads
        self._head_dim_qk, self._head_dim_vo, self._page_size = head_dim_qk, head_dim_vo, page_size
        self._cached_q_data_type = dtype_name(q_data_type)
        self._cached_kv_data_type = dtype_name(q_data_type if kv_data_type is None else kv_data_type)
        self._cached_o_data_type = output_dtype(self._cached_q_data_type, o_data_type)
        self._total_q, self._total_kv = 0 if total_q is None else int(total_q), int(total_kv or 0)

    def _set_split(self, fixed_split_size: int | None, disable_split_kv: bool, page_size: int) -> None:
        """fixed_split_size counts pages; None and -1 are off."""
        self._fixed_split_len = (
            fixed_split_size * page_size if fixed_split_size is not None and fixed_split_size > 0 else 0
        )
        self._disable_split = bool(disable_split_kv)

    def _state(self) -> tuple[Any, ...]:
        return (
            self._causal, self._pos_encoding_mode, self._window_left, self._logits_soft_cap, self._sm_scale,
            self._rope_scale, self._rope_theta, self._total_q,
        )  # fmt: skip

    def _kv_shape(self, head_dim: int) -> tuple[int, ...]:
        tokens, heads = (self._page_size or self._total_kv), self._num_kv_heads
        inner = (tokens, heads, head_dim) if self._kv_layout == "NHD" else (heads, tokens, head_dim)
        return inner if self._page_size is None else (self._total_kv, *inner)

    def _plans_on_device(self) -> bool:
        tables = (*self._tables(), self._custom_mask_buf, self._float_workspace_buffer)
        return any(on_device(t) for t in tables)

    def _device_tables(self, device: Any) -> tuple[Any, ...]:
        return tuple(to_device(t, device) for t in (*self._tables(), self._custom_mask_buf, self._mask_indptr_buf))

    def _plan_options(self) -> tuple[Any, ...]:
        return options(
            self._kv_layout, self._causal, self._window_left, self._logits_soft_cap, self._sm_scale,
            rope=rope_of(self._pos_encoding_mode, self._rope_scale, self._rope_theta),
            fixed_split_len=self._fixed_split_len, disable_split=self._disable_split,
        )  # fmt: skip

    def _make_plan(self) -> None:
        self._plan_info = None
        if self._cached_module is None:
            self._cached_module = NativeModule(self)
        self._planned_state = self._state()
        self._device_plan.forget_lengths()
        if self._plans_on_device():
            self._plan_info = OnDevice()
            return
        rows = self._total_q
        tables = [None if t is None else arg(t) for t in self._tables()]
        self._plan_info = lib.attention_plan(
            self._entry,
            stand_in((rows, self._num_qo_heads, self._head_dim_qk), self._cached_q_data_type),
            stand_in(self._kv_shape(self._head_dim_qk), self._cached_kv_data_type),
            stand_in(self._kv_shape(self._head_dim_vo), self._cached_kv_data_type),
            *tables,
            stand_in((rows, self._num_qo_heads, self._head_dim_vo), self._cached_o_data_type, written=True),
            None, arg(self._custom_mask_buf), arg(self._mask_indptr_buf),
            alibi_slopes_for(None, self._pos_encoding_mode, self._num_qo_heads), None, None, *self._plan_options(),
        )  # fmt: skip
        self._bind_workspace()

    def _tables(self) -> tuple[Any, ...]:
        """qo_indptr, kv_indptr, kv_indices, last_page_len, block_tables, seq_lens."""
        lens = None if self._seq_lens_buf is not None else self._paged_kv_last_page_len_buf
        return (
            self._qo_indptr_buf, self._paged_kv_indptr_buf, self._paged_kv_indices_buf, lens, None, self._seq_lens_buf
        )  # fmt: skip

    def _bind_workspace(self) -> None:
        import tvm_ffi

        needed = int(lib.attention_workspace_bytes(self._plan_info))
        buffer = self._float_workspace_buffer
        if buffer is None:
            buffer = np.empty(needed, np.uint8)
        elif not is_native(buffer):
            buffer = np.from_dlpack(buffer)
        flat = buffer.view(_torch_uint8()) if is_torch(buffer) else buffer.reshape(-1).view(np.uint8)
        size = math.prod(flat.shape)
        if size < needed:
            raise RuntimeError(f"float_workspace_buffer has {size} bytes; this plan needs {needed}")
        flat = flat.reshape(-1)
        self._workspace_arg = flat if is_torch(flat) else tvm_ffi.from_dlpack(flat)

    def _scaled_run(
        self, q: Array, k: Array, v: Array, out: Array | None, lse: Array | None, return_lse: bool, sinks: Any,
        q_scale: Any, k_scale: Any, v_scale: Any, window_left: int | None = None, extras: Any = None,
    ) -> Array | tuple[Array, Array]:  # fmt: skip
        if self._plan_info is None:
            raise RuntimeError("run() before plan()")
        if window_left is not None and window_left != self._window_left:
            self._window_left = window_left
        for name, x, planned in (("q", q, self._cached_q_data_type), ("kv", k, self._cached_kv_data_type)):
            if dtype_of(x) != planned:
                raise ValueError(
                    f"The dtype of {name}, {dtype_of(x)}, does not match {name}_data_type {planned} of the plan "
                    "function"
                )
        sizes = q.shape
        if len(sizes) == 3 and sizes[1] != self._num_qo_heads:
            raise ValueError(f"run: q has num_qo_heads {sizes[1]}, expected {self._num_qo_heads}, as planned")
        shape = (sizes[0], self._num_qo_heads, self._head_dim_vo)
        out, lse = outputs(q, shape, self._cached_o_data_type, out, lse, return_lse)
        sinks = None if sinks is None else sinks_arg(sinks)
        if extras is not None:
            self._run_into(q, k, v, out, lse, sinks, (1.0, 1.0, 1.0), (self._jit_module, extras))
            return (out, lse) if return_lse else out
        if q_scale is None and k_scale is None and v_scale is None and self._items is None and not is_recording():
            self._run_into(q, k, v, out, lse, sinks, (1.0, 1.0, 1.0))
            return (out, lse) if return_lse else out
        s = Scaled(q, out, {"q_scale": q_scale, "k_scale": k_scale}, {"v_scale": v_scale}, self._items is not None)
        scales = (s.logits, 1.0, s.values)
        if self._items is not None:
            only("multi-item scoring with tables on a GPU", None, sinks=sinks)
            sm_scale = (self._sm_scale or self._head_dim_qk**-0.5) * s.logits
            variant = self._items.variant(self._logits_soft_cap, sm_scale)
            self._run_into(s.q, k, v, s.out, lse, None, scales, variant)
        elif is_recording():
            call_traced("planned_attention", self._handle, s.q, k, v, s.out, lse, sinks, *scales)
        else:
            self._run_into(s.q, k, v, s.out, lse, sinks, scales)
        s.finish()
        return (out, lse) if return_lse else out

    def _check_cache(self, k: Array) -> None:
        """ValueError where the cache is not what was planned for; its other sizes are looked at by the library."""
        if self._page_size is None:
            return
        token, head = (-3, -2) if self._kv_layout == "NHD" else (-2, -3)
        for name, got, planned in (
            ("page_size", k.shape[token], self._page_size), ("num_kv_heads", k.shape[head], self._num_kv_heads)
        ):  # fmt: skip
            if got != planned:
                raise ValueError(f"run: paged_kv_cache has {name} {got}, expected {planned}, as planned")

    def _run_into(
        self, q: Array, k: Array, v: Array, out: Array, lse: Array | None, sinks: Any, scales: Any, extras: Any = None
    ) -> None:
        """run() on outputs that are there, with a plan of the state as it is now. extras: a variant, what it gets."""
        if self._state() != self._planned_state:
            self._make_plan()
        if on_device(q):
            return self._device_plan.run(self, q, k, v, out, lse, sinks, scales, extras)
        self._check_cache(k)
        if isinstance(self._plan_info, OnDevice):
            raise ValueError("q lies in host memory, the tables of the plan function on a GPU")
        if extras is not None:
            return extras[0].run(self._plan_info, q, k, v, out, lse, self._workspace_arg, extras[1])
        lib.attention_run(
            self._plan_info, arg(q), arg(k), arg(v), out_arg(out), None if lse is None else out_arg(lse, "lse"), sinks,
            self._workspace_arg, *scales,
        )  # fmt: skip

    def end_forward(self) -> None:
        """Does nothing; FlashInfer's old API called it after a batch."""


def _torch_uint8() -> Any:
    import torch

    return torch.uint8


def scale_args(args: tuple[Any, ...], q_scale: Any, k_scale: Any, v_scale: Any) -> tuple[Any, Any, Any]:
    """The scales of a run(*args) without a JIT module: given by name, or as the tensors of FP8."""
    if not args:
        return q_scale, k_scale, v_scale
    if len(args) != 3:
        raise NotImplementedError(
            f"run: {len(args)} extra positional arguments and no jit_args; only (scale_q, scale_k, scale_v) is known"
        )
    names, given = ("scale_q", "scale_k", "scale_v"), {"q_scale": q_scale, "k_scale": k_scale, "v_scale": v_scale}
    products = [product({name: a, other: g}) for name, a, (other, g) in zip(names, args, given.items())]
    q, k, v = (number if tensor is None else tensor * number for number, tensor in products)
    return q, k, v
