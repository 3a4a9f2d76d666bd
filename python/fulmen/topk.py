# SPDX-License-Identifier: Apache-2.0
"""The k largest values of each row, and where a sparse attention finds them."""

from __future__ import annotations

import enum
from typing import Any

from ._arrays import Array, arg, empty, out_arg, takes_dlpack
from ._ffi import lib


class TopKTieBreak(enum.IntEnum):
    """Which of equal values is chosen; NONE means SMALL here: the choice never varies."""

    NONE = 0
    SMALL = 1
    LARGE = 2


def _size_of(op: str, input: Array, k: Any) -> tuple[int, int]:
    """(num_rows, k); raises TypeError or ValueError where no output of that shape makes sense."""
    if isinstance(k, bool) or not hasattr(k, "__index__"):
        raise TypeError(f"{op}: k is {k!r}, expected an integer")
    if not hasattr(input, "shape") or len(input.shape) != 2:
        what = f"has shape {tuple(input.shape)}" if hasattr(input, "shape") else f"is a {type(input).__name__}"
        raise ValueError(f"{op}: input {what}, expected an array [num_rows, row_len]")
    if not 0 <= k <= input.shape[1]:
        raise ValueError(f"{op}: k is {k}, expected 0 to row_len {input.shape[1]}")
    return input.shape[0], int(k)


def _prefers_large(op: str, tie_break: int) -> bool:
    if tie_break not in (TopKTieBreak.NONE, TopKTieBreak.SMALL, TopKTieBreak.LARGE):
        raise ValueError(f"{op}: tie_break is {tie_break!r}, expected a TopKTieBreak")
    return tie_break == TopKTieBreak.LARGE


@takes_dlpack
def top_k(
    input: Array,
    k: int,
    sorted: bool = False,
    deterministic: bool = False,
    tie_break: int = TopKTieBreak.NONE,
    dsa_graph_safe: bool = False,
) -> tuple[Array, Array]:
    """(values [num_rows, k] of input's dtype, indices int64 [num_rows, k]) of input [num_rows, row_len].

    sorted: largest first, else in index order. deterministic and dsa_graph_safe hold always.
    """
    shape = _size_of("top_k", input, k)
    values, indices = empty(input, shape), empty(input, shape, "int64")
    lib.top_k(arg(input), arg(values), arg(indices), sorted, _prefers_large("top_k", tie_break))
    return values, indices


@takes_dlpack
def top_k_page_table_transform(
    input: Array,
    src_page_table: Array,
    lengths: Array,
    k: int,
    row_to_batch: Array | None = None,
    deterministic: bool = False,
    tie_break: int = TopKTieBreak.NONE,
    dsa_graph_safe: bool = False,
    row_starts: Array | None = None,
    page_table_row_starts: Array | None = None,
    *,
    page_size: int = 1,
    out: Array | None = None,
    out_raw_indices: Array | None = None,
) -> Array:
    """int32 [num_rows, k]: slots of the k best-scored tokens of each row of input [num_rows, row_len].

    Of row r, the lengths[r] elements from row_starts[r] (default 0) are scores. Token i of them is looked up in row
    row_to_batch[r] (default r) of src_page_table [batch_size, max_pages], page_table_row_starts[r] (default 0) tokens
    further on: page * page_size + the token's place in it. In index order, -1 beyond the length.
    out_raw_indices: gets i itself. deterministic and dsa_graph_safe hold always.
    """
    op = "top_k_page_table_transform"
    shape = _size_of(op, input, k)
    if out is None:
        out = empty(input, shape, "int32")
    elif tuple(getattr(out, "shape", shape)) != shape:
        raise ValueError(f"{op}: out has shape {tuple(out.shape)}, expected {shape}")
    raw = None if out_raw_indices is None else out_arg(out_raw_indices, "out_raw_indices")
    lib.top_k_transform(
        arg(input), arg(lengths), arg(row_starts), arg(src_page_table), arg(row_to_batch),
        arg(page_table_row_starts), None, out_arg(out), raw, page_size, _prefers_large(op, tie_break),
    )  # fmt: skip
    return out


@takes_dlpack
def top_k_ragged_transform(
    input: Array,
    offsets: Array,
    lengths: Array,
    k: int,
    deterministic: bool = False,
    tie_break: int = TopKTieBreak.NONE,
    dsa_graph_safe: bool = False,
    row_starts: Array | None = None,
) -> Array:
    """int32 [num_rows, k]: offsets[r] + i of the k best-scored tokens i of each row, as top_k_page_table_transform."""
    op = "top_k_ragged_transform"
    out = empty(input, _size_of(op, input, k), "int32")
    lib.top_k_transform(
        arg(input), arg(lengths), arg(row_starts), None, None, None, arg(offsets), arg(out), None, 1,
        _prefers_large(op, tie_break),
    )  # fmt: skip
    return out


topk = top_k
