# SPDX-License-Identifier: Apache-2.0
"""enable_pdl of a call: True and False decide for that call, None leaves it to fulmen.set_dependent_launch."""

from __future__ import annotations

import functools
from typing import Any, Callable

import numpy as np

from ._ffi import is_compiling, lib


def place_of_pdl(function: Callable[..., Any]) -> int | None:
    """Where enable_pdl stands among the arguments; None where there is none."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    return names.index("enable_pdl") if "enable_pdl" in names else None


def default_of_pdl(function: Callable[..., Any]) -> bool | None:
    place, defaults = place_of_pdl(function), function.__defaults__ or ()
    return None if place is None else defaults[place - function.__code__.co_argcount]


def as_asked(on: bool | None, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The function's result, its launches as enable_pdl says. What PyTorch traces runs as the process is set."""
    if on is None or is_compiling():
        return function(*args, **kwargs)
    if on is not True and on is not False and not (isinstance(on, (int, np.bool_)) and on in (0, 1)):
        raise TypeError(f"{function.__name__}: enable_pdl is {str(on)[:40]!r}, expected True, False or None")
    before = lib.ask_dependent_launch(bool(on))
    try:
        return function(*args, **kwargs)
    finally:
        lib.ask_dependent_launch(before)


def asks_pdl(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its launches as its argument enable_pdl says; unchanged where it has none."""
    place, default = place_of_pdl(function), default_of_pdl(function)
    if place is None:
        return function

    @functools.wraps(function)
    def asking(*args: Any, **kwargs: Any) -> Any:
        on = args[place] if len(args) > place else kwargs.get("enable_pdl", default)
        return as_asked(on, function, *args, **kwargs)

    return asking
