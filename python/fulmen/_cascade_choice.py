# SPDX-License-Identifier: Apache-2.0
"""Levels or one flat pass, where a cascade's tables lie on a GPU: a kernel predicts which is done first, joins the page
lists for the flat pass and leaves the other form without rows. Nothing is read back; a captured graph chooses at each
replay (docs/kernels/cascade_cuda.md)."""

from __future__ import annotations

from typing import Any, Sequence

from ._arrays import Array, arg
from ._device_plan import on_device
from ._ffi import is_compiling, lib

MOST_LEVELS = 4
MOST_IDS = 1 << 22  # of the flat batch's pages: 16 MiB


class DeviceChoice:
    """Of one wrapper: its tables' memory, and the flat batch over them."""

    def __init__(self, flat: Any, levels: Sequence[Any]) -> None:
        self._flat, self._levels = flat, levels
        self._plan: tuple[Any, ...] | None = None
        self._key: Any = None
        self._choice: Any = None
        self._rows: list[Any] = []
        self._held: list[Any] = []  # captured graphs may use earlier ones
        self.mask: Any = None

    def plan(self, shape: Sequence[int], causal: bool, kv_size: int, options: dict[str, Any]) -> None:
        """What run() needs besides tables, which are the levels' own."""
        self._plan = (tuple(shape), causal, kv_size, tuple(sorted(options.items(), key=str)))
        if self._choice is not None:
            lib.cascade_forget_lengths(self._choice)
            self._flat._device_plan.forget_lengths()

    def drop(self) -> None:
        """The levels are run, always."""
        self._plan = None

    def choose(self, q: Array) -> bool:
        """Queues the choice, if it is not made; False: there is none, run the levels."""
        for level in self._levels:
            level._device_plan.rows = None
        if self._plan is None or is_compiling() or not on_device(q):
            return False
        tables = [level._tables()[:4] for level in self._levels]
        if any(not on_device(t) or t.device != q.device for level in tables for t in level):
            return False
        key = (self._plan, tuple(q.shape), [(t.data_ptr(), t.dtype, *t.shape) for level in tables for t in level])
        if key != self._key:
            self._make(q, tables)
            self._key = key
        for level, rows in zip(self._levels, self._rows):
            level._device_plan.rows = rows
        lib.cascade_choose(self._choice)
        return True

    def _make(self, q: Array, tables: Sequence[Sequence[Any]]) -> None:
        import torch

        assert self._plan is not None
        shape, causal, kv_size, options = self._plan
        ints = dict(dtype=torch.int32, device=q.device)
        batch = len(tables[-1][0]) - 1
        ids = len(tables[-1][2]) + batch * sum(len(level[2]) for level in tables[:-1])
        rows = [torch.zeros(len(level[0]), **ints) for level in tables]
        flat = [torch.zeros(n, **ints) for n in (batch + 1, batch + 1, max(min(ids, MOST_IDS), 1), batch)]
        self.mask = torch.zeros(q.shape[0], dtype=torch.uint8, device=q.device)
        of_levels = [arg(t) for level, own in zip(tables, rows) for t in (*level, own)]
        self._choice = lib.cascade_choice(
            *shape[:3], kv_size, shape[3], causal, *(arg(flat[i]) for i in (0, 1, 3, 2)), arg(self.mask), *of_levels
        )
        self._rows = rows
        self._held.append((rows, flat, self.mask))
        self._flat.plan(*flat, *shape, causal=causal, **dict(options))
