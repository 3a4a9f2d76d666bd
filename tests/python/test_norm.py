# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from conftest import FLOATS, assert_near, dtype_name, f64

import fulmen


def rms(x, w, eps, bias=0.0):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * (bias + w)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(1, 8), (5, 128), (3, 4, 64), (7, 4096), (0, 64)])
@pytest.mark.parametrize("function, bias", [(fulmen.rmsnorm, 0.0), (fulmen.gemma_rmsnorm, 1.0)])
def test_rmsnorm(xp, rng, dtype, shape, function, bias):
    x, w = xp.array(rng.normal(size=shape) * 3, dtype), xp.array(rng.normal(size=shape[-1]), dtype)
    y = function(x, w, eps=1e-5)
    assert xp.owns(y) and dtype_name(y) == dtype
    assert_near(y, rms(f64(x), f64(w), 1e-5, bias))


def test_rmsnorm_writes_out_and_returns_it(xp, rng):
    x, w = xp.array(rng.normal(size=(4, 64)), "float32"), xp.array(rng.normal(size=64), "float32")
    out = xp.empty((4, 64), "float32")
    assert fulmen.rmsnorm(x, w, out=out) is out
    expected = rms(f64(x), f64(w), 1e-6)
    assert_near(out, expected)
    assert fulmen.rmsnorm(x, w, 1e-6, x, True) is x  # in place, all positional
    assert_near(x, expected)


def test_rmsnorm_honours_row_strides(xp, rng):
    whole = xp.array(rng.normal(size=(6, 100)), "bfloat16")
    w = xp.array(rng.normal(size=64), "bfloat16")
    assert_near(fulmen.rmsnorm(whole[::2, :64], w), rms(f64(whole)[::2, :64], f64(w), 1e-6))


def test_rmsnorm_reads_read_only_numpy_and_refuses_to_write_it(rng):
    x, w = rng.normal(size=(2, 32)).astype(np.float32), np.ones(32, np.float32)
    x.flags.writeable = False
    assert_near(fulmen.rmsnorm(x, w), rms(f64(x), f64(w), 1e-6))
    with pytest.raises(ValueError, match="read-only"):
        fulmen.rmsnorm(np.zeros_like(x), w, out=x)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("function, bias", [(fulmen.fused_add_rmsnorm, 0.0), (fulmen.gemma_fused_add_rmsnorm, 1.0)])
def test_fused_add_rmsnorm_is_in_place(xp, rng, dtype, function, bias):
    x, r = (xp.array(rng.normal(size=(6, 256)), dtype) for _ in range(2))
    w = xp.array(rng.normal(size=256), dtype)
    total = f64(x) + f64(r)
    assert function(x, r, w, 1e-6) is None
    assert_near(r, total, scale=1.0)
    assert_near(x, rms(total, f64(w), 1e-6, bias), ulps=2 if dtype != "float32" else 8)


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_layernorm(xp, rng, weights):
    x = xp.array(rng.normal(size=(5, 96)) + 3, "bfloat16")
    gamma, beta = (xp.array(rng.normal(size=96), weights) for _ in range(2))
    v = f64(x)
    expected = (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-6) * f64(gamma) + f64(beta)
    y = fulmen.layernorm(x, gamma, beta)
    assert xp.owns(y)
    assert_near(y, expected, scale=1.0)


@pytest.mark.parametrize("fp8", ["float8_e4m3fn", "float8_e5m2"])
def test_rmsnorm_quant(xp, rng, fp8):
    x, w = xp.array(rng.normal(size=(3, 64)), "bfloat16"), xp.array(rng.normal(size=64), "bfloat16")
    out = xp.empty((3, 64), fp8)
    assert fulmen.rmsnorm_quant(out, x, w, xp.array([0.5], "float32")) is None
    expected = rms(f64(x), f64(w), 1e-6) / 0.5
    assert_near(out, expected, ulps=1.0, scale=2.0**-6)
    again = xp.empty((3, 64), fp8)
    fulmen.rmsnorm_quant(again, x, w, 0.5)
    assert (f64(again) == f64(out)).all()
    residual = xp.array(np.zeros((3, 64)), "bfloat16")
    fulmen.norm.fused_add_rmsnorm_quant(again, x, residual, w, 0.5)
    assert (f64(again) == f64(out)).all() and (f64(residual) == f64(x)).all()


def test_errors_carry_the_librarys_text(xp):
    x, w = xp.empty((4, 64), "float32"), xp.empty((63,), "float32")
    with pytest.raises(ValueError, match=r"rmsnorm: weight dim 0 \(hidden_size\) is 63, expected 64"):
        fulmen.rmsnorm(x, w)
    with pytest.raises(ValueError, match="rmsnorm: weight dtype is int32"):
        fulmen.rmsnorm(x, xp.empty((64,), "int32"))
    with pytest.raises(ValueError, match="eps"):
        fulmen.rmsnorm(x, xp.empty((64,), "float32"), eps=0.0)
    with pytest.raises(TypeError):
        fulmen.rmsnorm(x, w, nonsense=1)
