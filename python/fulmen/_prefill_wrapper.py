# SPDX-License-Identifier: Apache-2.0
"""What the paged and the ragged prefill wrapper share: buffers of a fixed batch, masks, the old forward()."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _attention as core
from ._arrays import Array, from_numpy, host_ints, is_torch
from ._multi_item import ItemsOnDevice, multi_item_mask
from ._options import check_backend, only
from .jit import gen_customize_batch_prefill_module


class BatchPrefillWrapper(core.PlannedBatch):
    """Prefill attention of a batch; subclasses say where keys and values are."""

    def _init_prefill(
        self, name: str, float_workspace_buffer: Array | None, kv_layout: str, use_cuda_graph: bool,
        buffers: dict[str, Any],
        custom_mask_buf: Array | None, mask_indptr_buf: Array | None, backend: str, jit_args: Any, jit_kwargs: Any,
    ) -> None:  # fmt: skip
        check_backend(name, backend)
        self._init_state(float_workspace_buffer, kv_layout, use_cuda_graph, backend)
        if jit_args is not None:
            form = "fa3" if backend == "fa3" else "fa2"
            module = gen_customize_batch_prefill_module(form, *jit_args, **(jit_kwargs or {}))
            self._jit_module = module.build_and_load()
        self._fixed_batch_size, self._max_total_num_rows = 0, None
        self._items_on_device = ItemsOnDevice()
        self._buffers = buffers
        self._mask_buffers = (custom_mask_buf, mask_indptr_buf)
        if not use_cuda_graph:
            return
        for argument, buffer in buffers.items():
            if buffer is None:
                raise ValueError(f"{argument} should not be None in cudagraph mode")
        self._fixed_batch_size = int(buffers["qo_indptr_buf"].shape[0]) - 1

    def _adopt(self, argument: str, x: Any) -> Any:
        """The table as it is used: the caller's memory, or the copy in a fixed batch's buffer."""
        if not self._use_cuda_graph:
            return core.index(x)
        head = core.copy_into(self._buffers[argument], x, argument.removesuffix("_buf"))
        # A captured graph sees all of the buffer of page ids, whose used part varies.
        return self._buffers[argument] if argument == "paged_kv_indices_buf" else head

    def _check_fixed(self, qo_indptr: Array) -> None:
        if not self._use_cuda_graph:
            return
        batch_size, rows = len(qo_indptr) - 1, core.last_of(qo_indptr)
        if batch_size != self._fixed_batch_size:
            raise ValueError(
                f"The batch size should be fixed in cudagraph mode, the runtime batch size {batch_size} mismatches the "
                f"batch size set during initialization {self._fixed_batch_size}"
            )
        if self._max_total_num_rows is None or rows is None:
            self._max_total_num_rows = rows if rows is not None else self._max_total_num_rows
        elif rows > self._max_total_num_rows:
            raise ValueError(
                f"The total number of rows in qo_indptr {rows} in cuda graph mode should not exceed the number of rows "
                f"set during initialization {self._max_total_num_rows}"
            )

    def _set_mask(
        self, custom_mask: Array | None, packed_custom_mask: Array | None, qo_lens: Any, kv_lens: Any
    ) -> None:
        self._custom_mask_buf = self._mask_indptr_buf = None
        if packed_custom_mask is not None:
            self._custom_mask_buf, self._mask_indptr_buf = packed_custom_mask, core.mask_offsets(qo_lens, kv_lens)
        elif custom_mask is not None:
            self._custom_mask_buf, self._mask_indptr_buf = core.pack_mask(custom_mask, qo_lens, kv_lens)
        if self._custom_mask_buf is None or not self._use_cuda_graph:
            return
        if self._mask_buffers[0] is None or self._mask_buffers[1] is None:
            raise ValueError("custom_mask_buf and mask_indptr_buf must be initialized with a buffer in cudagraph mode")
        for buffer, x, name in zip(
            self._mask_buffers, (self._custom_mask_buf, self._mask_indptr_buf), ("mask", "mask_indptr")
        ):
            if x.shape[0] > buffer.shape[0]:
                raise ValueError(f"{name} has {x.shape[0]} elements, its buffer {buffer.shape[0]}")
            if is_torch(buffer):
                buffer[: x.shape[0]].copy_(x if is_torch(x) else from_numpy(buffer, x), non_blocking=True)
            else:
                buffer[: x.shape[0]] = x
        self._custom_mask_buf, self._mask_indptr_buf = self._mask_buffers

    def _multi_item(
        self, prefix_len_ptr: Any, token_pos_in_items_ptr: Any, token_pos_in_items_len: int, max_item_len_ptr: Any,
        qo_lens: Any, kv_lens: Any, pos_encoding_mode: str,
    ) -> np.ndarray | None:  # fmt: skip
        """The mask of multi-item scoring, or None where it was not asked for. max_item_len_ptr bounds work on GPUs.

        Where a GPU holds a table there is no mask but self._items, unless positions are encoded: then it waits.
        """
        self._items = None
        if prefix_len_ptr is None and token_pos_in_items_ptr is None:
            only("plan", None, max_item_len_ptr=max_item_len_ptr)
            return None
        if prefix_len_ptr is None or token_pos_in_items_ptr is None:
            raise ValueError("plan: prefix_len_ptr and token_pos_in_items_ptr go together")
        tables = (prefix_len_ptr, token_pos_in_items_ptr, qo_lens, kv_lens, self._float_workspace_buffer)
        device = next((t.device for t in tables if core.on_device(t)), None)
        if device is not None and pos_encoding_mode == "NONE" and self._jit_module is None:
            self._items = self._items_on_device
            self._items.set(prefix_len_ptr, token_pos_in_items_ptr, token_pos_in_items_len, device)
            return None
        prefix_lens, positions = host_ints(prefix_len_ptr, "int64"), host_ints(token_pos_in_items_ptr, "int64")
        lens = host_ints(qo_lens, "int64"), host_ints(kv_lens, "int64")
        return multi_item_mask(*lens, prefix_lens, positions, token_pos_in_items_len)

    def _forward_options(
        self, causal: bool, pos_encoding_mode: str, use_fp16_qk_reduction: bool, window_left: int,
        logits_soft_cap: float | None, sm_scale: float | None, rope_scale: float | None, rope_theta: float | None,
    ) -> None:  # fmt: skip
        """forward()'s options replace the planned ones."""
        self._set_options(
            causal, pos_encoding_mode, window_left, logits_soft_cap, sm_scale, rope_scale, rope_theta,
            use_fp16_qk_reduction,
        )  # fmt: skip


def not_a_bool(rest: tuple[Any, ...]) -> bool:
    """Whether o_data_type stands where non_blocking, a bool, used to."""
    return not isinstance(rest[0], bool)
