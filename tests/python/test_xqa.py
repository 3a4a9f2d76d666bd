# SPDX-License-Identifier: Apache-2.0
"""FlashInfer's XQA entry points against the oracle."""

import numpy as np
import pytest
from paged import Paged, near

import fulmen


@pytest.mark.parametrize("q_len", [1, 3])
@pytest.mark.parametrize("layout", ["NHD", "HND"])
def test_xqa(xp, rng, layout, q_len):
    p = Paged(xp, rng, [9, 30], [q_len, q_len], layout=layout, heads=(6, 2))
    table = np.zeros((2, 12), np.int32)
    for b in range(2):
        ids = p.indices[p.indptr[b] : p.indptr[b + 1]]
        table[b, : len(ids)] = ids
    sinks, lens = rng.normal(size=6), p.kv_lens.reshape(2, 1)
    shape = (2, 1, q_len, 6, 64) if q_len > 1 else (2, 1, 6, 64)
    out = xp.empty(shape, "float16")
    fulmen.xqa(
        p.q.reshape(shape), p.k, p.v, xp.array(table, "int32"), xp.array(lens, "int32"), out, None, None, 2, 4,
        sinks=xp.array(sinks.reshape(2, 3), "float32"), q_scale=0.5, sliding_win_size=7, kv_layout=layout,
        q_seq_len=q_len,
    )  # fmt: skip
    expected, _ = p.expected(causal=True, window_left=6, sm_scale=0.5 * 64**-0.5, sinks=np.float32(sinks))
    near(out.reshape(-1, 6, 64), expected)
    cache = (p.k, p.v)
    args = (p.q, cache, None, xp.array(table, "int32"), xp.array(lens.reshape(-1), "int32"), 40, 64**-0.5)
    again = fulmen.decode.xqa_batch_decode_with_kv_cache(*args, kv_layout=layout, q_len_per_req=q_len)
    near(again, p.expected(causal=True)[0])
