# SPDX-License-Identifier: Apache-2.0
"""Block-sparse attention through page tables: a block of keys is a page, a row of blocks is a request."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _attention as core
from ._arrays import Array, check_out, dtype_of, empty, host_ints, is_torch, out_arg, takes_dlpack
from ._attention import scale_args
from ._device_plan import on_device, to_device
from ._explain import checked
from ._options import only
from .prefill import BatchPrefillWithPagedKVCacheWrapper


def convert_bsr_mask_layout(mask: Array, indptr: Array) -> Array:
    """Masks of blocks [nnz, R, C] as one flat mask, row-major per row of blocks, which is attention's layout."""
    if on_device(mask) or on_device(indptr):
        return _moved_on_device(mask, indptr)
    bounds = host_ints(indptr, "int64")
    nnz, rows, cols = mask.shape
    out = empty(mask, (nnz * rows * cols,))
    for b in range(len(bounds) - 1):
        blocks = mask[int(bounds[b]) : int(bounds[b + 1])]
        first, last = int(bounds[b]) * rows * cols, int(bounds[b + 1]) * rows * cols
        out[first:last] = blocks.swapaxes(0, 1).reshape(-1)
    return out


def _moved_on_device(mask: Array, indptr: Array) -> Array:
    """The same where a GPU holds them: every element's place is computed there, nothing waits."""
    import torch

    device = mask.device if on_device(mask) else indptr.device
    mask, indptr = to_device(mask, device), to_device(core.index(indptr), device).long()
    nnz, rows, cols = mask.shape
    block = torch.arange(nnz, device=device)
    owner = torch.searchsorted(indptr, block, right=True) - 1
    first, count = indptr[owner], indptr[owner + 1] - indptr[owner]
    r, c = (torch.arange(n, device=device) for n in (rows, cols))
    begin = first * rows * cols + (block - first) * cols
    place = begin[:, None, None] + (r[:, None] * cols) * count[:, None, None] + c
    return mask.new_empty(nnz * rows * cols).scatter_(0, place.reshape(-1), mask.reshape(-1))


class BlockSparseAttentionWrapper:
    """Attention of M queries over N keys where blocks of R x C are kept or dropped; one pattern for all heads."""

    @checked
    def __init__(self, float_workspace_buffer: Array | None, backend: str = "auto") -> None:
        self._wrapper = BatchPrefillWithPagedKVCacheWrapper(float_workspace_buffer, "NHD", backend=backend)
        self._block, self._shape = (1, 1), (0, 0)

    def reset_workspace_buffer(self, float_workspace_buffer: Array, int_workspace_buffer: Array) -> None:
        """Another workspace."""
        self._wrapper.reset_workspace_buffer(float_workspace_buffer, int_workspace_buffer)

    @checked
    def plan(
        self,
        indptr: Array,
        indices: Array,
        M: int,
        N: int,
        R: int,
        C: int,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        mask: Array | None = None,
        packed_mask: Array | None = None,
        causal: bool = False,
        pos_encoding_mode: str = "NONE",
        use_fp16_qk_reduction: bool = False,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
        q_data_type: Any = "float16",
        kv_data_type: Any = None,
        o_data_type: Any = None,
        non_blocking: bool = True,
        block_mask: Any = None,
        kv_block_lens: Any = None,
        q2k_indices: Any = None,
        q2k_num: Any = None,
        kv_splits: Any = None,
        use_clc: Any = None,
        q_scale: Any = None,
        k_scale: Any = None,
        v_scale: Any = None,
    ) -> None:
        """Plans a pattern in BSR form: indptr [M / R + 1], indices [nnz] block columns, mask bool [nnz, R, C] optional.

        packed_mask: the mask's bits, little endian, each row of blocks from a byte on. o_data_type None: q's.
        """
        op = "BlockSparseAttentionWrapper.plan"
        only(op, None, block_mask=block_mask, kv_block_lens=kv_block_lens, q2k_indices=q2k_indices, q2k_num=q2k_num)
        only(op, None, kv_splits=kv_splits, use_clc=use_clc, q_scale=q_scale, k_scale=k_scale, v_scale=v_scale)
        if M % R or N % C:
            raise ValueError(f"M={M} and N={N} must be multiples of R={R} and C={C}")
        num_rows = M // R
        if len(indptr) != num_rows + 1:
            raise ValueError(f"indptr has {len(indptr)} elements, expected M / R + 1 = {num_rows + 1}")
        flat = None if mask is None else convert_bsr_mask_layout(mask, indptr)
        self._block, self._shape = (R, C), (M, N)
        self._wrapper.plan(
            np.arange(num_rows + 1, dtype=np.int32) * R, indptr, indices, np.full(num_rows, C, np.int32),
            num_qo_heads, num_kv_heads, head_dim, C, custom_mask=flat, packed_custom_mask=packed_mask, causal=causal,
            pos_encoding_mode=pos_encoding_mode, use_fp16_qk_reduction=use_fp16_qk_reduction, sm_scale=sm_scale,
            logits_soft_cap=logits_soft_cap, rope_scale=rope_scale, rope_theta=rope_theta, q_data_type=q_data_type,
            kv_data_type=kv_data_type, o_data_type=o_data_type,
        )  # fmt: skip

    begin_forward = plan

    @takes_dlpack
    def run(
        self,
        q: Array,
        k: Array,
        v: Array,
        scale_q: Any = None,
        scale_k: Any = None,
        scale_v: Any = None,
        out: Array | None = None,
        lse: Array | None = None,
        return_lse: bool = False,
        enable_pdl: bool | None = None,
    ) -> Array | tuple[Array, Array]:
        """q: [M, num_qo_heads, head_dim]; k, v: [N, num_kv_heads, head_dim]. Returns like q, and lse float32 [M,
        heads].
        """
        if self._wrapper._plan_info is None:
            raise RuntimeError("run() before plan()")
        for name, x, rows in (("q", q, self._shape[0]), ("k", k, self._shape[1]), ("v", v, self._shape[1])):
            if len(x.shape) != 3 or x.shape[0] != rows:
                shape = (rows, "num_heads", "head_dim")
                raise ValueError(f"run: {name} has shape {tuple(x.shape)}, expected {shape}, as planned")
        cache = tuple(x.reshape(self._shape[1] // self._block[1], self._block[1], *x.shape[1:]) for x in (k, v))
        scales = scale_args((), scale_q, scale_k, scale_v)
        names = dict(zip(("q_scale", "k_scale", "v_scale"), scales))
        return self._wrapper.run(q, cache, out=out, lse=lse, return_lse=return_lse, **names)

    def forward(
        self,
        q: Array,
        k: Array,
        v: Array,
        scale_q: Any = None,
        scale_k: Any = None,
        scale_v: Any = None,
        pos_encoding_mode: str = "NONE",
        use_fp16_qk_reduction: bool = False,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
    ) -> Array:
        """The old run(): these options replace the planned ones."""
        self._wrapper._forward_options(
            self._wrapper._causal, pos_encoding_mode, use_fp16_qk_reduction, -1, logits_soft_cap, sm_scale, rope_scale,
            rope_theta,
        )  # fmt: skip
        return self.run(q, k, v, scale_q, scale_k, scale_v)

    def end_forward(self) -> None:
        """Does nothing."""


class VariableBlockSparseAttentionWrapper:
    """Blocks of different sizes, a pattern per KV head."""

    @checked
    def __init__(self, float_workspace_buffer: Array | None, backend: str = "auto") -> None:
        self._wrapper = BatchPrefillWithPagedKVCacheWrapper(float_workspace_buffer, "NHD", backend=backend)

    def reset_workspace_buffer(self, float_workspace_buffer: Array, int_workspace_buffer: Array) -> None:
        """Another workspace."""
        self._wrapper.reset_workspace_buffer(float_workspace_buffer, int_workspace_buffer)

    @checked
    def plan(
        self,
        block_mask_map: Array,
        block_row_sz: Array,
        block_col_sz: Array,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        causal: bool = False,
        pos_encoding_mode: str = "NONE",
        use_fp16_qk_reduction: bool = False,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
        non_blocking: bool = True,
        q_data_type: Any = "float16",
        kv_data_type: Any = None,
    ) -> None:
        """block_mask_map: bool [num_kv_heads, MB, NB]; block_row_sz: [num_kv_heads, MB]; block_col_sz: [num_kv_heads,
        NB].

        Each row of sizes sums to the number of queries or keys. A (head, row of blocks) becomes a request of one KV
        head whose pages are single keys. How many there are says block_mask_map: on a GPU it is waited for.
        """
        kept = host_ints(block_mask_map, "int64") != 0
        rows, cols = host_ints(block_row_sz, "int64"), host_ints(block_col_sz, "int64")
        self._check_blocks(kept, rows, cols, num_kv_heads)
        kv_len = int(cols[0].sum())
        pages, page_counts = [], []
        for head in range(num_kv_heads):
            starts = np.concatenate([[0], np.cumsum(cols[head])]) + head * kv_len
            for row in kept[head]:
                keys = [np.arange(starts[c], starts[c + 1]) for c in np.flatnonzero(row)]
                pages.append(np.concatenate(keys) if keys else np.zeros(0, np.int64))
                page_counts.append(len(pages[-1]))
        self._num_kv_heads, self._group = num_kv_heads, num_qo_heads // num_kv_heads
        self._lens = int(rows[0].sum()), kv_len
        indptr = [np.concatenate([[0], np.cumsum(x)]).astype(np.int32) for x in (rows.reshape(-1), page_counts)]
        self._wrapper.plan(
            indptr[0], indptr[1], np.concatenate(pages).astype(np.int32), np.ones(len(page_counts), np.int32),
            self._group, 1,
            head_dim, 1, causal=causal, pos_encoding_mode=pos_encoding_mode,
            use_fp16_qk_reduction=use_fp16_qk_reduction,
            sm_scale=sm_scale, logits_soft_cap=logits_soft_cap, rope_scale=rope_scale, rope_theta=rope_theta,
            q_data_type=q_data_type, kv_data_type=kv_data_type,
        )  # fmt: skip

    begin_forward = plan

    @staticmethod
    def _check_blocks(kept: np.ndarray, rows: np.ndarray, cols: np.ndarray, num_kv_heads: int) -> None:
        """ValueError unless the three fit each other: what is wrong here would read other requests' keys."""
        if kept.ndim != 3 or kept.shape[0] != num_kv_heads:
            raise ValueError(f"plan: block_mask_map has shape {kept.shape}, expected ({num_kv_heads}, MB, NB)")
        for name, sizes, count in (("block_row_sz", rows, kept.shape[1]), ("block_col_sz", cols, kept.shape[2])):
            if sizes.shape != (num_kv_heads, count):
                raise ValueError(f"plan: {name} has shape {sizes.shape}, expected {(num_kv_heads, count)}")
            totals = sizes.sum(1)
            if (sizes < 0).any() or (sizes >= 2**31).any() or (totals != totals[:1]).any() or totals.sum() >= 2**31:
                raise ValueError(f"plan: {name} has sizes below 0, or sums {totals[:4]} that differ or are too large")

    @takes_dlpack
    def run(
        self,
        q: Array,
        k: Array,
        v: Array,
        out: Array | None = None,
        lse: Array | None = None,
        return_lse: bool = False,
        enable_pdl: bool | None = None,
    ) -> Array | tuple[Array, Array]:
        """q: [num_qo_heads, M, head_dim]; k, v: [num_kv_heads, N, head_dim]. Returns like q, and lse [num_qo_heads,
        M].
        """
        if self._wrapper._plan_info is None:
            raise RuntimeError("run() before plan()")
        heads, group = self._num_kv_heads, self._group
        for name, x, shape in (("q", q, (heads * group, self._lens[0])), ("k", k, (heads, self._lens[1])),
                               ("v", v, (heads, self._lens[1]))):  # fmt: skip
            if len(x.shape) != 3 or tuple(x.shape[:2]) != shape:
                raise ValueError(f"run: {name} has shape {tuple(x.shape)}, expected {(*shape, 'head_dim')}, as planned")
        qo_len, dim = q.shape[1], q.shape[2]
        rows = q.reshape(heads, group, qo_len, dim).swapaxes(1, 2).reshape(heads * qo_len, group, dim)
        cache = tuple(x.reshape(heads * x.shape[1], 1, 1, x.shape[2]) for x in (k, v))
        result, sums = self._wrapper.run(rows, cache, return_lse=True)
        result = result.reshape(heads, qo_len, group, -1).swapaxes(1, 2).reshape(heads * group, qo_len, -1)
        sums = sums.reshape(heads, qo_len, group).swapaxes(1, 2).reshape(heads * group, qo_len)
        result, sums = _copied(result, out, "out"), _copied(sums, lse, "lse")
        return (result, sums) if return_lse else result

    def forward(
        self,
        q: Array,
        k: Array,
        v: Array,
        pos_encoding_mode: str = "NONE",
        use_fp16_qk_reduction: bool = False,
        logits_soft_cap: float | None = None,
        sm_scale: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
    ) -> Array:
        """The old run(): these options replace the planned ones."""
        self._wrapper._forward_options(
            self._wrapper._causal, pos_encoding_mode, use_fp16_qk_reduction, -1, logits_soft_cap, sm_scale, rope_scale,
            rope_theta,
        )  # fmt: skip
        return self.run(q, k, v)

    def end_forward(self) -> None:
        """Does nothing."""


def _copied(x: Array, into: Array | None, name: str) -> Array:
    """x itself, or the caller's array with x's values."""
    if into is None:
        return x.contiguous() if is_torch(x) else x
    out_arg(check_out(into, x.shape, dtype_of(x), name), name)
    into[...] = x
    return into
