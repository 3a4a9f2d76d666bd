# SPDX-License-Identifier: Apache-2.0
"""Two planned batches in one call of the library, on the CPU; test_pod_cuda.py: at once on a GPU."""

import numpy as np
import pytest
from paged import Paged, near

import fulmen
from fulmen._arrays import arg, out_arg
from fulmen._ffi import lib


class Half:
    """A planned wrapper, and what attention_run_beside takes for it."""

    def __init__(self, p, causal):
        self.p = p
        self.wrapper = fulmen.BatchPrefillWithPagedKVCacheWrapper(None)
        tables = p.ints("qo_indptr", "indptr", "indices", "last")
        self.wrapper.plan(*tables, *p.heads, p.dims[0], p.page_size, causal=causal)
        self.out = p.xp.empty(tuple(p.q.shape), "float16")
        self.lse = p.xp.empty(tuple(p.q.shape)[:2], "float32")

    def args(self, workspace=None, variant=(None,)):
        w = self.wrapper
        tensors = (arg(self.p.q), arg(self.p.k), arg(self.p.v), out_arg(self.out), out_arg(self.lse))
        workspace = w._workspace_arg if workspace is None else workspace
        return w._plan_info, *tensors, None, workspace, 1.0, 1.0, 0.5, *variant


@pytest.fixture
def halves(xp, rng):
    if xp.name == "torch_cuda":
        pytest.skip("test_pod_cuda.py")
    return Half(Paged(xp, rng, [9, 0, 14]), False), Half(Paged(xp, rng, [30, 9], [4, 9]), True)


def test_both_run(halves):
    decode, prefill = halves
    assert not lib.attention_runs_beside(decode.wrapper._plan_info)
    lib.attention_run_beside(*decode.args(), *prefill.args())
    for half, causal in ((decode, False), (prefill, True)):
        out, _ = half.p.expected(causal=causal)
        near(half.out, out * 0.5)


def test_a_half_may_have_a_variant(halves):
    decode, prefill = halves
    text = """struct Twice : AttentionVariantBase {
      static constexpr bool use_softmax = true;
      uint32_t window_left, qo_len, kv_len;
      float sm_scale_log2;
      template <typename Params>
      __device__ __host__ Twice(const Params& params, uint32_t batch_idx, uint8_t*) {
        qo_len = params.get_qo_len(batch_idx), kv_len = params.get_kv_len(batch_idx), window_left = kv_len;
        sm_scale_log2 = params.sm_scale * math::log2e;
      }
    };"""
    variant = lib.flashinfer_variant("Twice", text, "", "sm_scale double")
    lib.attention_run_beside(*decode.args(variant=(variant, 0.25)), *prefill.args())
    near(decode.out, decode.p.expected(sm_scale=0.25)[0] * 0.5)
    near(prefill.out, prefill.p.expected(causal=True)[0] * 0.5)
    with pytest.raises(TypeError, match="attention_run_beside: got 25 arguments, expected 26"):
        lib.attention_run_beside(*decode.args(variant=(variant, 0.25)), *prefill.args(variant=(variant,)))


def test_refusals(halves):
    decode, prefill = halves
    with pytest.raises(TypeError, match="attention_run_beside: got 23 arguments, expected 24"):
        lib.attention_run_beside(*decode.args(), *prefill.args()[:-1])
    with pytest.raises(TypeError, match="attention_run_beside: got 25 arguments, expected 24"):
        lib.attention_run_beside(*decode.args(), *prefill.args(), None)
    with pytest.raises(ValueError, match="workspace has 16 bytes, expected"):
        lib.attention_run_beside(*decode.args(), *prefill.args(workspace=arg(np.empty(16, np.uint8))))
    with pytest.raises(TypeError):
        lib.attention_run_beside(*decode.args(), None, *prefill.args()[1:])
    decode.p.q = prefill.p.q
    with pytest.raises(ValueError, match="out"):
        lib.attention_run_beside(*decode.args(), *prefill.args())


def test_a_call_that_failed_leaves_no_half_behind(xp, rng):
    if xp.name == "torch_cuda":
        pytest.skip("lengths on a GPU are not looked at")
    d, p, other = Paged(xp, rng, [9, 4, 14]), Paged(xp, rng, [30, 9], [4, 9]), Paged(xp, rng, [31, 12], [4, 9])
    names = ("qo_indptr", "indptr", "indices", "last")
    options = (*p.heads, p.dims[0], p.page_size)
    w = fulmen.BatchPODWithPagedKVCacheWrapper(None)
    w.plan(*p.ints(*names), *d.ints(*names), *options)
    caches = (p.q, (p.k, p.v), d.q, (d.k, d.v))
    with pytest.raises(ValueError, match="custom_mask"):
        w.run(*caches, custom_mask_p=xp.array(np.ones(7), "bool"))
    for out, expected in zip(w.run(*caches), (p.expected()[0], d.expected()[0])):
        near(out, expected)
    with pytest.raises(TypeError, match="kv_indices_d"):
        w.plan(*other.ints(*names), *d.ints("qo_indptr", "indptr"), None, *d.ints("last"), *options)
    with pytest.raises(RuntimeError, match=r"run\(\) before plan"):
        w.run(other.q, (other.k, other.v), d.q, (d.k, d.v))
