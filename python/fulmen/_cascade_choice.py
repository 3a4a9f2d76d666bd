# SPDX-License-Identifier: Apache-2.0
"""Levels or one flat pass, where a cascade's tables lie on a GPU: a kernel predicts which is done first and writes
tables for it. Where that is the flat pass, the levels above have no rows and the last one has the pages of all. Nothing
is read back; a captured graph chooses at each replay (docs/kernels/cascade_cuda.md)."""

from __future__ import annotations

from typing import Any, Sequence

from ._arrays import Array, arg
from ._device_plan import on_device
from ._ffi import is_compiling, lib

MOST_LEVELS = 4
MOST_IDS = 1 << 22  # of the flat batch's pages, 16 MiB: kMostFlatIds of attention/cascade_choice.h


class DeviceChoice:
    """Of one wrapper: the memory of the tables that are chosen."""

    def __init__(self, levels: Sequence[Any]) -> None:
        self._levels = levels
        self._plan: tuple[Any, ...] | None = None
        self._key: Any = None
        self._choice: Any = None
        self._tables: list[Any] = []  # of each level, in place of its own
        self._held: list[Any] = []  # captured graphs may use earlier ones
        self.num_above: Any = None  # how many levels above the last have been run: all, or 0

    def plan(self, shape: Sequence[int], causal: bool, kv_size: int) -> None:
        """What run() needs besides tables, which are the levels' own."""
        self._plan = (tuple(shape), causal, kv_size)
        if self._choice is not None:
            lib.cascade_forget_lengths(self._choice)

    def drop(self) -> None:
        """The levels are run, always."""
        self._plan = None

    def choose(self, q: Array) -> bool:
        """Queues the choice, if it is not made; False: there is none, run the levels."""
        for level in self._levels:
            level._device_plan.tables = None
        if self._plan is None or is_compiling() or not on_device(q):
            return False
        tables = [level._tables()[:4] for level in self._levels]
        if any(not on_device(t) or t.device != q.device for level in tables for t in level):
            return False
        key = (self._plan, tuple(q.shape), [(t.data_ptr(), t.dtype, *t.shape) for level in tables for t in level])
        if key != self._key:
            self._make(q, tables)
            self._key = key
        for level, chosen in zip(self._levels, self._tables):
            level._device_plan.tables = chosen
        lib.cascade_choose(self._choice, arg(q))
        return True

    def _make(self, q: Array, tables: Sequence[Sequence[Any]]) -> None:
        import torch

        assert self._plan is not None
        shape, causal, kv_size = self._plan
        ints = dict(dtype=torch.int32, device=q.device)
        batch, own = len(tables[-1][0]) - 1, len(tables[-1][2])
        ids = max(own, min(MOST_IDS, own + batch * sum(len(level[2]) for level in tables[:-1])))
        rows = [torch.zeros(len(level[0]), **ints) for level in tables[:-1]]
        indptr, last, pages = (torch.zeros(max(n, 1), **ints) for n in (batch + 1, batch, ids))
        self.num_above = torch.zeros(1, **ints)
        of_levels = [x if x is None else arg(x) for level, own in zip(tables, [*rows, None]) for x in (*level, own)]
        written = map(arg, (indptr, last, pages, self.num_above))
        self._choice = lib.cascade_choice(*shape[:3], kv_size, shape[3], causal, q.shape[0], *written, *of_levels)
        self._tables = [*((x, None, None, None) for x in rows), (None, indptr, pages, last[:batch])]
        self._held.append((self._tables, self.num_above))
