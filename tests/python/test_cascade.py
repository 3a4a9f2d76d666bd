# SPDX-License-Identifier: Apache-2.0
"""Merging states; cascade, POD and block-sparse wrappers."""

import numpy as np
import pytest
from conftest import FLOATS, assert_near, dtype_name, f64
from numpy_oracle import attention, gather
from paged import Paged, near

import fulmen


def merged(vs, ss):
    """Base 2, over axis 0."""
    top = ss.max(0)
    safe = np.where(np.isfinite(top), top, 0)
    w = np.exp2(ss - safe)
    total = w.sum(0)
    with np.errstate(divide="ignore"):
        return (w[..., None] * vs).sum(0) / np.where(total > 0, total, 1)[..., None], safe + np.log2(total)


@pytest.mark.parametrize("dtype", FLOATS)
def test_merge_state(xp, rng, dtype):
    v = [xp.array(rng.normal(size=(5, 3, 16)), dtype) for _ in range(3)]
    s = [xp.array(rng.normal(size=(5, 3)) * 3, "float32") for _ in range(3)]
    s[1][0] = -np.inf
    s[0][1] = s[1][1] = -np.inf
    expected = merged(np.stack([f64(x) for x in v[:2]]), np.stack([f64(x) for x in s[:2]]))
    out, lse = fulmen.merge_state(v[0], s[0], v[1], s[1])
    assert xp.owns(out) and dtype_name(out) == dtype and dtype_name(lse) == "float32"
    assert_near(out, expected[0], 4, scale=1.0)
    assert_near(lse, expected[1], 16, scale=1.0)
    assert (f64(out)[0] == f64(v[0])[0]).all() and (f64(lse)[1] == -np.inf).all() and (f64(out)[1] == 0).all()
    many = fulmen.merge_states(
        *(xp.array(np.stack([f64(x) for x in xs], 1), t) for xs, t in ((v, dtype), (s, "float32")))
    )
    expected = merged(np.stack([f64(x) for x in v]), np.stack([f64(x) for x in s]))
    assert_near(many[0], expected[0], 4, scale=1.0)
    assert_near(many[1], expected[1], 16, scale=1.0)
    before = f64(v[0]).copy()
    mask = xp.array([1, 0, 1, 1, 0], "bool")
    assert fulmen.merge_state_in_place(v[0], s[0], v[1], s[1], mask) is None
    keep = np.array([1, 0, 1, 1, 0], bool)
    assert (f64(v[0])[keep] == f64(out)[keep]).all() and (f64(v[0])[~keep] == before[~keep]).all()
    fulmen.merge_state_in_place(v[2], s[2], v[1], xp.array(f64(s[1]), "float64"))


@pytest.mark.parametrize("layout", ["NHD", "HND"])
def test_multi_level_cascade_equals_one_level(xp, rng, layout):
    p = Paged(xp, rng, [24, 20, 17], [3, 1, 5], layout=layout)
    shared = p.indices[:2]  # the first 8 keys of every request are those of request 0
    for b in range(3):
        p.indices[p.indptr[b] : p.indptr[b] + 2] = shared
    expected, _ = p.expected(causal=True)
    unique = [p.indices[p.indptr[b] + 2 : p.indptr[b + 1]] for b in range(3)]
    unique_indptr = np.concatenate([[0], np.cumsum([len(u) for u in unique])]).astype(np.int32)
    w = fulmen.MultiLevelCascadeAttentionWrapper(2, xp.empty((1 << 22,), "uint8"), layout)
    i32 = lambda x: xp.array(x, "int32")  # noqa: E731
    w.plan([i32([0, 9]), i32(p.qo_indptr)], [i32([0, 2]), i32(unique_indptr)], [i32(shared),
           i32(np.concatenate(unique))],
           [i32([4]), i32(p.last)], 4, 2, 64, 4, causal=True, q_data_type="float16")  # fmt: skip
    out = w.run(p.q, (p.k, p.v))
    assert xp.owns(out)
    near(out, expected)
    assert (f64(w.forward(p.q, (p.k, p.v))) == f64(out)).all() and w.end_forward() is None


def test_shared_prefix_wrappers(xp, rng):
    p = Paged(xp, rng, [9, 14])
    k, v = (xp.array(rng.normal(size=(6, 2, 64)), "float16") for _ in range(2))
    expected = []
    for b in range(2):
        own = [gather(f64(x), p.indices, p.indptr, p.kv_lens, b) for x in (p.k, p.v)]
        keys, values = (np.concatenate([f64(s), x]) for s, x in zip((k, v), own))
        expected.append(attention(f64(p.q)[b : b + 1], keys, values)[0])
    w = fulmen.BatchDecodeWithSharedPrefixPagedKVCacheWrapper(None)
    w.begin_forward(*p.ints("indptr", "indices", "last"), 4, 2, 64, 4)
    near(w.forward(p.q, k, v, (p.k, p.v)), np.concatenate(expected))
    w = fulmen.BatchPrefillWithSharedPrefixPagedKVCacheWrapper(None)
    w.begin_forward(*p.ints("qo_indptr", "indptr", "indices", "last"), 4, 2, 64, 4)
    near(w.forward(p.q, k, v, (p.k, p.v), causal=True), np.concatenate(expected))
    assert w.end_forward() is None


def test_pod(xp, rng):
    p = Paged(xp, rng, [9, 14])
    q, k, v = (xp.array(rng.normal(size=s), "float16") for s in ((5, 4, 64), (12, 2, 64), (12, 2, 64)))
    w = fulmen.PODWithPagedKVCacheWrapper(None)
    w.plan(*p.ints("indptr", "indices", "last"), 4, 2, 64, 4)
    out_p, out_d = w.run(q, k, v, p.q, (p.k, p.v), causal_p=True, return_lse_p=True)
    near(out_p, attention(f64(q), f64(k), f64(v), causal=True)[0])
    near(out_d, p.expected()[0])
    pre = Paged(xp, rng, [9, 14], [4, 3])
    w = fulmen.BatchPODWithPagedKVCacheWrapper(None)
    names = ("qo_indptr", "indptr", "indices", "last")
    w.plan(*pre.ints(*names), *p.ints(*names), 4, 2, 64, 4)
    (out_p, out_d), (lse_p, lse_d) = w.run(pre.q, (pre.k, pre.v), p.q, (p.k, p.v), causal_p=True, return_lse=True)
    near(out_p, pre.expected(causal=True)[0])
    near(out_d, p.expected()[0])
    assert tuple(lse_p.shape) == (7, 4) and tuple(lse_d.shape) == (2, 4)
    assert len(w.run(pre.q, (pre.k, pre.v), p.q, (p.k, p.v))) == 2


@pytest.mark.parametrize("masked", [False, True])
def test_block_sparse(xp, rng, masked):
    m, n, r, c = 12, 20, 4, 5
    blocks = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    indptr = np.concatenate([[0], np.cumsum(blocks.sum(1))])
    indices = np.concatenate([np.flatnonzero(row) for row in blocks])
    inner = rng.random((len(indices), r, c)) < 0.7 if masked else np.ones((len(indices), r, c), bool)
    dense = np.zeros((m, n), bool)
    for row in range(3):
        for i in range(indptr[row], indptr[row + 1]):
            dense[row * r : (row + 1) * r, indices[i] * c : (indices[i] + 1) * c] = inner[i]
    q, k, v = (xp.array(rng.normal(size=(x, h, 64)), "float16") for x, h in ((m, 4), (n, 2), (n, 2)))
    w = fulmen.BlockSparseAttentionWrapper(None)
    mask = xp.array(inner, "bool") if masked else None
    w.plan(xp.array(indptr, "int32"), xp.array(indices, "int32"), m, n, r, c, 4, 2, 64, mask=mask)
    out, lse = w.run(q, k, v, return_lse=True)
    expected, lse2 = attention(f64(q), f64(k), f64(v), mask=dense)
    near(out, expected)
    assert_near(lse, lse2, 1e4, scale=1.0)
    near(w.forward(q, k, v), expected)


def test_variable_block_sparse(xp, rng):
    rows, cols = np.array([[2, 5], [4, 3]]), np.array([[1, 6, 4], [5, 2, 4]])
    kept = rng.random((2, 2, 3)) < 0.6
    q, k, v = (xp.array(rng.normal(size=(h, n, 32)), "float16") for h, n in ((4, 7), (2, 11), (2, 11)))
    w = fulmen.VariableBlockSparseAttentionWrapper(None)
    w.plan(xp.array(kept, "bool"), xp.array(rows, "int32"), xp.array(cols, "int32"), 4, 2, 32)
    out, lse = w.run(q, k, v, return_lse=True)
    for h in range(4):
        mask = np.repeat(np.repeat(kept[h // 2], rows[h // 2], 0), cols[h // 2], 1)
        one = [f64(x)[i][:, None] for x, i in ((q, h), (k, h // 2), (v, h // 2))]
        expected, lse2 = attention(*one, mask=mask)
        near(f64(out)[h][:, None].astype(np.float16), expected)
        assert_near(f64(lse)[h][:, None].astype(np.float32), lse2, 1e4, scale=1.0)
