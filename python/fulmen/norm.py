# SPDX-License-Identifier: Apache-2.0
"""Normalisation of rows. Arrays: NumPy, PyTorch or DLPack; float32, float16 or bfloat16; computed in float32."""

from __future__ import annotations

from typing import Any

from ._arrays import Array, arg, empty_like, filled, general, is_plain, out_arg, takes_dlpack
from ._ffi import lib


def rmsnorm(
    input: Array, weight: Array, eps: float = 1e-6, out: Array | None = None, enable_pdl: bool | None = None
) -> Array:
    """input / sqrt(mean(input²) + eps) * weight, per row.

    input: [num_tokens, hidden_size] or [num_tokens, num_heads, hidden_size], last axis contiguous.
    weight: [hidden_size], input's dtype or float32. out: like input, may be input. Returns out.
    enable_pdl: whether the kernel may start while the stream's previous one ends; None: fulmen.dependent_launch().
    Raises ValueError on a shape, dtype or eps that does not fit.
    """
    if not is_plain(input, enable_pdl):
        return general(rmsnorm, input, weight, eps, out, enable_pdl)
    if out is None:
        out = empty_like(input)
    lib.rmsnorm(arg(input), arg(weight), out_arg(out), None, eps, 0.0)
    return out


def gemma_rmsnorm(
    input: Array, weight: Array, eps: float = 1e-6, out: Array | None = None, enable_pdl: bool | None = None
) -> Array:
    """rmsnorm with 1 + weight in the place of weight."""
    if not is_plain(input, enable_pdl):
        return general(gemma_rmsnorm, input, weight, eps, out, enable_pdl)
    if out is None:
        out = empty_like(input)
    lib.rmsnorm(arg(input), arg(weight), out_arg(out), None, eps, 1.0)
    return out


def fused_add_rmsnorm(
    input: Array, residual: Array, weight: Array, eps: float = 1e-6, enable_pdl: bool | None = None
) -> None:
    """residual += input, then input = rmsnorm(residual) * weight; both in place. Shapes as in rmsnorm."""
    if not is_plain(input, enable_pdl):
        general(fused_add_rmsnorm, input, residual, weight, eps, enable_pdl)
        return
    x = out_arg(input, "input")
    lib.fused_add_rmsnorm(x, out_arg(residual, "residual"), arg(weight), x, None, eps, 0.0)


def gemma_fused_add_rmsnorm(
    input: Array, residual: Array, weight: Array, eps: float = 1e-6, enable_pdl: bool | None = None
) -> None:
    """fused_add_rmsnorm with 1 + weight in the place of weight."""
    if not is_plain(input, enable_pdl):
        general(gemma_fused_add_rmsnorm, input, residual, weight, eps, enable_pdl)
        return
    x = out_arg(input, "input")
    lib.fused_add_rmsnorm(x, out_arg(residual, "residual"), arg(weight), x, None, eps, 1.0)


@takes_dlpack
def layernorm(input: Array, gemma: Array, beta: Array, eps: float = 1e-6) -> Array:
    """(input - mean) / sqrt(variance + eps) * gemma + beta, per row.

    input: [num_tokens, hidden_size]; gemma (FlashInfer's name of gamma) and beta: [hidden_size], float32 or input's
    dtype.
    """
    out = empty_like(input)
    lib.layernorm(arg(input), arg(gemma), arg(beta), arg(out), None, eps)
    return out


def _scale_array(scale: Any, like: Array) -> Array:
    return scale.reshape(1) if hasattr(scale, "shape") else filled(like, (1,), scale, "float32")


@takes_dlpack
def rmsnorm_quant(
    out: Array, input: Array, weight: Array, scale: Any, eps: float = 1e-6, enable_pdl: bool | None = None
) -> None:
    """out = fp8(rmsnorm(input) / scale), saturating. out: like input, float8_e4m3fn or float8_e5m2; scale: float32
    [1].
    """
    lib.rmsnorm(arg(input), arg(weight), out_arg(out), arg(_scale_array(scale, input)), eps, 0.0)


@takes_dlpack
def fused_add_rmsnorm_quant(
    out: Array,
    input: Array,
    residual: Array,
    weight: Array,
    scale: Any,
    eps: float = 1e-6,
    enable_pdl: bool | None = None,
) -> None:
    """residual += input; out = fp8(rmsnorm(residual) / scale), saturating. input is not written."""
    scale = arg(_scale_array(scale, input))
    lib.fused_add_rmsnorm(arg(input), out_arg(residual, "residual"), arg(weight), out_arg(out), scale, eps, 0.0)


@takes_dlpack
def layernorm_quant(out: Array, input: Array, gemma: Array, beta: Array, scale: Any, eps: float = 1e-6) -> None:
    """out = fp8(layernorm(input) / scale), saturating. scale: float32 [1] or a number."""
    lib.layernorm(arg(input), arg(gemma), arg(beta), out_arg(out), arg(_scale_array(scale, input)), eps)
