# SPDX-License-Identifier: Apache-2.0
"""Activation, RoPE, page and quantization functions against float64."""

import math

import numpy as np
import pytest
from conftest import FLOATS, assert_near, dtype_name, f64
from numpy_oracle import rope_pairs

import fulmen

erf = np.vectorize(math.erf, otypes=[float])
ACTIVATIONS = [
    (fulmen.silu_and_mul, lambda x: x / (1 + np.exp(-x))),
    (fulmen.gelu_and_mul, lambda x: x * (1 + erf(x / 2**0.5)) / 2),
    (fulmen.gelu_tanh_and_mul, lambda x: x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2),
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("function, act", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(2, 64), (3, 5, 32), (2, 3, 4, 16), (48,), (0, 32)])
def test_act_and_mul(xp, rng, dtype, function, act, shape):
    x = xp.array(rng.normal(size=shape) * 2, dtype)
    half = shape[-1] // 2
    y = function(x)
    assert xp.owns(y) and dtype_name(y) == dtype
    expected = act(f64(x)[..., :half]) * f64(x)[..., half:]
    assert_near(y, expected, ulps=2 if dtype != "float32" else 8, scale=0.1)
    out = xp.empty((*shape[:-1], half), dtype)
    assert function(x, out=out) is out and (f64(out) == f64(y)).all()


def test_act_and_mul_errors(xp):
    x = xp.empty((4, 64), "float16")
    with pytest.raises(ValueError, match="out has shape"):
        fulmen.silu_and_mul(x, out=xp.empty((4, 64), "float16"))
    with pytest.raises(ValueError, match="out has dtype"):
        fulmen.silu_and_mul(x, out=xp.empty((4, 32), "float32"))
    with pytest.raises(ValueError, match="act_and_mul"):
        fulmen.silu_and_mul(xp.empty((4, 64), "int32"))


def llama31(rd, scale=8.0, theta=5e5, low=1.0, high=4.0, old=8192):
    f = theta ** (-2.0 * np.arange(rd // 2) / rd)
    smooth = np.clip((f * old / (2 * np.pi) - low) / (high - low), 0, 1)
    return (1 - smooth) * f / scale + smooth * f


ROPES = [
    (fulmen.apply_rope, fulmen.apply_rope_inplace, fulmen.apply_rope_pos_ids, fulmen.apply_rope_pos_ids_inplace, False),
    (fulmen.apply_llama31_rope, fulmen.apply_llama31_rope_inplace, fulmen.apply_llama31_rope_pos_ids,
     fulmen.apply_llama31_rope_pos_ids_inplace, True),
]  # fmt: skip


@pytest.mark.parametrize("copy, inplace, by_ids, by_ids_inplace, is_llama", ROPES)
@pytest.mark.parametrize("rotary_dim, interleave", [(None, False), (32, False), (64, True), (16, True)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rope_family(xp, rng, copy, inplace, by_ids, by_ids_inplace, is_llama, rotary_dim, interleave, dtype):
    lens, offsets = np.array([3, 0, 5]), np.array([100, 7, 4000])
    indptr = np.concatenate([[0], np.cumsum(lens)])
    positions = np.concatenate([offsets[b] + np.arange(n) for b, n in enumerate(lens)])
    q, k = (xp.array(rng.normal(size=(8, h, 64)), dtype) for h in (4, 2))
    rd = rotary_dim or 64
    freqs = llama31(rd) if is_llama else None
    expected = [rope_pairs(f64(x), positions, rotary_dim=rd, interleave=interleave, freqs=freqs) for x in (q, k)]
    tables = xp.array(indptr, "int32"), xp.array(offsets, "int32")
    for got in (
        copy(q, k, *tables, rotary_dim, interleave),
        by_ids(q, k, xp.array(positions, "int32"), rotary_dim, interleave),
    ):
        assert isinstance(got, tuple) and all(xp.owns(x) for x in got)
        for x, e in zip(got, expected):
            assert_near(x, e, ulps=16 if dtype == "float32" else 2, scale=1.0)
    other = [xp.array(f64(x), dtype) for x in (q, k)]
    assert by_ids_inplace(*other, xp.array(positions, "int64"), rotary_dim, interleave) is None
    assert inplace(q, k, *tables, rotary_dim, interleave) is None
    for x, y, e in zip((q, k), other, expected):
        assert_near(x, e, ulps=16 if dtype == "float32" else 2, scale=1.0)
        assert (f64(x) == f64(y)).all()


def test_rope_scale_and_theta(xp, rng):
    q, k = (xp.array(rng.normal(size=(4, 2, 32)), "float32") for _ in range(2))
    got = fulmen.apply_rope_pos_ids(q, k, xp.array(np.arange(4), "int32"), rope_scale=4.0, rope_theta=1e6)
    assert_near(got[0], rope_pairs(f64(q), np.arange(4), 1e6, 4.0), 16, scale=1.0)


@pytest.mark.parametrize("is_neox", [True, False])
def test_rope_with_cos_sin_cache(xp, rng, is_neox):
    positions = np.array([5, 0, 99, 42])
    f = 1e4 ** (-2.0 * np.arange(16) / 32)
    angles = np.arange(100)[:, None] * f
    cache = xp.array(np.concatenate([np.cos(angles), np.sin(angles)], -1), "float32")
    q, k = (xp.array(rng.normal(size=(4, h * 64)), "bfloat16") for h in (4, 2))
    expected = [rope_pairs(f64(x).reshape(4, -1, 64), positions, rotary_dim=32, interleave=not is_neox).reshape(4, -1)
                for x in (q, k)]  # fmt: skip
    ids = xp.array(positions, "int32")
    got = fulmen.apply_rope_with_cos_sin_cache(ids, q, k, 64, cache, is_neox)
    for x, e in zip(got, expected):
        assert xp.owns(x)
        assert_near(x, e, scale=1.0)
    whole = xp.array(np.concatenate([f64(q), f64(k)], -1), "bfloat16")  # rows of a fused projection
    q2, k2 = whole[:, :256], whole[:, 256:]
    assert fulmen.apply_rope_with_cos_sin_cache_inplace(ids, q2, k2, 64, cache, is_neox) is None
    assert (f64(q2) == f64(got[0])).all() and (f64(k2) == f64(got[1])).all()
    with pytest.raises(ValueError):
        fulmen.apply_rope_with_cos_sin_cache(ids, q, k, 60, cache)


@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("pair", [True, False])
def test_append_paged_kv_cache(xp, rng, layout, pair):
    page_size, lens, appended = 4, np.array([5, 9]), np.array([2, 9])
    pages = -(-lens // page_size)
    indptr = np.concatenate([[0], np.cumsum(pages)])
    indices = rng.permutation(7)[: indptr[-1]]
    last = lens - (pages - 1) * page_size
    append_indptr = np.concatenate([[0], np.cumsum(appended)])
    nnz = int(append_indptr[-1]) + 2  # two rows of padding
    table = [xp.array(x, "int32") for x in (indices, indptr, last)]
    seq_lens = fulmen.get_seq_lens(table[1], table[2], page_size)
    assert xp.owns(seq_lens) and (f64(seq_lens) == lens).all()
    batch, positions = fulmen.get_batch_indices_positions(xp.array(append_indptr, "int32"), seq_lens, nnz)
    assert f64(batch).tolist() == [0] * 2 + [1] * 9 + [-1] * 2
    assert f64(positions).tolist()[:11] == [3, 4, *range(9)]
    assert dtype_name(batch) == dtype_name(positions) == "int32"
    key, value = (xp.array(rng.normal(size=(nnz, 2, 8)), "bfloat16") for _ in range(2))
    shape = (7, 2, page_size, 2, 8) if layout == "NHD" else (7, 2, 2, page_size, 8)
    cache = xp.empty(shape, "bfloat16")
    given = (cache[:, 0], cache[:, 1]) if pair else cache
    assert fulmen.append_paged_kv_cache(key, value, batch, positions, given, *table, layout) is None
    expected = np.zeros((7, 2, page_size, 2, 8))
    for t in range(11):
        b, p = int(f64(batch)[t]), int(f64(positions)[t])
        page = indices[indptr[b] + p // page_size]
        expected[page, 0, p % page_size], expected[page, 1, p % page_size] = f64(key)[t], f64(value)[t]
    assert (f64(cache) == (expected if layout == "NHD" else expected.swapaxes(2, 3))).all()
    outside = xp.array([99] * nnz, "int32")
    if xp.name == "torch_cuda":  # nobody waits for the GPU to say so: such tokens are dropped
        before = f64(cache)
        fulmen.append_paged_kv_cache(key, value, batch, outside, given, *table, layout)
        assert (f64(cache) == before).all()
    else:
        with pytest.raises(ValueError, match="append_paged_kv_cache"):
            fulmen.append_paged_kv_cache(key, value, batch, outside, given, *table, layout)
    with pytest.raises(KeyError):
        fulmen.append_paged_kv_cache(key, value, batch, positions, given, *table, "DHN")


def test_append_paged_mla_kv_cache(xp, rng):
    ckv, kpe = (xp.array(rng.normal(size=(3, d)), "float16") for d in (64, 16))
    caches = xp.empty((4, 2, 64), "float16"), xp.empty((4, 2, 16), "float16")
    table = [xp.array(x, "int32") for x in ([3, 1], [0, 2], [1])]
    ids = xp.array([0, 0, 0], "int32"), xp.array([0, 1, 2], "int32")
    assert fulmen.append_paged_mla_kv_cache(ckv, kpe, *ids, *caches, *table) is None
    for cache, new in zip(caches, (ckv, kpe)):
        assert (f64(cache)[[3, 3, 1], [0, 1, 0]] == f64(new)).all() and (f64(cache)[[0, 2]] == 0).all()


@pytest.mark.parametrize("order", ["big", "little"])
def test_packbits(xp, rng, order):
    for n in (0, 1, 8, 77):
        bits = rng.random(n) < 0.5
        got = fulmen.packbits(xp.array(bits, "bool"), order)
        assert xp.owns(got) and f64(got).tolist() == np.packbits(bits, bitorder=order).tolist()
    bits, indptr = rng.random(30) < 0.5, [0, 3, 3, 19, 30]
    packed, offsets = fulmen.segment_packbits(xp.array(bits, "bool"), xp.array(indptr, "int32"), order)
    parts = [np.packbits(bits[a:b], bitorder=order) for a, b in zip(indptr, indptr[1:])]
    assert f64(packed).tolist() == np.concatenate(parts).tolist() and dtype_name(offsets) == "int32"
    assert f64(offsets).tolist() == np.concatenate([[0], np.cumsum([len(p) for p in parts])]).tolist()
    with pytest.raises(ValueError, match="bitorder"):
        fulmen.packbits(xp.array(bits, "bool"), "middle")
    assert f64(fulmen.packbits(xp.array(bits, "bool"))).tolist() == np.packbits(bits).tolist()  # big is the default


@pytest.mark.parametrize("fp8, largest", [("float8_e4m3fn", 448.0), ("float8_e5m2", 57344.0)])
def test_fp8_quantization(xp, rng, fp8, largest):
    x = xp.array(rng.normal(size=(4, 256)), "bfloat16")
    out, scale = fulmen.quantization.per_tensor_quant_fp8(x, dst_dtype=fp8)
    assert xp.owns(out) and dtype_name(out) == fp8 and dtype_name(scale) == "float32"
    s = np.abs(f64(x)).max() / largest
    assert_near(scale, np.array([s]), 4)
    assert_near(out, f64(x) / s, ulps=1, scale=2.0**-6)
    again, same = fulmen.quantization.per_tensor_quant_fp8(x, xp.array([0.25], "float32"), fp8)
    assert_near(again, f64(x) / 0.25, ulps=1, scale=2.0**-6)
    assert f64(same).tolist() == [0.25]
    out, scales = fulmen.quantization.per_token_group_quant_8bit(x, 64, dst_dtype=fp8)
    groups = f64(x).reshape(4, 4, 64)
    assert_near(scales, np.abs(groups).max(-1) / largest, 4)
    assert_near(
        out, (groups / (np.abs(groups).max(-1, keepdims=True) / largest)).reshape(4, 256), ulps=1, scale=2.0**-6
    )
    _, major = fulmen.quantization.per_token_group_quant_8bit(x, 64, dst_dtype=fp8, column_major_scales=True)
    assert (f64(major) == f64(scales)).all()
    with pytest.raises(NotImplementedError):
        fulmen.quantization.per_token_group_quant_8bit(x, 64, dst_dtype="int8")
