# SPDX-License-Identifier: Apache-2.0
"""Other faces of attention on CUDA tensors: scales, multi-item scoring and block masks without waiting, POD, fa3."""

import inspect

import numpy as np
import pytest
from conftest import f64, needs_cuda, torch
from numpy_oracle import attention
from paged import near
from test_attention_cuda import DIMS, HEADS, PAGE, SIGMOID, decode_plan, nothing_waits, paged, workspace

import fulmen

pytestmark = needs_cuda


def number(x):
    return torch.tensor([x], device="cuda")


def test_scales_on_the_gpu(rng):
    p = paged(rng, [7, 90])
    w = fulmen.BatchDecodeWithPagedKVCacheWrapper(workspace())
    decode_plan(w, p)
    numbers = {"q_scale": 0.5, "k_scale": 0.25, "v_scale": 3.0}
    expected = w.run(p.q, (p.k, p.v), **numbers)
    tensors = {name: number(x) for name, x in numbers.items()}
    w.run(p.q, (p.k, p.v), **tensors)
    decode_plan(w, p, p.ints("indptr", "indices", "last"))
    with nothing_waits():
        got = w.run(p.q, (p.k, p.v), **tensors)
        mixed = w.run(p.q, (p.k, p.v), q_scale=0.5, k_scale=tensors["k_scale"], v_scale=3.0)
    assert (f64(got) == f64(expected)).all() and (f64(mixed) == f64(expected)).all()  # powers of two, and 3 in float32
    k, v = (torch.randn(50, 2, 64, dtype=torch.float16, device="cuda") for _ in range(2))
    expected = fulmen.single_decode_with_kv_cache(p.q[0], k, v, q_scale=0.5, v_scale=2.0)
    factors = number(0.5), number(2.0)
    with nothing_waits():
        got = fulmen.single_decode_with_kv_cache(p.q[0], k, v, q_scale=factors[0], v_scale=factors[1])
    assert (f64(got) == f64(expected)).all()
    with pytest.raises(NotImplementedError, match="k_scale: a tensor of 2 values"):
        fulmen.single_decode_with_kv_cache(p.q[0], k, v, k_scale=torch.ones(2, device="cuda"))


def items(qo_len, kv_len, prefix_len, places):
    """The mask of one request, from the definition."""
    mask = np.zeros((qo_len, kv_len), bool)
    for row in range(qo_len):
        i = kv_len - qo_len + row
        for j in range(i + 1):
            mask[row, j] = i < prefix_len or j < prefix_len or j > i - places[i - prefix_len]
    return mask


@pytest.mark.parametrize("cap", [0.0, 2.0])
def test_multi_item_scoring_does_not_wait(rng, cap):
    p = paged(rng, [20, 33], [20, 25])
    prefix_lens, stride = [6, 12], 24
    places = np.zeros((2, stride), np.uint16)
    places[0, :14] = [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 0, 1, 2, 0]
    places[1, :21] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1, 0, 1, 2, 3, 4, 5, 6, 0]
    masks = [items(*x) for x in zip(p.qo_lens, p.kv_lens, prefix_lens, places)]
    tables = p.ints("qo_indptr", "indptr", "indices", "last")
    scoring = dict(
        prefix_len_ptr=torch.tensor(prefix_lens, device="cuda", dtype=torch.int32).view(torch.uint32),
        token_pos_in_items_ptr=torch.from_numpy(places.view(np.int16)).cuda().view(torch.uint16).reshape(-1),
        token_pos_in_items_len=stride,
    )
    w = fulmen.BatchPrefillWithPagedKVCacheWrapper(workspace())

    def step():
        w.plan(*tables, *HEADS, DIMS[0], PAGE, causal=True, logits_soft_cap=cap, q_data_type="float16", **scoring)
        return w.run(p.q, (p.k, p.v), q_scale=0.5, v_scale=2.0)

    step()
    with nothing_waits():
        out = step()
    near(f64(out).astype(np.float16) / 2, p.expected(mask=masks, cap=cap, sm_scale=0.5 * DIMS[0] ** -0.5)[0])
    w.plan(*tables, *HEADS, DIMS[0], PAGE, causal=True, q_data_type="float16")
    near(w.run(p.q, (p.k, p.v)), p.expected(causal=True)[0])


def test_block_masks_do_not_wait(rng):
    m, n, r, c = 12, 20, 4, 5
    blocks = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    indptr = np.concatenate([[0], np.cumsum(blocks.sum(1))])
    indices = np.concatenate([np.flatnonzero(row) for row in blocks])
    inner = rng.random((len(indices), r, c)) < 0.7
    dense = np.zeros((m, n), bool)
    for row in range(3):
        for i in range(indptr[row], indptr[row + 1]):
            dense[row * r : (row + 1) * r, indices[i] * c : (indices[i] + 1) * c] = inner[i]
    q, k, v = (torch.randn(x, h, 64, dtype=torch.float16, device="cuda") for x, h in ((m, 4), (n, 2), (n, 2)))
    tables = [torch.from_numpy(np.asarray(x, np.int32)).cuda() for x in (indptr, indices)]
    mask = torch.from_numpy(inner).cuda()
    w = fulmen.BlockSparseAttentionWrapper(workspace())
    w.plan(*tables, m, n, r, c, 4, 2, 64, mask=mask)
    w.run(q, k, v)
    with nothing_waits():
        w.plan(*tables, m, n, r, c, 4, 2, 64, mask=mask)
        out = w.run(q, k, v)
    near(out, attention(f64(q), f64(k), f64(v), mask=dense)[0])


FA3_SIGMOID = """
struct Sigmoid3 : AttentionVariantBase {
  float scale_log2, bias_log2;
  template <typename MainloopParams, typename BlockCoord>
  __device__ __host__ Sigmoid3(const MainloopParams& params, const BlockCoord& block_coord) {
    scale_log2 = params.additional_params.logits_scale * math::log2e;
    bias_log2 = params.additional_params.sigmoid_bias * math::log2e;
  }
  template <int NUM_ROWS_PER_THREAD>
  __device__ auto GetAttentionUpdater() { return DefaultUpdater<NUM_ROWS_PER_THREAD>(); }
  REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx,
                            { return math::ptx_rcp(1.f + math::ptx_exp2(-float(logits * scale_log2 + bias_log2))); })
};
"""


def test_texts_for_fa3(rng):
    names = [], [], ["logits_scale", "sigmoid_bias"], ["double", "double"]
    p = paged(rng, [40, 7], [3, 7])
    outs = []
    for backend, name, text in (("fa2", "Sigmoid", SIGMOID), ("fa3", "Sigmoid3", FA3_SIGMOID)):
        jit_args = ["sigmoid", *[torch.float16] * 3, torch.int32, *DIMS, *names, name, text]
        w = fulmen.BatchPrefillWithPagedKVCacheWrapper(workspace(), backend=backend, jit_args=jit_args)
        w.plan(*p.ints("qo_indptr", "indptr", "indices", "last"), *HEADS, DIMS[0], PAGE, causal=True)
        outs.append(f64(w.run(p.q, (p.k, p.v), 0.125, -1.0)))
    assert (outs[0] == outs[1]).all()


def test_a_pod_variant(rng):
    halves = [torch.float16] * 3
    extras = [], [], ["logits_scale", "sigmoid_bias"], ["double", "double"]
    text = SIGMOID + SIGMOID.replace("Sigmoid", "SigmoidOfDecode")
    jit_args = ["pod", *halves, torch.int32, DIMS[0], *extras, "Sigmoid", "SigmoidOfDecode", text]
    p = paged(rng, [9, 14])
    q, k, v = (torch.randn(s, dtype=torch.float16, device="cuda") for s in ((5, 8, 64), (12, 2, 64), (12, 2, 64)))
    w = fulmen.PODWithPagedKVCacheWrapper(workspace(), jit_args=jit_args)
    w.plan(*p.ints("indptr", "indices", "last"), *HEADS, DIMS[0], PAGE)
    between = [x.default for x in inspect.signature(w.run).parameters.values()][5:-1]
    between[2] = True  # causal_p
    out_p, out_d = w.run(q, k, v, p.q, (p.k, p.v), *between, 0.125, -1.0)
    single = fulmen.jit.gen_customize_single_prefill_module("fa2", "one", *halves, *DIMS, *extras, "Sigmoid", SIGMOID)
    run = fulmen.prefill.single_prefill_with_kv_cache_with_jit_module
    assert (f64(out_p) == f64(run(single.load(), q, k, v, 0.125, -1.0, mask_mode=1))).all()
    for b in range(2):
        own = p.indices[p.indptr[b] : p.indptr[b + 1]]
        keys, values = (x[own].reshape(-1, 2, 64)[: p.kv_lens[b]] for x in (p.k, p.v))
        near(out_d[b : b + 1], f64(run(single.load(), p.q[b : b + 1], keys, values, 0.125, -1.0)))
    halves_of = w.run(q, k, v, p.q, (p.k, p.v), *between, 0.125, -1.0, 0.125, -1.0)
    assert (f64(halves_of[1]) == f64(out_d)).all()
    with pytest.raises(TypeError, match="logits_scale, sigmoid_bias"):
        w.run(q, k, v, p.q, (p.k, p.v), *between, 0.125)
