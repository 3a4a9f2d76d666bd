# SPDX-License-Identifier: Apache-2.0
"""POD on CUDA tensors: both halves at once have the results of each by itself, whatever their options are."""

import numpy as np
import pytest
from conftest import f64, needs_cuda, torch
from paged import near
from test_attention_cuda import DIMS, HEADS, PAGE, nothing_waits, paged, workspace

import fulmen
from fulmen._ffi import lib

pytestmark = needs_cuda
ROOM = 80000  # page ids: for as many keys as pay


def decodes(rng, batch=150, most=200, low=0):
    p = paged(rng, [int(n) for n in rng.integers(low, most, batch)])
    p.indices = np.concatenate([p.indices, np.zeros(ROOM, np.int32)])
    return p


def prefill(rows=300, keys=500, layout="NHD"):
    shapes = [(rows, HEADS[0], 64)] + [(keys, HEADS[1], 64) if layout == "NHD" else (HEADS[1], keys, 64)] * 2
    return [torch.randn(s, dtype=torch.float16, device="cuda") for s in shapes]


def planned(p, buffer=None, **options):
    w = fulmen.PODWithPagedKVCacheWrapper(workspace() if buffer is None else buffer)
    w.plan(*p.ints("indptr", "indices", "last"), *HEADS, DIMS[0], PAGE, **options)
    return w


def runs_beside(w):
    plan = w._decode._device_plan._plan
    return lib.attention_runs_beside(plan)


def overlaps():
    return torch.cuda.get_device_capability()[0] >= 9


OPTIONS = [
    ({"causal_p": True}, {}),
    ({"causal_p": True, "window_left_p": 30, "sm_scale_p": 0.2}, {"sm_scale": 0.05}),
    ({"kv_layout_p": "HND", "pos_encoding_mode_p": "ALIBI"}, {"window_left": 20}),
    ({"pos_encoding_mode_p": "ROPE_LLAMA", "causal_p": True}, {"pos_encoding_mode": "ROPE_LLAMA", "rope_theta": 5e5}),
]


@pytest.mark.parametrize("of_p, of_d", OPTIONS)
def test_halves_are_those_of_their_own_calls(rng, of_p, of_d):
    p = decodes(rng)
    q, k, v = prefill(layout=of_p.get("kv_layout_p", "NHD"))
    single = {name.removesuffix("_p"): x for name, x in of_p.items()}
    expected_p = f64(fulmen.single_prefill_with_kv_cache(q, k, v, **single))
    own = fulmen.BatchDecodeWithPagedKVCacheWrapper(workspace())
    own.plan(*p.ints("indptr", "indices", "last"), *HEADS, DIMS[0], PAGE, **of_d)
    expected_d = f64(own.run(p.q, (p.k, p.v), v_scale=0.5))
    w = planned(p, **of_d)
    for _ in range(2):
        out_p, out_d = w.run(q, k, v, p.q, (p.k, p.v), **of_p, v_scale=0.5)
        near(out_p, expected_p)
        near(out_d, expected_d)
    assert runs_beside(w) == (overlaps() and "window_left" not in of_d)  # windows of few keys do not pay


def test_a_mask_and_scales_on_the_gpu(rng):
    p = decodes(rng)
    q, k, v = prefill()
    mask = torch.rand((300, 500), device="cuda") < 0.5
    half = torch.tensor([0.5], device="cuda")
    w = planned(p)
    packed = fulmen.packbits(mask.reshape(-1), "little")
    of_masks = [{"custom_mask_p": mask}, {"packed_custom_mask_p": packed}, {"custom_mask_p": mask.cpu().numpy()}]
    for of_mask in (*of_masks, {"packed_custom_mask_p": packed.cpu().numpy()}):
        out_p, out_d = w.run(q, k, v, p.q, (p.k, p.v), **of_mask, k_scale=half, v_scale=half)
        near(out_p, f64(fulmen.single_prefill_with_kv_cache(q, k, v, custom_mask=mask)))
        near(out_d, p.expected(sm_scale=0.5 / 8)[0] * 0.5)
    with pytest.raises(ValueError, match="custom_mask"):
        w.run(q, k, v, p.q, (p.k, p.v), custom_mask_p=mask[:100])


def test_nothing_waits_and_prefills_may_differ(rng):
    p = decodes(rng)
    w = planned(p)
    prefills = [prefill(300, 500), prefill(1, 20), prefill(700, 900), prefill(300, 500)]
    expected_d = p.expected()[0]
    tables = p.ints("indptr", "indices", "last")
    for waits in (False, True):  # the first round compiles
        outs = []
        with nothing_waits() if waits else torch.no_grad():
            for q, k, v in prefills:
                w.plan(*tables, *HEADS, DIMS[0], PAGE)
                outs += [w.run(q, k, v, p.q, (p.k, p.v), causal_p=True) for _ in range(2)]
    for i, (out_p, out_d) in enumerate(outs):
        near(out_p, f64(fulmen.single_prefill_with_kv_cache(*prefills[i // 2], causal=True)))
        near(out_d, expected_d)


@pytest.mark.parametrize("size", [1 << 20, 24 << 20, 128 << 20])
def test_small_workspaces(rng, size):
    p = decodes(rng)
    q, k, v = prefill()
    w = planned(p, torch.full((size // 4,), float("nan"), device="cuda"))
    out_p, out_d = w.run(q, k, v, p.q, (p.k, p.v), causal_p=True)
    near(out_p, f64(fulmen.single_prefill_with_kv_cache(q, k, v, causal=True)))
    near(out_d, p.expected()[0])
    w.reset_workspace_buffer(workspace(), None)
    near(w.run(q, k, v, p.q, (p.k, p.v), causal_p=True)[1], p.expected()[0])


def test_empty_halves(rng):
    p = decodes(rng)
    w = planned(p)
    q, k, v = prefill(0, 50)
    out_p, out_d = w.run(q, k, v, p.q, (p.k, p.v), causal_p=True)
    assert tuple(out_p.shape) == (0, 8, 64)
    near(out_d, p.expected()[0])
    none = paged(rng, [0] * 150)
    w = planned(none)
    q, k, v = prefill()
    out_p, out_d = w.run(q, k, v, none.q, (p.k, p.v), causal_p=True)
    assert float(out_d.abs().max()) == 0
    near(out_p, f64(fulmen.single_prefill_with_kv_cache(q, k, v, causal=True)))


def test_a_graph_follows_its_tables(rng):
    most = paged(rng, [200] * 150)
    buffers = [torch.zeros(n, dtype=torch.int32, device="cuda") for n in (151, most.indices.shape[0] + ROOM, 150)]
    w = fulmen.PODWithPagedKVCacheWrapper(workspace(), "NHD", True, *buffers)
    w.plan(*most.ints("indptr", "indices", "last"), *HEADS, DIMS[0], PAGE)
    q, k, v = prefill()
    q_d = torch.zeros_like(most.q)
    w.run(q, k, v, q_d, (most.k, most.v), causal_p=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(2):  # layers
            out_p, out_d = w.run(q, k, v, q_d, (most.k, most.v), causal_p=True)
        total = out_d.float().sum() + out_p.float().sum()  # a kernel that knows nothing of dependent launches
    assert runs_beside(w) == overlaps()
    for turn in range(4):
        lens = [0] * 150 if turn == 1 else [200, *[1] * 149] if turn == 2 else rng.integers(0, 200, 150)
        p = paged(rng, [int(n) for n in lens])
        most.k[: p.k.shape[0]], most.v[: p.v.shape[0]] = p.k, p.v
        q_d.copy_(p.q)
        for x in prefill():
            (q if x.shape == q.shape else k).copy_(x)
        tables = p.ints("indptr", "indices", "last")
        with nothing_waits():
            w.plan(*tables, *HEADS, DIMS[0], PAGE)
            out_p.fill_(float("nan")), out_d.fill_(float("nan"))
            graph.replay()
        near(out_d, p.expected()[0])
        near(out_p, f64(fulmen.single_prefill_with_kv_cache(q, k, v, causal=True)))
        assert abs(float(total) - float(out_d.float().sum() + out_p.float().sum())) < 0.5


@pytest.mark.parametrize("pdl", [None, True, False])
def test_batches(rng, pdl):
    d, p = decodes(rng, low=1), paged(rng, [300, 40, 500], [200, 40, 120])
    w = fulmen.BatchPODWithPagedKVCacheWrapper(workspace())
    names = ("qo_indptr", "indptr", "indices", "last")
    w.plan(*p.ints(*names), *d.ints(*names), *HEADS, DIMS[0], PAGE)
    caches = (p.q, (p.k, p.v), d.q, (d.k, d.v))
    expected_d = d.expected()
    for causal in (False, True, False):
        (out_p, out_d), (lse_p, lse_d) = w.run(*caches, causal_p=causal, return_lse=True, enable_pdl=pdl)
        expected_p = p.expected(causal=causal)
        near(out_p, expected_p[0]), near(out_d, expected_d[0])
        near(lse_p, expected_p[1]), near(lse_d, expected_d[1])
    assert runs_beside(w) == (overlaps() and pdl is not False)
    masks = [np.asarray(rng.random((int(a), int(b))) < 0.5) for a, b in zip(p.qo_lens, p.kv_lens)]
    flat = torch.from_numpy(np.concatenate([m.reshape(-1) for m in masks])).cuda()
    near(w.run(*caches, custom_mask_p=flat, enable_pdl=pdl)[0], p.expected(mask=masks)[0])
    half = torch.tensor([0.5], device="cuda")
    near(w.run(*caches, v_scale=half, enable_pdl=pdl)[1], expected_d[0] * 0.5)


def test_a_half_on_the_host(rng):
    d, p = decodes(rng, low=1), paged(rng, [300, 40, 500], [200, 40, 120])
    w = fulmen.BatchPODWithPagedKVCacheWrapper(None)
    names = ("qo_indptr", "indptr", "indices", "last")
    host = [x.cpu() if torch.is_tensor(x) else x for x in p.ints(*names)]
    w.plan(*host, *d.ints(*names), *HEADS, DIMS[0], PAGE)
    for _ in range(2):
        out_p, out_d = w.run(p.q.cpu(), (p.k.cpu(), p.v.cpu()), d.q, (d.k, d.v), causal_p=True)
        near(out_p, p.expected(causal=True)[0]), near(out_d, d.expected()[0])
    pod, (q, k, v) = planned(d), (x.cpu() for x in prefill(30, 50))
    out_p, out_d = pod.run(q, k, v, d.q, (d.k, d.v), causal_p=True)
    near(out_p, f64(fulmen.single_prefill_with_kv_cache(q, k, v, causal=True))), near(out_d, d.expected()[0])
