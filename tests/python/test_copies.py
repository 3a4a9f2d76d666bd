# SPDX-License-Identifier: Apache-2.0
"""Planned wrappers that are copied, pickled, and used by a forked process."""

from __future__ import annotations

import copy
import os
import pickle
from typing import Any

import numpy as np
import pytest

import fulmen

RNG = np.random.default_rng(3)
CACHE = RNG.standard_normal((6, 2, 4, 2, 64)).astype(np.float32)
Q = RNG.standard_normal((3, 4, 64)).astype(np.float32)
TABLES = [np.array(t, np.int32) for t in ((0, 2, 3, 3), (4, 1, 3), (3, 4, 1))]


def decode() -> Any:
    wrapper = fulmen.BatchDecodeWithPagedKVCacheWrapper(np.empty(32 << 20, np.uint8))
    wrapper.plan(*TABLES, 4, 2, 64, 4, q_data_type="float32")
    return wrapper


def prefill() -> Any:
    wrapper = fulmen.BatchPrefillWithPagedKVCacheWrapper(None)
    wrapper.plan(np.arange(4, dtype=np.int32), *TABLES, 4, 2, 64, 4, causal=True, q_data_type="float32")
    return wrapper


def cascade() -> Any:
    wrapper = fulmen.MultiLevelCascadeAttentionWrapper(1, None)
    wrapper.plan([np.arange(4, dtype=np.int32)], *([t] for t in TABLES), 4, 2, 64, 4, q_data_type="float32")
    return wrapper


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])
@pytest.mark.parametrize("make", [decode, prefill, cascade])
def test_a_copy_runs_on_its_own(make, again):
    wrapper = make()
    expected = wrapper.run(Q, CACHE)
    other = again(wrapper)
    assert np.array_equal(other.run(Q, CACHE), expected)
    assert np.array_equal(wrapper.run(Q, CACHE), expected)
    if hasattr(other, "_handle"):
        assert other._handle != wrapper._handle and other._cached_module._wrapper is other


@pytest.mark.parametrize("again", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])
def test_copies_of_two_batches(again):
    pod, batches = fulmen.PODWithPagedKVCacheWrapper(None), fulmen.BatchPODWithPagedKVCacheWrapper(None)
    rows = np.arange(4, dtype=np.int32)
    pod.plan(*TABLES, 4, 2, 64, 4, q_data_type="float32")
    batches.plan(rows, *TABLES, rows, *TABLES, 4, 2, 64, 4, q_data_type="float32")
    for wrapper, args in ((pod, (Q, Q[:, :2], Q[:, 2:], Q, CACHE)), (batches, (Q, CACHE, Q[::-1].copy(), CACHE))):
        expected = wrapper.run(*args, causal_p=True)
        other = again(wrapper)
        for w in (other, wrapper):
            assert all(np.array_equal(x, y) for x, y in zip(w.run(*args, causal_p=True), expected))


def test_what_was_not_planned_is_not_planned_as_a_copy():
    other = copy.deepcopy(fulmen.BatchDecodeWithPagedKVCacheWrapper(None))
    with pytest.raises(RuntimeError, match="before plan"):
        other.run(Q, CACHE)


def test_a_forked_process_has_threads_of_its_own():
    x = RNG.standard_normal((2000, 256)).astype(np.float32)
    expected = fulmen.rmsnorm(x, x[0])
    child = os.fork()
    if child == 0:  # no test of pytest's runs on here, whatever happens
        try:
            os._exit(0 if np.array_equal(fulmen.rmsnorm(x, x[0]), expected) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
