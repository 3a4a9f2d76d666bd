# SPDX-License-Identifier: Apache-2.0
"""Scales of attention given as numbers, or as tensors of one element: those in a GPU's memory are not waited for."""

from __future__ import annotations

from typing import Any

from ._arrays import Array, cast, dtype_of, empty, scalar
from ._device_plan import on_device


def product(factors: dict[str, Any]) -> tuple[float, Any]:
    """(the product of what the host knows, that of the tensors of a GPU or None); a factor of None is 1."""
    number, tensor = 1.0, None
    for name, x in factors.items():
        if not on_device(x):
            factor = scalar(x, name, 1.0)
            if not abs(factor) < float("inf"):  # type: ignore[arg-type]
                raise ValueError(f"{name} is {factor}, expected a finite number")
            number *= factor  # type: ignore[operator]
            continue
        if x.numel() != 1:
            raise NotImplementedError(
                f"{name}: a tensor of {x.numel()} values; only one value per tensor is implemented"
            )
        x = x.reshape(()).float()
        tensor = x if tensor is None else tensor * x
    return number, tensor


class Scaled:
    """What the kernel gets: q, a number for the logits, another for the outputs, and out, until finish().

    A tensor of a GPU multiplies q, which rounds it to its dtype, or float32 outputs.
    """

    def __init__(
        self, q: Array, out: Array, of_logits: dict[str, Any], of_values: dict[str, Any], apart: bool = False
    ) -> None:
        """apart: the kernel takes no number for the outputs."""
        self.logits, factor = product(of_logits)
        self.q = q if factor is None else (q.float() * factor).to(q.dtype)
        self.values, self._factor = product(of_values)
        if apart and self.values != 1:
            self._factor = self.values if self._factor is None else self._factor * self.values
            self.values = 1.0
        self._result = out
        self.out = out if self._factor is None else empty(out, out.shape, "float32")

    def finish(self) -> None:
        """Writes the result where it belongs."""
        if self._factor is not None:
            self._result[...] = cast(self.out * self._factor, dtype_of(self._result))
