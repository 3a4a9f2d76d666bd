# SPDX-License-Identifier: Apache-2.0
"""A NaN in a query, or in a key that a row sees, is that row's result and nobody else's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import f64

import fulmen


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("qo_len", [1, 3, 40])
@pytest.mark.parametrize("where", ["query", "key"])
def test_nan_reaches_its_rows_alone(xp: Any, rng: np.random.Generator, dtype: str, qo_len: int, where: str) -> None:
    q, k, v = (rng.standard_normal((n, heads, 64)) for n, heads in ((qo_len, 4), (300, 2), (300, 2)))
    if where == "query":
        q[0, 1, 7] = np.nan
        expected = np.zeros((qo_len, 4), bool)
        expected[0, 1] = True
    else:
        k[299, 0, 7] = np.nan  # causal: of the last row's keys alone
        expected = np.zeros((qo_len, 4), bool)
        expected[-1, :2] = True
    out, lse = fulmen.single_prefill_with_kv_cache_return_lse(*(xp.array(x, dtype) for x in (q, k, v)), causal=True)
    assert (np.isnan(f64(lse)) == expected).all()
    assert (np.isnan(f64(out)) == expected[..., None]).all()


def test_nan_survives_a_merge(xp: Any, rng: np.random.Generator) -> None:
    v, s = xp.array(rng.standard_normal((2, 3, 16)), "float32"), xp.array([[0.5, np.nan, -np.inf]] * 2, "float32")
    other = xp.array([[1.5, 0.5, np.nan]] * 2, "float32")
    out, lse = fulmen.merge_state(v, s, v, other)
    assert (np.isnan(f64(lse)) == [False, True, True]).all()
    assert (np.isnan(f64(out)).all(-1) == [False, True, True]).all()
