# SPDX-License-Identifier: Apache-2.0
"""Wrappers by their numbers; and copied or pickled: tables and options go with the copy, its plan is made anew."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

from ._device_plan import DevicePlan

# What belongs to one wrapper alone: the library's plan, and what points back at the wrapper.
_OWN = ("_handle", "_plan_info", "_cached_module", "_workspace_arg", "_device_plan")


_wrappers: weakref.WeakValueDictionary[int, Replanned] = weakref.WeakValueDictionary()
_handles = itertools.count()


def wrapper_of(handle: int) -> Any:
    """The wrapper behind the number that stands for it in PyTorch's graphs."""
    return _wrappers[handle]


class Replanned:
    """A planned wrapper's number, copies and pickles. Subclasses have _make_plan."""

    def _register(self) -> None:
        self._handle = next(_handles)
        _wrappers[self._handle] = self

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in _OWN}
        return {**state, "is_planned": self.__dict__["_plan_info"] is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        is_planned = state.pop("is_planned")
        self.__dict__.update(state, _plan_info=None, _cached_module=None, _device_plan=DevicePlan())
        self._register()
        if is_planned:
            self._make_plan()  # type: ignore[attr-defined]
