# SPDX-License-Identifier: Apache-2.0
"""Cascades on CUDA tensors: levels and one pass against the oracle, plans that nothing waits for, graphs."""

import numpy as np
import pytest
from conftest import f64, needs_cuda, torch
from numpy_oracle import attention, gather
from paged import near
from test_attention_cuda import DIMS, HEADS, PAGE, nothing_waits, paged, workspace

import fulmen

pytestmark = needs_cuda


class Shared:
    """Requests over prefixes that groups of them share: tables of each level, and the result to expect."""

    def __init__(self, rng, groups, own_lens, qo_lens=None, heads=HEADS, dim=DIMS[0], causal=False):
        """groups: per level above the last a list of (requests, pages)."""
        batch = len(own_lens)
        self.qo_lens = np.array([1] * batch if qo_lens is None else qo_lens)
        pages = iter(rng.permutation(sum(n for g in groups for _, n in g) + sum(-(-n // PAGE) for n in own_lens) + 2))
        take = lambda n: [next(pages) for _ in range(n)]  # noqa: E731
        rows = np.concatenate([[0], np.cumsum(self.qo_lens)])
        self.tables, all_pages = [], [[] for _ in range(batch)]
        for level in groups:
            bounds = np.cumsum([0] + [n for n, _ in level])
            lists = [take(n) for _, n in level]
            for (first, last), own in zip(zip(bounds, bounds[1:]), lists):
                for b in range(first, last):
                    all_pages[b] += own
            self.tables.append(self.level(rows[bounds], lists, [PAGE] * len(level)))
        lists = [take(-(-n // PAGE)) for n in own_lens]
        self.tables.append(self.level(rows, lists, [(n - 1) % PAGE + 1 if n else 1 for n in own_lens]))
        half = dict(dtype=torch.float16, device="cuda")
        self.q = torch.randn(int(rows[-1]), heads[0], dim, **half)
        shape = (sum(len(t[2]) for t in self.tables) + 2, PAGE, heads[1], dim)
        self.k, self.v = torch.randn(shape, **half), torch.randn(shape, **half)
        self.own_lens, self.all_pages, self.lists, self.causal = own_lens, all_pages, lists, causal

    @staticmethod
    def level(rows, lists, last):
        indptr = np.cumsum([0] + [len(x) for x in lists])
        return [np.asarray(x, np.int32) for x in (rows, indptr, np.concatenate([*lists, np.zeros(0)]), last)]

    def arrays(self, where):
        """plan()'s first four arguments."""
        to = (lambda x: torch.from_numpy(x).cuda()) if where == "gpu" else torch.from_numpy
        return [[to(level[i]) for level in self.tables] for i in range(4)]

    def expected(self):
        k, v, outs, row = f64(self.k), f64(self.v), [], 0
        for above, own, n, qo_len in zip(self.all_pages, self.lists, self.own_lens, self.qo_lens):
            ids, count = np.array(above + own, int), len(above) * PAGE + n
            keys, values = (x[ids].reshape(-1, *x.shape[2:])[:count] for x in (k, v))
            outs.append(attention(f64(self.q[row : row + qo_len]), keys, values, causal=self.causal)[0])
            row += qo_len
        return np.concatenate(outs)

    def plan(self, w, where, heads=HEADS, dim=DIMS[0]):
        w.plan(*self.arrays(where), *heads, dim, PAGE, causal=self.causal, q_data_type="float16")


CASCADES = {
    "two": ([[(4, 20)]], [9, 0, 33, 1]),
    "empty prefix": ([[(3, 0)]], [9, 5, 33]),
    "three": ([[(4, 6)], [(3, 11), (1, 0)]], [9, 0, 33, 1]),
    "prefill": ([[(3, 30)]], [40, 7, 90], [33, 7, 1]),
    "many": ([[(150, 64)]], [1 + i % 9 for i in range(150)]),
}


@pytest.mark.parametrize("where", ["gpu", "host"])
@pytest.mark.parametrize("case", CASCADES)
def test_cascade(rng, case, where):
    p = Shared(rng, *CASCADES[case], causal=case == "prefill")
    levels = len(p.tables)
    w = fulmen.MultiLevelCascadeAttentionWrapper(levels, workspace())
    p.plan(w, where)
    near(w.run(p.q, (p.k, p.v)), p.expected())
    assert where == "host" or not w._is_flat
    if where == "gpu":
        arrays, shape = p.arrays(where), (*HEADS, DIMS[0], PAGE)
        with nothing_waits():
            w.plan(*arrays, *shape, causal=p.causal, q_data_type="float16")
            out = w.run(p.q, (p.k, p.v))
        near(out, p.expected())
    else:
        w._is_flat = False  # the levels, where plan() preferred one pass
        plan_levels(w, p)
        near(w.run(p.q, (p.k, p.v)), p.expected())


def plan_levels(w, p):
    for i, (level, tables) in enumerate(zip(w._batch_prefill_wrappers, zip(*p.arrays("gpu")))):
        causal = p.causal and i + 1 == len(p.tables)
        level.plan(*tables, *HEADS, DIMS[0], PAGE, causal=causal, q_data_type="float16", o_data_type="float32")


def test_a_short_prefix_is_run_flat(rng):
    short, long = Shared(rng, [[(4, 2)]], [9, 3, 33, 1]), Shared(rng, [[(256, 5000)]], [9] * 256)
    w = fulmen.MultiLevelCascadeAttentionWrapper(2, workspace())
    for p, flat in ((short, True), (long, False), (short, True)):
        p.plan(w, "host")
        assert w._is_flat == flat
    near(w.run(short.q, (short.k, short.v)), short.expected())
    short.tables[0][3][0] = PAGE - 1  # a last page that is not full: only levels can say that
    short.plan(w, "host")
    assert not w._is_flat


def test_a_cascade_graph_follows_its_tables(rng):
    most = Shared(rng, [[(3, 40)]], [60, 60, 60])
    sizes = [[len(x) for x in level] for level in most.tables]
    buffers = [[torch.zeros(level[i], dtype=torch.int32, device="cuda") for level in sizes] for i in range(4)]
    w = fulmen.MultiLevelCascadeAttentionWrapper(2, workspace(), "NHD", True, *buffers)
    most.plan(w, "gpu")
    q, k, v = most.q.clone(), most.k.clone(), most.v.clone()
    w.run(q, (k, v))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = w.run(q, (k, v))
    for prefix, own in ((40, [60, 60, 60]), (0, [1, 2, 3]), (7, [0, 55, 9])):
        p = Shared(rng, [[(3, prefix)]], own)
        q.copy_(p.q)
        k[: len(p.k)], v[: len(p.v)] = p.k, p.v
        p.plan(w, "gpu")
        graph.replay()
        near(out, p.expected())


def test_a_graph_chooses_between_levels_and_flat_anew(rng):
    long, short = Shared(rng, [[(256, 5000)]], [9] * 256), Shared(rng, [[(256, 3)]], [5, 9] * 128)
    buffers = [[torch.zeros_like(x) for x in array] for array in long.arrays("gpu")]
    w = fulmen.MultiLevelCascadeAttentionWrapper(2, workspace(), "NHD", True, *buffers)
    levels = fulmen.MultiLevelCascadeAttentionWrapper(2, workspace())
    q, k, v = long.q.clone(), long.k.clone(), long.v.clone()
    long.plan(w, "gpu")
    with nothing_waits():
        w.run(q, (k, v))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = w.run(q, (k, v))
    for p in (short, long, short):
        q.copy_(p.q)
        k[: len(p.k)], v[: len(p.v)] = p.k, p.v
        p.plan(w, "gpu")
        out.zero_()
        graph.replay()
        assert w._choice.num_above.item() == (0 if p is short else 1)
        p.plan(levels, "host")
        assert levels._is_flat == (p is short)
        near(out, f64(levels.run(q, (k, v))))
    near(out, short.expected())


def test_shared_prefix_wrappers_in_a_graph(rng):
    p = paged(rng, [20, 9])
    k, v = (torch.randn(30, HEADS[1], DIMS[0], dtype=torch.float16, device="cuda") for _ in range(2))
    tables, prefill = p.ints("indptr", "indices", "last"), p.ints("qo_indptr", "indptr", "indices", "last")
    expected = []
    for b in range(2):
        own = [gather(f64(x), p.indices, p.indptr, p.kv_lens, b) for x in (p.k, p.v)]
        keys, values = (np.concatenate([f64(s), x]) for s, x in zip((k, v), own))
        expected.append(attention(f64(p.q)[b : b + 1], keys, values)[0])
    decode = fulmen.BatchDecodeWithSharedPrefixPagedKVCacheWrapper(workspace())
    append = fulmen.BatchPrefillWithSharedPrefixPagedKVCacheWrapper(workspace())
    for w, own in ((decode, tables), (append, prefill)):
        w.begin_forward(*own, *HEADS, DIMS[0], PAGE)
        w.forward(p.q, k, v, (p.k, p.v))
        with nothing_waits():
            near_gpu = w.forward(p.q, k, v, (p.k, p.v))
        near(near_gpu, np.concatenate(expected))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = w.forward(p.q, k, v, (p.k, p.v))
        out.zero_()
        graph.replay()
        near(out, np.concatenate(expected))
