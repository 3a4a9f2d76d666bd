# SPDX-License-Identifier: Apache-2.0
"""Wrappers on CUDA tensors: nothing waits for the GPU, graphs follow their tables, workspaces may be shared.

Values are compared with a fresh wrapper's eager run; test_attention.py holds those to the oracle. What engines do is
done here as they do it.
"""

from __future__ import annotations

import contextlib
import functools

import numpy as np
import pytest
from conftest import TorchCuda, f64, needs_cuda, torch
from paged import Paged, near

import fulmen

pytestmark = needs_cuda
DIMS, HEADS, PAGE = (64, 64), (8, 2), 4


@contextlib.contextmanager
def nothing_waits():
    """PyTorch raises where a call of it would wait for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def paged(rng, kv_lens, qo_lens=None, heads=HEADS):
    return Paged(TorchCuda(), rng, kv_lens, qo_lens, page_size=PAGE, heads=heads, dims=DIMS)


def cuda_ints(*arrays):
    return [torch.tensor(np.asarray(x), dtype=torch.int32, device="cuda") for x in arrays]


def workspace():
    return torch.empty(96 << 20, dtype=torch.uint8, device="cuda")


def decode_plan(w, p, tables=None, **options):
    w.plan(*(tables or p.ints("indptr", "indices", "last")), *HEADS, DIMS[0], PAGE, q_data_type="float16", **options)


def test_plan_and_run_do_not_wait(rng):
    p = paged(rng, [1, 0, 33, 700], [1, 2, 3, 40])
    d = paged(rng, [5, 80])
    decode = fulmen.BatchDecodeWithPagedKVCacheWrapper(workspace())
    prefill = fulmen.BatchPrefillWithPagedKVCacheWrapper(workspace())
    mask = torch.rand(sum(int(q) * int(k) for q, k in zip(p.qo_lens, p.kv_lens)), device="cuda") < 0.5
    tables, own = p.ints("qo_indptr", "indptr", "indices", "last"), d.ints("indptr", "indices", "last")
    options = {"causal": True, "q_data_type": "float16"}

    def step():
        decode_plan(decode, d, own)
        prefill.plan(*tables, *HEADS, DIMS[0], PAGE, **options)
        out = decode.run(d.q, (d.k, d.v)), prefill.run(p.q, (p.k, p.v))
        prefill.plan(*tables, *HEADS, DIMS[0], PAGE, custom_mask=mask, **options)
        return *out, prefill.run(p.q, (p.k, p.v))

    step()  # compiles
    with nothing_waits():
        out_d, out_p, masked = step()
    near(out_d, d.expected()[0])
    near(out_p, p.expected(causal=True)[0])
    bits, masks, at = mask.cpu().numpy(), [], 0
    for q, k in zip(p.qo_lens, p.kv_lens):
        masks.append(bits[at : at + q * k].reshape(q, k))
        at += q * k
    near(masked, p.expected(mask=masks)[0])


@pytest.mark.parametrize("where", ["host", "mixed"])
def test_tables_in_host_memory(rng, where):
    """vLLM plans with indptr and last_page_len on the CPU and indices on the GPU."""
    p = paged(rng, [7, 0, 90])
    host = [torch.from_numpy(x) for x in (p.indptr, p.indices, p.last)]
    if where == "mixed":
        host[1] = host[1].cuda()
    for buffer in (None, workspace()):
        w = fulmen.BatchDecodeWithPagedKVCacheWrapper(buffer)
        decode_plan(w, p, host)
        near(w.run(p.q, (p.k, p.v)), p.expected()[0])


def test_wrappers_share_a_workspace(rng):
    a, b, shared = paged(rng, [300, 20, 9]), paged(rng, [50, 600]), workspace()
    first, second = (fulmen.BatchDecodeWithPagedKVCacheWrapper(shared) for _ in range(2))
    decode_plan(first, a), decode_plan(second, b)
    expected = a.expected()[0], b.expected()[0]
    for _ in range(3):
        near(first.run(a.q, (a.k, a.v)), expected[0])
        near(second.run(b.q, (b.k, b.v)), expected[1])


def graph_wrapper(batch, pages):
    buffers = [torch.zeros(n, dtype=torch.int32, device="cuda") for n in (batch + 1, pages, batch)]
    return fulmen.CUDAGraphBatchDecodeWithPagedKVCacheWrapper(workspace(), *buffers), buffers


@pytest.mark.parametrize("how", ["plan", "fast_decode_plan", "buffers"])
def test_a_decode_graph_follows_its_tables(rng, how):
    most = paged(rng, [200, 200, 200])
    w, buffers = graph_wrapper(3, most.indices.shape[0])
    q, out = torch.zeros_like(most.q), torch.empty_like(most.q)
    decode_plan(w, most)
    w.run(q, (most.k, most.v), out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(2):  # layers
            w.run(q, (most.k, most.v), out=out)
    for lens in ([3, 0, 150], [200, 1, 77], [1, 1, 1], [0, 0, 5]):
        p = paged(rng, lens)
        k, v = (x[: most.k.shape[0]] for x in (p.k, p.v))
        most.k[: k.shape[0]], most.v[: v.shape[0]] = k, v
        q.copy_(p.q)
        tables = p.ints("indptr", "indices", "last")
        with nothing_waits():
            if how == "plan":
                decode_plan(w, p, tables)
            elif how == "fast_decode_plan":
                w.begin_forward = functools.partial(fulmen.fast_decode_plan, w)
                assert w.begin_forward.func is fulmen.fast_decode_plan
                w.begin_forward(*tables, *HEADS, DIMS[0], PAGE, q_data_type="float16")
            else:
                for buffer, x in zip(buffers, tables):
                    buffer[: x.shape[0]].copy_(x)
            out.fill_(float("nan"))
            graph.replay()
        near(out, p.expected()[0])


def test_a_prefill_graph_follows_its_tables(rng):
    most = paged(rng, [200, 200], [30, 30])
    sizes = (3, 3, most.indices.shape[0], 2)
    buffers = [torch.zeros(n, dtype=torch.int32, device="cuda") for n in sizes]
    w = fulmen.BatchPrefillWithPagedKVCacheWrapper(workspace(), "NHD", True, *buffers)
    w.plan(*most.ints("qo_indptr", "indptr", "indices", "last"), *HEADS, DIMS[0], PAGE, causal=True)
    q, out = torch.zeros_like(most.q), torch.empty_like(most.q)
    w.run(q, (most.k, most.v), out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        w.run(q, (most.k, most.v), out=out)
    for kv, qo in (([9, 100], [9, 1]), ([200, 3], [30, 30]), ([64, 0], [0, 5])):
        p = paged(rng, kv, qo)
        most.k[: p.k.shape[0]], most.v[: p.v.shape[0]] = p.k, p.v
        q[: p.q.shape[0]] = p.q
        w.plan(*p.ints("qo_indptr", "indptr", "indices", "last"), *HEADS, DIMS[0], PAGE, causal=True)
        graph.replay()
        near(out[: p.q.shape[0]], p.expected(causal=True)[0])


def test_block_tables_in_a_graph(rng):
    p = paged(rng, [33, 7])
    table = torch.zeros((2, 40), dtype=torch.int32, device="cuda")
    for b in range(2):
        ids = p.indices[p.indptr[b] : p.indptr[b + 1]]
        table[b, : len(ids)] = torch.from_numpy(ids)
    lens, out = torch.tensor([33, 7], dtype=torch.int32, device="cuda"), torch.empty_like(p.q)
    cache = tuple(x.transpose(1, 2) for x in (p.k, p.v))  # HND views of NHD memory
    args = (p.q, cache, None, table, lens, 160, DIMS[0] ** -0.5)
    with nothing_waits() if _warm(args, out) else contextlib.nullcontext():
        fulmen.decode.trtllm_batch_decode_with_kv_cache(*args, out=out)
    near(out, p.expected()[0])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fulmen.decode.trtllm_batch_decode_with_kv_cache(*args, out=out)
    lens.copy_(torch.tensor([5, 6], dtype=torch.int32))
    graph.replay()
    p.kv_lens = np.array([5, 6])
    near(out, p.expected()[0])


def _warm(args, out):
    fulmen.decode.trtllm_batch_decode_with_kv_cache(*args, out=out)
    return True


def test_bits_do_not_depend_on_the_batch(rng):
    """fixed_split_size: a request alone and in a crowd, eager and in a graph."""
    p = paged(rng, [700] + [int(x) for x in rng.integers(1, 300, size=40)])
    w = fulmen.BatchDecodeWithPagedKVCacheWrapper(workspace())
    decode_plan(w, p, fixed_split_size=16)
    crowd = w.run(p.q, (p.k, p.v))
    decode_plan(w, p, [x[:n] for x, n in zip(p.ints("indptr", "indices", "last"), (2, int(p.indptr[1]), 1))],
                fixed_split_size=16)  # fmt: skip
    alone = w.run(p.q[:1], (p.k, p.v))
    assert (f64(alone) == f64(crowd[:1])).all()


def test_native_plan_of_engines(rng):
    """vLLM's own planner writes the buffers and calls the native module."""
    p = paged(rng, [20, 90])
    w, buffers = graph_wrapper(2, 64)
    decode_plan(w, p)
    w.run(p.q, (p.k, p.v))
    q = paged(rng, [90, 11])
    for buffer, x in zip(buffers, q.ints("indptr", "indices", "last")):
        buffer[: x.shape[0]].copy_(x)
    w._plan_info = w._cached_module.plan(w._float_workspace_buffer, None, None, None)
    k, v = q.k, q.v
    near(w.run(q.q, (k, v)), q.expected()[0])


SIGMOID = """
struct Sigmoid : AttentionVariantBase {
  static constexpr bool use_softmax = false;
  uint32_t window_left, qo_len, kv_len;
  float scale_log2, bias_log2;
  template <typename Params>
  __device__ __host__ Sigmoid(const Params& params, uint32_t batch_idx, uint8_t* smem_ptr) {
    qo_len = params.get_qo_len(batch_idx), kv_len = params.get_kv_len(batch_idx), window_left = kv_len;
    scale_log2 = params.logits_scale * math::log2e, bias_log2 = params.sigmoid_bias * math::log2e;
  }
  REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx,
                            { return math::ptx_rcp(1.f + math::ptx_exp2(-float(logits * scale_log2 + bias_log2))); })
  REGISTER_OUTPUT_TRANSFORM(params, output, batch_idx, qo_idx, qo_head_idx, m, d, scale, { return output; })
};
"""


def test_single_calls_with_a_variant(rng):
    args = ([], [], ["logits_scale", "sigmoid_bias"], ["double", "double"], "Sigmoid", SIGMOID)
    half = [torch.float16] * 3
    module = fulmen.jit.gen_customize_single_prefill_module("fa2", "sigmoid", *half, *DIMS, *args).build_and_load()
    q, k, v = (torch.randn(s, dtype=torch.float16, device="cuda") for s in ((5, 4, 64), (90, 2, 64), (90, 2, 64)))
    got = fulmen.prefill.single_prefill_with_kv_cache_with_jit_module(module, q, k, v, 0.125, -1.0)
    heads = [x.double().repeat_interleave(2, 1) for x in (k, v)]
    weights = torch.sigmoid(torch.einsum("ihd,jhd->hij", q.double(), heads[0]) * 0.125 - 1.0)
    near(got, f64(torch.einsum("hij,jhd->ihd", weights, heads[1])))
    decode = fulmen.jit.gen_customize_single_decode_module("sigmoid_decode", *half, *DIMS, *args).build_and_load()
    one = fulmen.decode.single_decode_with_kv_cache_with_jit_module(decode, q[0], k, v, 0.125, -1.0)
    near(one, f64(got[0]))
    with pytest.raises(TypeError, match="logits_scale, sigmoid_bias"):
        fulmen.decode.single_decode_with_kv_cache_with_jit_module(decode, q[0], k, v, 0.125)


def test_wrappers_with_a_variant(rng):
    from fulmen.jit.attention.variants import attention_sink_decl

    p = paged(rng, [40, 0, 300], [1, 2, 9])
    half = [torch.float16] * 3
    jit_args = ["sink", *half, torch.int32, *DIMS, ["sink"], ["float"], ["sm_scale"], ["double"], "AttentionSink",
                attention_sink_decl["fa2"]]  # fmt: skip
    sink = torch.randn(HEADS[0], device="cuda")
    w = fulmen.BatchPrefillWithPagedKVCacheWrapper(workspace(), backend="fa2", jit_args=jit_args)
    w.plan(*p.ints("qo_indptr", "indptr", "indices", "last"), *HEADS, DIMS[0], PAGE, causal=True, window_left=50)
    out, lse = w.run(p.q, (p.k, p.v), sink, 0.1, return_lse=True)
    expected, lse2 = p.expected(causal=True, window_left=50, sm_scale=0.1, sinks=f64(sink))
    near(out, expected)
    assert (np.isneginf(lse2) == np.isneginf(f64(lse))).all()
