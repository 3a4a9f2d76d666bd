# SPDX-License-Identifier: Apache-2.0
"""The k largest values of each row."""

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


topk = top_k
