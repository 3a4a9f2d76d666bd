# SPDX-License-Identifier: Apache-2.0
"""Whether a cascade is better run as one pass over each request's keys of all levels, and the tables of that pass.

Levels cost launches and a merge; they save reading a shared prefix once per request. Which is more is predicted from
the lengths (`cascade_cost` of the library, measured in docs/kernels/cascade_cuda.md), thus only where the host knows
them.
"""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from ._arrays import host_ints
from ._device_plan import on_device
from ._ffi import lib


class _Level:
    """The tables of one level, read."""

    def __init__(self, tables: Sequence[Any], page_size: int) -> None:
        qo_indptr, kv_indptr, self._indices, last = tables
        self.qo_indptr, self.kv_indptr, self.last = (host_ints(t, "int64") for t in (qo_indptr, kv_indptr, last))
        self.pages = np.diff(self.kv_indptr)
        self.qo_lens = np.diff(self.qo_indptr)
        self.kv_lens = np.where(self.pages > 0, (self.pages - 1) * page_size + self.last, 0)

    def owner_of(self, begins: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
        """The request that holds rows [begins, ends); None where one of them is in several or none."""
        owner = np.searchsorted(self.qo_indptr, begins, side="right") - 1
        inside = (owner >= 0) & (owner < len(self.pages))
        owner = np.clip(owner, 0, max(len(self.pages) - 1, 0))
        return owner if inside.all() and (ends <= self.qo_indptr[owner + 1]).all() else None

    def lists(self) -> list[np.ndarray]:
        """Every request's pages."""
        ids = host_ints(self._indices)
        return [ids[begin:end] for begin, end in zip(self.kv_indptr, self.kv_indptr[1:])]


def is_faster_flat(levels: Sequence[_Level], shape: Sequence[int], kv_size: int) -> bool:
    """Whether one pass is predicted to be faster than the levels."""
    lens = np.concatenate([np.stack((level.qo_lens, level.kv_lens), 1) for level in levels]).astype(np.int32)
    bounds = np.cumsum([0] + [len(level.qo_lens) for level in levels]).astype(np.int32)
    flat, apart = (lib.cascade_cost(lens, bounds, *shape[:3], kv_size, is_flat) for is_flat in (True, False))
    return bool(flat < apart)


def flat_tables(
    workspace: Any, arrays: Sequence[Sequence[Any]], shape: Sequence[int], causal: bool, kv_size: int
) -> tuple[np.ndarray, ...] | None:
    """(qo_indptr, kv_indptr, kv_indices, last_page_len) of one pass, int32; None: run the levels.

    arrays: these tables of each level, as the wrapper takes them. shape: heads, KV heads, head dim, page size.
    """
    if len(arrays[0]) < 2 or not on_device(workspace) or any(on_device(t) for array in arrays for t in array):
        return None
    page_size = shape[3]
    *shared, own = (_Level(tables, page_size) for tables in zip(*arrays))
    busy = own.qo_lens > 0
    begins, ends = own.qo_indptr[:-1][busy], own.qo_indptr[1:][busy]
    owners = [level.owner_of(begins, ends) for level in shared]
    if any(o is None for o in owners):
        return None
    for level, o in zip(shared, owners):
        if (level.kv_lens[o] % page_size != 0).any():  # another request's keys would follow inside the page
            return None
    if causal and (own.kv_lens < own.qo_lens)[busy].any():  # the first rows would lose keys of the prefix
        return None
    if not is_faster_flat((*shared, own), shape, kv_size):
        return None
    return _joined(shared, owners, own, busy, page_size)


def _joined(
    shared: Sequence[_Level], owners: Sequence[np.ndarray], own: _Level, busy: np.ndarray, page_size: int
) -> tuple[np.ndarray, ...]:
    lists, last = [], np.where(own.pages > 0, own.last, page_size)
    places, above = np.cumsum(busy) - 1, [level.lists() for level in shared]
    for request, pages in enumerate(own.lists()):
        of_levels = [ids[o[places[request]]] for ids, o in zip(above, owners) if busy[request]]
        lists.append(np.concatenate([*of_levels, pages]))
    counts = [len(x) for x in lists]
    last = np.where(np.array(counts) > 0, last, 1)
    tables = own.qo_indptr, np.cumsum([0, *counts]), np.concatenate([*lists, np.zeros(0, np.int64)]), last
    return tuple(np.ascontiguousarray(t, dtype=np.int32) for t in tables)
