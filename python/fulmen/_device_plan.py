# SPDX-License-Identifier: Apache-2.0
"""Where a wrapper keeps its plan when its tables lie on a GPU: nothing is read, copied back or waited for.

The first run after plan() launches the kernel that plans, and so does the first run that a stream capture records; a
captured graph thus follows the tables it is replayed over. The plan's lists lie in memory of the wrapper's own, so that
wrappers may share a float_workspace_buffer, as engines do.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any

from ._arrays import Array, arg, is_torch, out_arg
from ._ffi import lib


def on_device(x: Any) -> bool:
    """Whether x is a tensor in a GPU's memory."""
    return is_torch(x) and not x.is_cpu


def to_device(x: Any, device: Any) -> Any:
    """A table of integers in the device's memory; a copy is queued, not waited for."""
    if x is None or (is_torch(x) and x.device == device):
        return x
    if not is_torch(x):
        import torch

        x = torch.from_numpy(x)
    return x.to(device, non_blocking=True)


def near(x: Any, q: Any) -> Any:
    """x, a NumPy array too, in the memory of the GPU where q lies; as it is if q lies on the host."""
    return to_device(x, q.device) if on_device(q) else x


def as_bytes(buffer: Any) -> Any:
    """A flat view of uint8 of a PyTorch tensor."""
    import torch

    return buffer.view(torch.uint8).reshape(-1) if buffer.dtype != torch.uint8 else buffer.reshape(-1)


@functools.lru_cache(maxsize=64)
def slopes_on(device: Any, num_qo_heads: int) -> Any:
    """ALiBi's slopes in the device's memory."""
    import torch

    from .utils import alibi_slopes

    return torch.from_numpy(alibi_slopes(num_qo_heads)).to(device)


def alibi_slopes_for(q: Array, pos_encoding_mode: str, num_qo_heads: int) -> Any:
    """Slopes float32 [num_qo_heads] where q lies, when the mode is ALIBI."""
    if pos_encoding_mode != "ALIBI":
        return None
    if on_device(q):
        return slopes_on(q.device, num_qo_heads)
    from .utils import alibi_slopes

    return alibi_slopes(num_qo_heads)


class OnDevice:
    """A wrapper's _plan_info where its DevicePlan will plan."""


class DevicePlan:
    """The plan of one wrapper; made anew where shapes, options or the addresses of tables change."""

    def __init__(self) -> None:
        self._plan: Any = None
        self._key: Any = None
        self._held: Any = None  # tables that the plan points to
        self._memory: list[Any] = []  # of the plan's lists; earlier ones may be in captured graphs
        self._workspaces: list[Any] = []  # where the wrapper was given none; the same
        self._flat: Any = None  # the wrapper's workspace and its bytes
        self._is_stale = True
        self.tables: Any = None  # of a cascade's level: those of the first four that stand for the wrapper's own
        self.above: Any = None  # what its results take in: the levels' above, and how many of them there are
        self._version = 0  # of the plan
        self._beside: DevicePlan | None = None  # of a batch that this one's runs beside
        self._waits = False  # runs are left to another plan's, which runs beside this one's
        self._waiting: Any = None  # such a run

    def forget_lengths(self) -> None:
        """Tables have other contents, or are other tables."""
        self._is_stale = True

    def run(
        self, wrapper: Any, q: Array, k: Array, v: Array, out: Array, lse: Array | None, sinks: Any, scales: Any,
        extras: tuple[Any, ...] | None = None,
    ) -> None:  # fmt: skip
        """Plans if need be, and runs. extras: a variant and what it gets; None where there is none."""
        if self._is_stale or q.shape[0] != self._key[0] or self._is_beside_another():
            self._update(wrapper, q, k, v, out)
        if self._waits or (self._beside is not None and self._beside._waiting is not None):
            mine = [
                self._plan, arg(q), arg(k), arg(v), out_arg(out), None if lse is None else out_arg(lse, "lse"), sinks,
                self._workspace_for(wrapper, q), *scales, *([None] if extras is None else extras[0].native(extras[1])),
            ]  # fmt: skip
            if self._beside is None:
                self._waiting = mine
            else:
                lib.attention_run_beside(*mine, *self._beside._waiting)
                self._beside._waiting = None
            return None
        if extras is not None:
            return extras[0].run(self._plan, q, k, v, out, lse, self._workspace_for(wrapper, q), extras[1])
        if self.above is not None:
            values, lses, num = (None if x is None else arg(x) for x in self.above)
            return lib.attention_run_level(
                self._plan, arg(q), arg(k), arg(v), out_arg(out), None if lse is None else out_arg(lse, "lse"),
                self._workspace_for(wrapper, q), *scales, values, lses, num,
            )  # fmt: skip
        lib.attention_run(
            self._plan, arg(q), arg(k), arg(v), out_arg(out), None if lse is None else out_arg(lse, "lse"), sinks,
            self._workspace_for(wrapper, q), *scales,
        )  # fmt: skip

    def _is_beside_another(self) -> bool:
        return self._beside is not None and self._key[-1] != self._beside._version

    @contextlib.contextmanager
    def beside(self, other: DevicePlan) -> Iterator[None]:
        """Inside, the other's run comes first, and is left to this one's: both run at once where that pays."""
        self._beside, other._waits = other, True
        try:
            yield
            if other._waiting is not None:
                raise ValueError("run: the prefill's q lies on a GPU, the decodes' in host memory")
        finally:
            self._beside, other._waits, other._waiting = None, False, None

    def _update(self, wrapper: Any, q: Array, k: Array, v: Array, out: Array) -> None:
        wrapper._check_cache(k)
        tables = wrapper._device_tables(q.device)
        if self.tables is not None:
            tables = (*(own if t is None else t for t, own in zip(self.tables, tables)), *tables[4:])
        places = [None if t is None else (t.data_ptr(), *t.shape) for t in tables]
        shapes = (q.shape[0], tuple(q.shape), k.shape[-1], v.shape[-1], k.dtype, out.dtype)
        options = (wrapper._state(), wrapper._fixed_split_len, wrapper._disable_split, wrapper._kv_layout)
        room = getattr(wrapper._float_workspace_buffer, "nbytes", None)
        beside = None if self._beside is None else self._beside._version
        key = (*shapes, *options, wrapper._entry, room, *places, beside)
        if key == self._key:
            lib.attention_forget_lengths(self._plan)
        else:
            self._make(wrapper, tables, q, k, v, out)
            self._key, self._held = key, tables
        self._is_stale = False

    def _make(self, wrapper: Any, tables: Any, q: Array, k: Array, v: Array, out: Array) -> None:
        slopes = alibi_slopes_for(q, wrapper._pos_encoding_mode, wrapper._num_qo_heads)
        buffer = wrapper._float_workspace_buffer
        workspace = None if buffer is None or not on_device(buffer) else as_bytes(buffer)
        plan = lib.attention_plan
        if self._beside is not None:
            plan = functools.partial(lib.attention_plan_beside, self._beside._plan)
        self._plan = plan(
            wrapper._entry, arg(q), arg(k), arg(v), *map(arg, tables[:6]), out_arg(out), None, *map(arg, tables[6:]),
            slopes, None, workspace, *wrapper._plan_options(),
        )  # fmt: skip
        self._version += 1
        needed = int(lib.attention_plan_bytes(self._plan))
        if not self._memory or self._memory[-1].shape[0] < needed or self._memory[-1].device != q.device:
            import torch

            self._memory.append(torch.empty(needed + needed // 4, dtype=torch.uint8, device=q.device))
        lib.attention_keep_plan(self._plan, self._memory[-1])
        self._needed = int(lib.attention_workspace_bytes(self._plan))

    def _workspace_for(self, wrapper: Any, q: Array) -> Any:
        buffer = wrapper._float_workspace_buffer
        if buffer is not None and on_device(buffer):
            size = math.prod(buffer.shape) * buffer.element_size()
            if size < self._needed:
                raise RuntimeError(f"float_workspace_buffer has {size} bytes; this plan needs {self._needed}")
            if self._flat is None or self._flat[0] is not buffer:
                self._flat = (buffer, as_bytes(buffer))
            return self._flat[1]
        if not self._workspaces or self._workspaces[-1].shape[0] < self._needed:
            import torch

            self._workspaces.append(torch.empty(self._needed, dtype=torch.uint8, device=q.device))
        return self._workspaces[-1]
