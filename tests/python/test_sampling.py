# SPDX-License-Identifier: Apache-2.0
"""Sampling: membership, frequencies, randomness and conventions."""

import numpy as np
import pytest
from conftest import FLOATS, assert_near, dtype_name, f64, torch

import fulmen


def softmax64(x, t=1.0):
    e = np.exp((x - x.max(-1, keepdims=True)) / t)
    return e / e.sum(-1, keepdims=True)


def kept_top_k(p, k):
    order = np.argsort(-p, kind="stable")
    mask = np.zeros(p.shape, bool)
    mask[order[:k]] = True
    return mask & (p > 0)


def kept_top_p(p, top_p):
    order = np.argsort(-p, kind="stable")
    before = np.concatenate([[0], np.cumsum(p[order])[:-1]])
    mask = np.zeros(p.shape, bool)
    mask[order[before < top_p * p.sum() + 1e-6]] = True
    return mask


@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax(xp, rng, dtype):
    x = xp.array(rng.normal(size=(5, 1000)) * 4, dtype)
    for given, t in (
        (None, 1.0),
        (0.7, 0.7),
        (xp.array([0.5, 1, 2, 3, 0.1], "float32"), np.array([0.5, 1, 2, 3, 0.1])[:, None]),
    ):
        got = fulmen.softmax(x, given)
        assert xp.owns(got) and dtype_name(got) == "float32"
        assert_near(got, softmax64(f64(x), t), 64)
    hot = f64(fulmen.softmax(x, 0.0))
    assert (hot.argmax(-1) == f64(x).argmax(-1)).all() and (hot.sum(-1) == 1).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_sampling_draws_only_what_the_filter_keeps(xp, rng, dtype):
    logits = xp.array(rng.normal(size=(64, 300)) * 2, dtype)
    probs = xp.array(softmax64(f64(logits)), dtype)
    p = f64(probs)
    rows = np.arange(64)
    for out, keep in [
        (fulmen.top_k_sampling_from_probs(probs, 5), lambda r: kept_top_k(r, 5)),
        (fulmen.top_p_sampling_from_probs(probs, 0.4), lambda r: kept_top_p(r, 0.4)),
        (fulmen.min_p_sampling_from_probs(probs, 0.3), lambda r: r >= 0.3 * r.max() * (1 - 1e-6)),
        (fulmen.top_k_top_p_sampling_from_probs(probs, 9, 0.5), lambda r: kept_top_k(r, 9)),
        (fulmen.top_k_top_p_sampling_from_logits(logits, 9, 0.5, filter_apply_order="joint"),
         lambda r: kept_top_k(r, 9) & kept_top_p(r, 0.52)),
        (fulmen.sampling_from_logits(logits), lambda r: r >= 0),
    ]:  # fmt: skip
        assert xp.owns(out) and dtype_name(out) == "int32" and tuple(out.shape) == (64,)
        tokens = f64(out).astype(int)
        assert all(keep(p[r])[tokens[r]] for r in rows)
    ones = xp.array(np.ones(64), "int32")
    greedy = fulmen.top_k_sampling_from_probs(probs, ones)
    assert (f64(greedy) == p.argmax(-1)).all()
    assert (f64(fulmen.top_p_sampling_from_probs(probs, xp.array(np.zeros(64), "float32"))) == p.argmax(-1)).all()


def test_frequencies(xp, rng):
    p = rng.random(20)
    p[[3, 7]] = 0
    p /= p.sum()
    probs, n = xp.array(p[None], "float32"), 40000
    indices = xp.array(np.zeros(n), "int32")
    for out, expected in [
        (fulmen.sampling_from_probs(probs, indices), p),
        (fulmen.sampling_from_logits(xp.array(np.log(p[None] + 1e-30), "float32"), indices), p),
        (fulmen.top_k_sampling_from_probs(probs, 4, indices), np.where(kept_top_k(p, 4), p, 0)),
    ]:
        counts = np.bincount(f64(out).astype(int), minlength=20) / n
        expected = expected / expected.sum()
        assert counts[expected == 0].sum() == 0
        assert np.abs(counts - expected).max() < 4 * (0.25 / n) ** 0.5


def test_seeds_and_generators(xp, rng):
    probs = xp.array(rng.random((32, 500)), "float32")
    draw = fulmen.sampling_from_probs
    assert (f64(draw(probs, seed=1, offset=2)) == f64(draw(probs, seed=1, offset=2))).all()
    assert (f64(draw(probs, seed=1, offset=2)) != f64(draw(probs, seed=1, offset=3))).any()
    assert (f64(draw(probs, seed=2**64 - 1)) == f64(draw(probs, seed=2**64 - 1, offset=0))).all()
    first, second = (draw(probs, generator=np.random.default_rng(3)) for _ in range(2))
    assert (f64(first) == f64(second)).all()
    generator = np.random.default_rng(3)
    draw(probs, generator=generator)
    assert (f64(draw(probs, generator=generator)) != f64(first)).any()
    assert (f64(draw(probs)) != f64(draw(probs))).any()
    seeds, offsets = (xp.array(rng.integers(0, 2**40, 32), "int64") for _ in range(2))
    whole = f64(draw(probs, seed=seeds, offset=offsets))
    order = rng.permutation(32)  # a row's token goes with its seed, not with its slot
    moved = draw(probs, xp.array(order, "int32"), seed=seeds[order], offset=offsets[order])
    assert (f64(moved) == whole[order]).all()
    with pytest.raises(TypeError):
        draw(probs, generator="nonsense")
    with pytest.raises(ValueError, match="without seed"):
        draw(probs, offset=1)


def test_global_state_is_the_frameworks(xp, rng):
    probs = xp.array(rng.random((32, 500)), "float32")

    def seeded():
        np.random.seed(5)
        if torch is not None:
            torch.manual_seed(5)
        return f64(fulmen.sampling_from_probs(probs))

    assert (seeded() == seeded()).all()


@pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
def test_torch_generator(rng):
    probs = torch.from_numpy(rng.random((32, 500)).astype(np.float32))
    draws = [fulmen.sampling_from_probs(probs, generator=torch.Generator().manual_seed(4)) for _ in range(2)]
    assert (draws[0] == draws[1]).all()


def test_indices_valid_and_nan(xp, rng):
    probs = xp.array(np.stack([np.eye(10)[3], np.zeros(10), np.full(10, np.nan), np.eye(10)[7]]), "float32")
    tokens, valid = fulmen.sampling_from_probs(probs, return_valid=True)
    assert f64(tokens)[[0, 3]].tolist() == [3, 7] and (f64(tokens) >= 0).all() and (f64(tokens) < 10).all()
    assert f64(valid).astype(bool).tolist() == [True, False, False, True] and dtype_name(valid) == "bool"
    out = fulmen.top_k_sampling_from_probs(probs, 2, xp.array([3, 0, 3], "int64"))
    assert f64(out).tolist() == [7, 3, 7] and dtype_name(out) == "int64"
    with pytest.raises(ValueError, match="contains NaN"):
        fulmen.sampling_from_probs(probs, check_nan=True)
    with pytest.raises(ValueError, match="filter_apply_order"):
        fulmen.top_k_top_p_sampling_from_probs(probs, 2, 0.5, filter_apply_order="neither")


@pytest.mark.parametrize("dtype", FLOATS)
def test_renorm_and_mask(xp, rng, dtype):
    probs = xp.array(softmax64(rng.normal(size=(6, 200)) * 2), dtype)
    p = f64(probs)
    got = fulmen.top_k_renorm_probs(probs, xp.array([1, 2, 3, 50, 200, 7], "int32"))
    assert xp.owns(got) and dtype_name(got) == dtype
    for row, k, out in zip(p, (1, 2, 3, 50, 200, 7), f64(got)):
        mask = row >= np.sort(row)[::-1][k - 1]  # ties stay
        assert ((out > 0) == (mask & (row > 0)))[row > 1e-4].all()
        np.testing.assert_allclose(out, np.where(mask, row, 0) / row[mask].sum(), rtol=2e-2, atol=1e-5)
    got = f64(fulmen.top_p_renorm_probs(probs, 0.7))
    assert np.allclose(got.sum(-1), 1, atol=2e-2) and ((got > 0).sum(-1) < 200).all()
    logits = xp.array(rng.normal(size=(6, 200)), dtype)
    masked = f64(fulmen.top_k_mask_logits(logits, 10))
    kept = f64(logits) >= np.sort(f64(logits), -1)[:, -10][:, None]
    assert (masked == np.where(kept, f64(logits), -np.inf)).all()
    assert fulmen.sampling.top_k_renorm_prob is fulmen.top_k_renorm_probs


def test_top_k(xp, rng):
    x = xp.array(rng.permutation(600).reshape(3, 200), "float32")
    values, indices = fulmen.top_k(x, 5, sorted=True)
    expected = np.sort(f64(x), -1)[:, ::-1][:, :5]
    assert (f64(values) == expected).all() and dtype_name(indices) == "int64"
    assert (np.take_along_axis(f64(x), f64(indices).astype(int), -1) == expected).all()


def places_of_top_k(scores, start, length, k):
    window = scores[start:start + length]
    return np.sort(np.argsort(-window, kind="stable")[:k])


def test_top_k_transforms(xp, rng):
    scores = rng.permutation(800).reshape(4, 200)
    lengths, starts, batches = np.array([200, 5, 60, 0]), np.array([0, 10, 140, 3]), np.array([1, 0, 1, 0])
    table = rng.integers(0, 1000, (2, 30))
    x, ids = xp.array(scores, "float32"), lambda a: xp.array(a, "int32")  # noqa: E731
    raw = xp.empty((4, 16), "int32")
    out = fulmen.top_k_page_table_transform(
        x, ids(table), ids(lengths), 16, ids(batches), row_starts=ids(starts), page_size=8, out_raw_indices=raw)
    ragged = fulmen.top_k_ragged_transform(x, ids(batches * 1000), ids(lengths), 16)
    assert dtype_name(out) == "int32" and xp.owns(out)
    for row in range(4):
        places = places_of_top_k(scores[row], starts[row], lengths[row], 16)
        rest = np.full(16 - len(places), -1)
        assert (f64(raw)[row] == np.append(places, rest)).all()
        slots = table[batches[row]][places // 8] * 8 + places % 8
        assert (f64(out)[row] == np.append(slots, rest)).all()
        places = places_of_top_k(scores[row], 0, lengths[row], 16)
        rest = np.full(16 - len(places), -1)
        assert (f64(ragged)[row] == np.append(places + batches[row] * 1000, rest)).all()


def test_chain_speculative_sampling(xp, rng):
    b, n, v = 3, 2, 8
    draft, target = np.zeros((b, n, v)), np.zeros((b, n + 1, v))
    ids = np.array([[1, 2], [3, 4], [5, 6]])
    draft[np.arange(b)[:, None], np.arange(n), ids] = 1
    target[0, [0, 1, 2], [1, 2, 7]] = 1  # both accepted, then 7
    target[1, [0, 1, 2], [3, 0, 5]] = 1  # one accepted, then 0
    target[2, [0, 1, 2], [0, 6, 5]] = 1  # none accepted, then 0; the second would pass on its own
    arrays = xp.array(draft, "float32"), xp.array(ids, "int32"), xp.array(target, "float32")
    tokens, accepted, emitted = fulmen.chain_speculative_sampling(*arrays)
    assert all(xp.owns(x) and dtype_name(x) == "int32" for x in (tokens, accepted, emitted))
    assert f64(tokens).tolist() == [[1, 2, 7], [3, 0, -1], [0, -1, -1]]
    assert f64(accepted).tolist() == [2, 1, 1] and f64(emitted).tolist() == [2, 1, 0]
    counts = [xp.array([10, 10, 10], "int32") for _ in range(2)]
    _, accepted, emitted = fulmen.chain_speculative_sampling(*arrays, *counts)
    assert accepted is counts[0] and emitted is counts[1]
    assert f64(accepted).tolist() == [12, 11, 11] and f64(emitted).tolist() == [12, 11, 10]


def test_float64_is_rounded_to_float32():
    """Engines hand over what numpy and torch.softmax made of Python numbers."""
    probs = np.random.default_rng(5).dirichlet(np.ones(50), 4)
    assert probs.dtype == np.float64
    same = {"seed": 7, "offset": 0}
    assert np.array_equal(
        fulmen.top_k_top_p_sampling_from_probs(probs, 5, 0.9, **same),
        fulmen.top_k_top_p_sampling_from_probs(probs.astype(np.float32), 5, 0.9, **same),
    )
    assert fulmen.top_k_renorm_probs(probs, 5).dtype == np.float32
    assert np.allclose(fulmen.softmax(np.log(probs)), probs, atol=1e-6)
