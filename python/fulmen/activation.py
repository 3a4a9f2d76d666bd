# SPDX-License-Identifier: Apache-2.0
"""Gated activations: act(gate) * up of an array [gate | up]. float32, float16 or bfloat16; computed in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ._arrays import Array, arg, dtype_of, empty, general, is_plain, joined, out_arg, takes_dlpack
from ._ffi import lib


def _act_and_mul(input: Array, out: Array | None, activation: str) -> Array:
    shape = input.shape
    shape = (*shape[:-1], shape[-1] // 2)
    if out is None:
        out = empty(input, shape)
    elif not hasattr(out, "shape"):
        raise TypeError(f"{activation}_and_mul: out is a {type(out).__name__}, expected an array")
    elif tuple(out.shape) != shape:
        raise ValueError(f"{activation}_and_mul: out has shape {tuple(out.shape)}, expected {shape}")
    elif dtype_of(out) != dtype_of(input):
        raise ValueError(f"{activation}_and_mul: out has dtype {dtype_of(out)}, expected {dtype_of(input)}")
    x, y = (input, out) if len(shape) in (2, 3) else (_rows(input), _rows(out))
    lib.act_and_mul(arg(x), out_arg(y), activation)
    return out


def _rows(x: Array) -> Array:
    """The same memory as [rows, n] or [rows, m, n]; the op takes at most three dimensions."""
    if x.ndim == 1:
        return x[None]
    try:
        return joined(x, (math.prod(x.shape[:-2]), *x.shape[-2:]))
    except ValueError:
        raise ValueError(
            f"an array of shape {tuple(x.shape)} whose leading dimensions cannot be joined; make it contiguous"
        ) from None


def silu_and_mul(input: Array, out: Array | None = None, enable_pdl: bool | None = None) -> Array:
    """silu(input[..., :d]) * input[..., d:], silu(x) = x / (1 + e^-x).

    input: [..., 2 * d]; out: [..., d], input's dtype. Returns out. Raises ValueError on another shape or dtype.
    """
    if not is_plain(input, enable_pdl):
        return general(silu_and_mul, input, out, enable_pdl)
    return _act_and_mul(input, out, "silu")


def gelu_and_mul(input: Array, out: Array | None = None, enable_pdl: bool | None = None) -> Array:
    """gelu(input[..., :d]) * input[..., d:], the exact gelu with erf. Shapes as in silu_and_mul."""
    if not is_plain(input, enable_pdl):
        return general(gelu_and_mul, input, out, enable_pdl)
    return _act_and_mul(input, out, "gelu")


def gelu_tanh_and_mul(input: Array, out: Array | None = None, enable_pdl: bool | None = None) -> Array:
    """gelu(input[..., :d]) * input[..., d:], gelu's approximation with tanh. Shapes as in silu_and_mul."""
    if not is_plain(input, enable_pdl):
        return general(gelu_tanh_and_mul, input, out, enable_pdl)
    return _act_and_mul(input, out, "gelu_tanh")


@takes_dlpack
def elementwise(
    text: str, *inputs: Array, out: Array | None = None, numbers: Sequence[float] = (), name: str = "elementwise"
) -> Array:
    """An operator of your own on a GPU: text is the body of a function of floats a, b, c, d and of s, the numbers.

    inputs: one to four arrays of one shape, float or FP8; out: the same shape, None for a new one like the first. The
    text is compiled at its first call and cached. ValueError starts with the text's own line where it does not compile.
    """
    if not 1 <= len(inputs) <= 4:
        raise ValueError(f"{name}: {len(inputs)} inputs, expected 1 to 4")
    out = empty(inputs[0], inputs[0].shape) if out is None else out
    a, b, c, d = (None if x is None else arg(_rows(x)) for x in (*inputs, None, None, None)[:4])
    lib.elementwise(text, name, a, b, c, d, out_arg(_rows(out)), [float(x) for x in numbers])
    return out
