# SPDX-License-Identifier: Apache-2.0
"""FlashInfer 0.6 inserted o_data_type in the middle of plan()'s positional arguments; callers of both orders exist."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def o_data_type_may_come_before(name: str, is_new_order: Callable[[tuple[Any, ...]], bool]) -> Callable[[F], F]:
    """Lets a method be called with o_data_type before argument `name`, as newer FlashInfer does, or only by keyword.

    is_new_order is asked about the positional arguments from `name` on.
    """

    def decorate(method: F) -> F:
        position = inspect.unwrap(method).__code__.co_varnames.index(name)

        @functools.wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if len(args) > position and is_new_order(args[position:]):
                if "o_data_type" in kwargs:
                    raise TypeError("plan() got multiple values for argument 'o_data_type'")
                kwargs["o_data_type"] = args[position]
                args = args[:position] + args[position + 1 :]
            return method(*args, **kwargs)

        return wrapped  # type: ignore[return-value]

    return decorate
