# SPDX-License-Identifier: Apache-2.0
"""The k largest values of each row, and where a sparse attention finds them."""

from __future__ import annotations

import enum

from ._arrays import Array, arg, empty, takes_dlpack
from ._ffi import lib


class TopKTieBreak(enum.IntEnum):
    """Which of equal values is chosen; NONE means SMALL here: the choice never varies."""

    NONE = 0
    SMALL = 1
    LARGE = 2


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
    shape = (input.shape[0], k)
    values, indices = empty(input, shape), empty(input, shape, "int64")
    lib.top_k(arg(input), arg(values), arg(indices), sorted, tie_break == TopKTieBreak.LARGE)
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
    if out is None:
        out = empty(input, (input.shape[0], k), "int32")
    lib.top_k_transform(
        arg(input), arg(lengths), arg(row_starts), arg(src_page_table), arg(row_to_batch),
        arg(page_table_row_starts), None, arg(out), arg(out_raw_indices), page_size,
        tie_break == TopKTieBreak.LARGE,
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
    out = empty(input, (input.shape[0], k), "int32")
    lib.top_k_transform(
        arg(input), arg(lengths), arg(row_starts), None, None, None, arg(offsets), arg(out), None, 1,
        tie_break == TopKTieBreak.LARGE,
    )  # fmt: skip
    return out


topk = top_k
