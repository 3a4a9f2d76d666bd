# SPDX-License-Identifier: Apache-2.0
"""Rotation on the way to FP8 and to a paged cache, against its parts in float64."""

import numpy as np
import pytest
from conftest import f64
from numpy_oracle import rope_pairs

import fulmen

TOKENS, QO_HEADS, KV_HEADS, ROPE, NOPE, PAGE = 6, 4, 2, 32, 16, 4


def table(xp):
    angles = np.arange(100)[:, None] * 1e4 ** (-2.0 * np.arange(ROPE // 2) / ROPE)
    return xp.array(np.concatenate([np.cos(angles), np.sin(angles)], -1), "float32")


def assert_fp8(got, expected, scale):
    """Within one step of FP8 at the value's magnitude."""
    expected = np.clip(expected * scale, -448, 448)
    assert (np.abs(f64(got) - expected) <= np.maximum(np.abs(expected), 2.0**-6) * 2.0**-3 * 0.55).all()


def inputs(xp, rng, mla):
    def array(heads, dim):
        shape = (TOKENS, dim) if heads == 0 else (TOKENS, heads, dim)
        return xp.array(rng.normal(size=shape), "bfloat16")

    kv = 0 if mla else KV_HEADS
    return array(QO_HEADS, ROPE), array(kv, ROPE), array(QO_HEADS, NOPE), array(kv, NOPE)


def rotated(x, positions, interleave):
    values = f64(x)
    return rope_pairs(values.reshape(TOKENS, -1, ROPE), positions, interleave=interleave).reshape(values.shape)


@pytest.mark.parametrize("mla", [False, True])
@pytest.mark.parametrize("is_neox", [False, True])
def test_rope_quantize_fp8(xp, rng, mla, is_neox):
    q_rope, k_rope, q_nope, k_nope = inputs(xp, rng, mla)
    positions = np.array([5, 0, 99, 42, 7, 1])
    ids = xp.array(positions, "int32")
    function = fulmen.rope.mla_rope_quantize_fp8 if mla else fulmen.rope.rope_quantize_fp8
    outs = function(q_rope, k_rope, q_nope, k_nope, table(xp), ids, is_neox, None, 2.0, 0.5)
    assert_fp8(outs[0], rotated(q_rope, positions, not is_neox), 2.0)
    assert_fp8(outs[1], rotated(k_rope, positions, not is_neox), 0.5)
    assert_fp8(outs[2], f64(q_nope), 2.0)
    assert_fp8(outs[3], f64(k_nope), 0.5)
    alone = function(q_rope, k_rope, None, None, table(xp), ids, is_neox, "float8_e5m2")
    assert tuple(alone[2].shape) == (TOKENS, QO_HEADS, 0)
    assert "float8_e5m2" in str(alone[0].dtype)
    with pytest.raises(ValueError):
        function(q_rope, k_rope, None, None, xp.array(f64(table(xp)), "float16"), ids)


@pytest.mark.parametrize("layout", ["NHD", "HND", "MLA"])
def test_rope_quantize_fp8_append_paged_kv_cache(xp, rng, layout):
    mla = layout == "MLA"
    q_rope, k_rope, q_nope, k_nope = inputs(xp, rng, mla)
    v = None if mla else xp.array(rng.normal(size=(TOKENS, KV_HEADS, ROPE + NOPE)), "bfloat16")
    positions = np.array([3, 4, 5, 0, 1, 2])
    requests = np.array([0, 0, 0, 1, 1, -1])
    pages, indptr = np.array([4, 2, 0]), np.array([0, 2, 3])
    if mla:
        caches = (xp.empty((5, PAGE, NOPE), "float8_e4m3fn"), xp.empty((5, PAGE, ROPE), "float8_e4m3fn"))
    else:
        shape = (5, PAGE, KV_HEADS, ROPE + NOPE) if layout == "NHD" else (5, KV_HEADS, PAGE, ROPE + NOPE)
        caches = (xp.empty(shape, "float8_e4m3fn"), xp.empty(shape, "float8_e4m3fn"))

    def ints(x):
        return xp.array(x, "int32")

    fulmen.rope.rope_quantize_fp8_append_paged_kv_cache(
        q_rope, k_rope, q_nope, k_nope, v, table(xp), ints(positions), caches, ints(pages), ints(indptr),
        ints(requests), ints(positions), quant_scale_kv=0.5, page_size=PAGE,
        kv_layout="NHD" if mla else layout,
    )  # fmt: skip
    got = [f64(c) for c in caches]
    if layout == "HND":
        got = [c.swapaxes(1, 2) for c in got]
    keys = np.concatenate([rotated(k_rope, positions, False), f64(k_nope)], -1)
    expected = [f64(k_nope), rotated(k_rope, positions, False)] if mla else [keys, None if v is None else f64(v)]
    for cache, rows in zip(got, expected):
        for t in range(TOKENS - 1):
            page = pages[indptr[requests[t]] + positions[t] // PAGE]
            slot = cache[page, positions[t] % PAGE]
            want = np.clip(rows[t] * 0.5, -448, 448)
            assert (np.abs(slot - want) <= np.maximum(np.abs(want), 2.0**-6) * 2.0**-3 * 0.55).all()
            cache[page, positions[t] % PAGE] = 0
        assert (cache == 0).all()  # padding wrote nothing


@pytest.mark.parametrize("layout", ["NHD", "HND"])
def test_rope_append_is_rope_then_append(xp, rng, layout):
    q, k, v = (xp.array(rng.normal(size=(TOKENS, h, ROPE)), "bfloat16") for h in (QO_HEADS, KV_HEADS, KV_HEADS))
    shape = (3, 2, PAGE, KV_HEADS, ROPE) if layout == "NHD" else (3, 2, KV_HEADS, PAGE, ROPE)
    one, two = xp.empty(shape, "bfloat16"), xp.empty(shape, "bfloat16")
    ids, requests, pages, indptr, last = (
        xp.array(x, "int32") for x in ([0, 1, 2, 3, 4, 5], [0] * TOKENS, [2, 0], [0, 2], [2])
    )
    got = fulmen.page.rope_append_paged_kv_cache(q, k, v, ids, requests, ids, one, pages, indptr, layout)
    want, keys = fulmen.apply_rope_pos_ids(q, k, ids)
    fulmen.append_paged_kv_cache(keys, v, requests, ids, two, pages, indptr, last, layout)
    assert (f64(got) == f64(want)).all() and (f64(one) == f64(two)).all()
