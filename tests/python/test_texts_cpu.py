# SPDX-License-Identifier: Apache-2.0
"""Texts of the caller's on CPU arrays: variants in FlashInfer's form, elementwise operators, `fulmen jit`."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import f64
from paged import Paged, near

import fulmen
from fulmen._ffi import lib

PROBLEM = json.loads(lib.jit_config())["host_compiler_problem"]
pytestmark = pytest.mark.skipif(bool(PROBLEM), reason=f"needs a C++ compiler: {PROBLEM}")

SIGMOID = """
struct SigmoidOnCpu : AttentionVariantBase {
  static constexpr bool use_softmax = false;
  uint32_t window_left, qo_len, kv_len;
  float scale_log2, bias_log2;

  template <typename Params>
  __device__ __host__ SigmoidOnCpu(const Params& params, uint32_t batch_idx, uint8_t* smem_ptr) {
    qo_len = params.get_qo_len(batch_idx), kv_len = params.get_kv_len(batch_idx), window_left = kv_len;
    scale_log2 = params.logits_scale * math::log2e, bias_log2 = params.sigmoid_bias * math::log2e;
  }
  REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx,
                            { return math::ptx_rcp(1.f + math::ptx_exp2(-float(logits * scale_log2 + bias_log2))); })
  REGISTER_OUTPUT_TRANSFORM(params, output, batch_idx, qo_idx, qo_head_idx, m, d, scale, { return output; })
};
"""
SIGMOID_ARGS = ([], [], ["logits_scale", "sigmoid_bias"], ["double", "double"], "SigmoidOnCpu", SIGMOID)
HALF = ["float16"] * 3


@pytest.fixture(autouse=True)
def only_cpu(request):
    framework = getattr(request.node, "callspec", None) and request.node.callspec.params.get("xp")
    if framework is not None and framework.name == "torch_cuda":
        pytest.skip("about CPU arrays")


def sink_args():
    from fulmen.jit.attention.variants import attention_sink_decl

    names = ["sink"], ["float"], ["sm_scale"], ["double"]
    return ["cpu_sink", *HALF, "int32", 64, 64, *names, "AttentionSink", attention_sink_decl["fa2"]]


def sigmoid_expected(q, k, v, scale, bias):
    k, v = (f64(x).repeat(q.shape[1] // x.shape[1], 1) for x in (k, v))
    weights = 1 / (1 + np.exp(-(np.einsum("ihd,jhd->hij", f64(q), k) * scale + bias)))
    return np.einsum("hij,jhd->ihd", weights, v)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_single_calls_with_a_variant(xp, rng, dtype):
    q, k, v = (xp.array(rng.normal(size=s), dtype) for s in ((5, 4, 64), (90, 2, 64), (90, 2, 64)))
    module = fulmen.jit.gen_customize_single_prefill_module("fa2", "sigmoid", *HALF, 64, 64, *SIGMOID_ARGS)
    module = module.build_and_load()
    expected = sigmoid_expected(q, k, v, 0.125, -1.0)
    got = fulmen.prefill.single_prefill_with_kv_cache_with_jit_module(module, q, k, v, 0.125, -1.0)
    assert xp.owns(got)
    near(got, expected)
    decode = fulmen.jit.gen_customize_single_decode_module("sigmoid", *HALF, 64, 64, *SIGMOID_ARGS).build_and_load()
    one = fulmen.decode.single_decode_with_kv_cache_with_jit_module(decode, q[0], k, v, 0.125, -1.0)
    near(one, expected[0])
    with pytest.raises(TypeError, match="logits_scale, sigmoid_bias"):
        fulmen.decode.single_decode_with_kv_cache_with_jit_module(decode, q[0], k, v, 0.125)


def test_wrappers_with_a_variant(xp, rng):
    sink = xp.array(rng.normal(size=4), "float32")
    p = Paged(xp, rng, [40, 0, 300], [1, 2, 9])
    w = fulmen.BatchPrefillWithPagedKVCacheWrapper(None, backend="fa2", jit_args=sink_args())
    w.plan(*p.ints("qo_indptr", "indptr", "indices", "last"), *p.heads, 64, p.page_size, causal=True, window_left=50)
    out, lse = w.run(p.q, (p.k, p.v), sink, 0.1, return_lse=True)
    expected, lse2 = p.expected(causal=True, window_left=50, sm_scale=0.1, sinks=f64(sink))
    near(out, expected)
    assert np.allclose(f64(lse)[1:3] > -1e30, lse2[1:3] > -1e30)
    p = Paged(xp, rng, [40, 1, 300])
    w = fulmen.BatchDecodeWithPagedKVCacheWrapper(None, jit_args=sink_args())
    w.plan(*p.ints("indptr", "indices", "last"), *p.heads, 64, p.page_size)
    near(w.run(p.q, (p.k, p.v), sink, 0.1), p.expected(sm_scale=0.1, sinks=f64(sink))[0])


def test_extras_are_checked(xp, rng):
    p = Paged(xp, rng, [40, 3])
    w = fulmen.BatchDecodeWithPagedKVCacheWrapper(None, jit_args=sink_args())
    w.plan(*p.ints("indptr", "indices", "last"), *p.heads, 64, p.page_size)
    with pytest.raises(ValueError, match="sink has dtype float16, its type in the variant is float"):
        w.run(p.q, (p.k, p.v), xp.array(np.zeros(4), "float16"), 0.1)
    with pytest.raises(ValueError, match="sink is not contiguous"):
        w.run(p.q, (p.k, p.v), xp.array(np.zeros((4, 2)), "float32")[:, 0], 0.1)
    with pytest.raises(TypeError, match="sink is None"):
        w.run(p.q, (p.k, p.v), None, 0.1)
    with pytest.raises(TypeError, match="1 extra arguments, expected sink, sm_scale"):
        w.run(p.q, (p.k, p.v), xp.array(np.zeros(4), "float32"))


def test_a_wrong_text_shows_its_line(rng):
    args = ([], [], [], [], "Wrong", "struct Wrong : AttentionVariantBase {\n  float x = absent;\n};")
    module = fulmen.jit.gen_customize_single_decode_module("wrong", *HALF, 64, 64, *args).build_and_load()
    q, k = (rng.normal(size=s).astype(np.float32) for s in ((2, 64), (9, 2, 64)))
    with pytest.raises(ValueError, match=r"^Wrong\(2\): error: .*absent"):
        fulmen.decode.single_decode_with_kv_cache_with_jit_module(module, q, k, k)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_own_operator(xp, rng, dtype):
    x, y = (xp.array(rng.normal(size=(5, 3, 70)), dtype) for _ in range(2))
    text = "const float gate = a / (1 + expf(-a));\nreturn gate * b * s[0];"
    got = fulmen.activation.elementwise(text, x, y, numbers=[2.0], name="scaled_swiglu")
    assert xp.owns(got)
    near(got, f64(x) / (1 + np.exp(-f64(x))) * f64(y) * 2)
    with pytest.raises(ValueError, match=r"^wrong\(1\): error: "):
        fulmen.activation.elementwise("return sigmoid(a);", x, name="wrong")
    with pytest.raises(ValueError, match="expected a C identifier"):
        fulmen.activation.elementwise("return a;", x, name="not a name")
    with pytest.raises(ValueError, match="8 at most"):
        fulmen.activation.elementwise("return a;", x, numbers=range(9))


CHILD = """
import numpy as np, fulmen
x = np.arange(4, dtype=np.float32)
try:
    print(fulmen.activation.elementwise("return a + s[0];", x[None], numbers=[1], name="plus").tolist())
except NotImplementedError as e:
    print("refused:", e)
"""


def child(tmp_path, *args, **env):
    clean = {k: v for k, v in os.environ.items() if k not in ("FULMEN_CXX", "FULMEN_JIT", "FULMEN_PACK_PATH")}
    environment = {**clean, "FULMEN_CACHE_DIR": str(tmp_path / "a cache"), **env}
    command = [sys.executable, *(args or ("-c", CHILD))]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_processes_and_commands(tmp_path):
    none = child(tmp_path, FULMEN_CXX="/no/such/compiler").stdout
    assert none.startswith("refused: elementwise name=plus: must be compiled") and "install g++" in none
    assert "FULMEN_JIT=off" in child(tmp_path, FULMEN_JIT="off").stdout
    fulmen_command = ("-m", "fulmen", "jit")
    missed = child(tmp_path, *fulmen_command, "explain", "elementwise", "name=plus")
    assert missed.returncode == 1 and "miss: " in missed.stdout
    done = child(tmp_path)
    assert done.stdout == "[[1.0, 2.0, 3.0, 4.0]]\n" and done.stderr == ""
    listed = child(tmp_path, *fulmen_command, "list").stdout
    assert "a text, for the CPU" in listed and "elementwise name=plus" in listed and "1 kernels" in listed
    found = child(tmp_path, *fulmen_command, "explain", "elementwise", "name=plus")
    assert found.returncode == 0 and "hit: " in found.stdout
    assert child(tmp_path, FULMEN_JIT="off", FULMEN_CXX="/no/such").stdout == done.stdout
    assert "1 kernels removed" in child(tmp_path, *fulmen_command, "clear").stdout
