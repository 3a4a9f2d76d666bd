# SPDX-License-Identifier: Apache-2.0
"""Calls that are wrong in ways that could pass unnoticed: each is refused, with its name, the argument and why."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any, Callable

import numpy as np
import pytest

import fulmen
from fulmen import cascade, jit
from fulmen.jit.attention.variants import attention_sink_decl

RNG = np.random.default_rng(1)
CACHE = RNG.standard_normal((16, 2, 4, 2, 64)).astype(np.float32)
Q = RNG.standard_normal((4, 2, 64)).astype(np.float32)
X = RNG.standard_normal((3, 50)).astype(np.float32)
PROBS = np.abs(X) / np.abs(X).sum(1, keepdims=True)
PAGES = np.arange(39, dtype=np.int32).reshape(3, 13)


def i32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def levels(qo: Any = None, kv: Any = None, pages: Any = None, last: Any = None, wrapper: Any = None) -> Any:
    """A planned cascade of two levels; each argument replaces a list of tables."""
    wrapper = wrapper or fulmen.MultiLevelCascadeAttentionWrapper(2, None)
    wrapper.plan(
        qo or [i32(0, 4), i32(0, 1, 2, 3, 4)],
        kv or [i32(0, 2), i32(0, 1, 2, 3, 4)],
        pages or [i32(0, 1), i32(2, 3, 4, 5)],
        last or [i32(4), i32(1, 2, 3, 4)],
        2, 2, 64, 4, q_data_type="float32",
    )  # fmt: skip
    return wrapper


def planned_anew(**tables: Any) -> Any:
    """A second plan that is wrong must not leave the first in its place."""
    wrapper = levels()
    with pytest.raises(ValueError):
        levels(wrapper=wrapper, **tables)
    return wrapper.run(Q, CACHE)


def transform(**changed: Any) -> Any:
    given = {"input": X, "src_page_table": PAGES, "lengths": i32(50, 20, 3), "k": 4, "page_size": 4, **changed}
    return fulmen.top_k_page_table_transform(**given)


SINK = (["sink"], ["float"], ["sm_scale"], ["double"], "AttentionSink", attention_sink_decl["fa2"])


def spec(*changed: tuple[int, Any], **options: Any) -> Any:
    """The factory's spec of the sink variant, some of its arguments replaced."""
    given = list(SINK)
    for place, value in changed:
        given[place] = value
    return jit.gen_customize_single_decode_module("uri", *["float32"] * 3, 64, 64, *given, **options)


def decoded(*extras: Any) -> Any:
    module = spec().load()
    decode = fulmen.decode.single_decode_with_kv_cache_with_jit_module
    return decode(module, Q[0], CACHE[0, 0], CACHE[0, 1], *extras)


def planned_decode(
    wrapper: Any = None, use_cuda_graph: bool = False, buffers: Any = (None,) * 3, **changed: Any
) -> Any:
    wrapper = wrapper or fulmen.BatchDecodeWithPagedKVCacheWrapper(None, "NHD", use_cuda_graph, False, *buffers)
    given = {"indptr": i32(0, 1), "indices": i32(0), "last_page_len": i32(1), "num_qo_heads": 2, "num_kv_heads": 2,
             "head_dim": 64, "page_size": 4, "q_data_type": "float32", **changed}  # fmt: skip
    wrapper.plan(**given)
    return wrapper


def decode_planned_anew(**changed: Any) -> Any:
    wrapper = planned_decode()
    with pytest.raises(ValueError):
        planned_decode(wrapper, **changed)
    return wrapper.run(Q[:1], CACHE)


def ragged(**changed: Any) -> Any:
    wrapper = fulmen.BatchPrefillWithRaggedKVCacheWrapper(None)
    wrapper.plan(**{"qo_indptr": i32(0, 2), "kv_indptr": i32(0, 4), "num_qo_heads": 2, "num_kv_heads": 2,
                    "head_dim_qk": 64, "q_data_type": "float32", **changed})  # fmt: skip
    return wrapper


def single(**options: Any) -> Any:
    return fulmen.single_decode_with_kv_cache(Q[0], CACHE[0, 0], CACHE[0, 1], **options)


QB, KB = (RNG.standard_normal((heads, 8, 64)).astype(np.float32) for heads in (4, 2))


def blocks(rows: Any = None, cols: Any = None) -> Any:
    sizes = np.array([[3, 5], [4, 4]])
    wrapper = fulmen.VariableBlockSparseAttentionWrapper(None)
    wrapper.plan(np.ones((2, 2, 2), bool), sizes if rows is None else rows, sizes if cols is None else cols, 4, 2, 64,
                 q_data_type="float32")  # fmt: skip
    return wrapper


REFUSED: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "cascade: too few tables": (ValueError, "qo_indptr_arr has 1 entries", lambda: levels(qo=[i32(0, 4)])),
    "cascade: too many tables": (ValueError, "last_page_len has 3 entries", lambda: levels(last=[i32(4)] * 3)),
    "cascade: a table for a list": (ValueError, "expected a list of 2", lambda: levels(pages=(i32(0, 1),))),
    "cascade: rows left out": (ValueError, r"\[2, 4\] rows", lambda: levels(qo=[i32(0, 2), i32(0, 1, 2, 3, 4)])),
    "cascade: a table of floats": (TypeError, "float64", lambda: levels(kv=[np.array([0, 2.5]), i32(0, 1, 2, 3, 4)])),
    "cascade: a plan that failed": (RuntimeError, "before plan", lambda: planned_anew(last=[i32(4)])),
    "cascade: no plan": (
        RuntimeError, "before plan", lambda: fulmen.MultiLevelCascadeAttentionWrapper(2, None).run(Q, CACHE)),
    "cascade: no levels": (ValueError, "num_levels is 0", lambda: fulmen.MultiLevelCascadeAttentionWrapper(0, None)),
    "cascade: a shared prefix without begin_forward": (
        RuntimeError, "begin_forward",
        lambda: cascade.BatchPrefillWithSharedPrefixPagedKVCacheWrapper(None).forward(Q, *CACHE[0], CACHE)),
    "merge_states: rank": (ValueError, "merge_states: v has shape", lambda: fulmen.merge_states(Q, Q[..., 0])),
    "plan: a table of floats": (
        TypeError, r"Wrapper\.plan: indptr is a table of float32, expected integers",
        lambda: planned_decode(indptr=np.array([0, 1], np.float32))),
    "plan: negative heads": (
        ValueError, "plan: num_kv_heads is -2, expected 1 or more", lambda: planned_decode(num_kv_heads=-2)),
    "plan: theta 0 would be no rotation": (
        ValueError, "rope_theta is 0.0, expected more than 0",
        lambda: planned_decode(pos_encoding_mode="ROPE_LLAMA", rope_theta=0.0).run(Q[:1], CACHE)),
    "run: heads": (
        ValueError, "run: q has num_qo_heads 2, expected 4, as planned",
        lambda: planned_decode(num_qo_heads=4).run(Q[:1], CACHE)),
    "run: a scale": (
        ValueError, r"Wrapper\.run: k_scale is nan, expected a finite number",
        lambda: planned_decode().run(Q[:1], CACHE, k_scale=float("nan"))),
    "run: order of bytes": (
        ValueError, r"Wrapper\.run: q is an array of dtype >f4",
        lambda: planned_decode().run(Q[:1].astype(">f4"), CACHE)),
    "run: out": (
        ValueError, r"Wrapper\.run: out has shape \(1, 2, 32\)",
        lambda: planned_decode().run(Q[:1], CACHE, out=np.zeros((1, 2, 32), np.float32))),
    "top_k: negative k": (ValueError, "top_k: k is -1, expected 0 to row_len 50", lambda: fulmen.top_k(X, -1)),
    "top_k: k beyond the row": (ValueError, "k is 51", lambda: fulmen.top_k(X, 51)),
    "top_k: huge k": (ValueError, "k is 1099511627776", lambda: fulmen.top_k(X, 2**40)),
    "top_k: k of half": (TypeError, "top_k: k is 2.5", lambda: fulmen.top_k(X, 2.5)),
    "top_k: rank": (ValueError, r"input has shape \(50,\)", lambda: fulmen.top_k(X[0], 2)),
    "top_k: no array": (ValueError, "input is a list", lambda: fulmen.top_k([[1.0]], 1)),
    "top_k: tie_break": (ValueError, "tie_break is 7", lambda: fulmen.top_k(X, 2, tie_break=7)),
    "transform: tie_break": (
        ValueError, "page_table_transform: tie_break is 'LARGE'", lambda: transform(tie_break="LARGE")),
    "transform: out of another k": (
        ValueError, r"out has shape \(3, 5\), expected \(3, 4\)", lambda: transform(out=np.zeros((3, 5), np.int32))),
    "transform: out is a list": (TypeError, "out is a list", lambda: transform(out=[[0] * 4] * 3)),
    "transform: read-only out": (
        ValueError, "out is a read-only", lambda: transform(out=np.broadcast_to(i32(0), (3, 4)))),
    "ragged transform: k": (
        ValueError, "top_k_ragged_transform: k is -2",
        lambda: fulmen.top_k_ragged_transform(X, i32(0, 0, 0), i32(1, 1, 1), -2)),
    "sampling: seed of a half": (TypeError, "seed is '1.5'", lambda: fulmen.sampling_from_probs(PROBS, seed=1.5)),
    "sampling: seeds of floats": (
        TypeError, "seed is", lambda: fulmen.sampling_from_probs(PROBS, seed=np.array([1.5, 2, 3]))),
    "sampling: offset": (TypeError, "offset is 'x'", lambda: fulmen.sampling_from_probs(PROBS, seed=1, offset="x")),
    "sampling: generator": (TypeError, "generator is", lambda: fulmen.sampling_from_probs(PROBS, generator=3)),
    "sampling: top_k of a half": (TypeError, "2.5", lambda: fulmen.top_k_sampling_from_probs(PROBS, 2.5, seed=1)),
    "sampling: top_p in words": (TypeError, "'0.5'", lambda: fulmen.top_p_sampling_from_probs(PROBS, "0.5", seed=1)),
    "softmax: temperature": (ValueError, "temperature is -1", lambda: fulmen.softmax(X, temperature=-1.0)),
    "softmax: no temperature": (ValueError, "temperature is nan", lambda: fulmen.softmax(X, temperature=np.nan)),
    "rope: offsets of floats": (
        TypeError, "float64", lambda: fulmen.apply_rope(Q[None, 0], Q[None, 0], i32(0, 1), np.array([0.5]))),
    "decode: out is a list": (TypeError, "out is a list", lambda: planned_decode().run(Q[:1], CACHE, out=[[0.0]])),
    "decode: a scale in words": (TypeError, "k_scale is 'x'", lambda: planned_decode().run(Q[:1], CACHE, k_scale="x")),
    "rmsnorm: no array": (TypeError, "rmsnorm: input is a list", lambda: fulmen.rmsnorm([[1.0]], X[0])),
    "rmsnorm: out is a list": (TypeError, "out is a list", lambda: fulmen.rmsnorm(X, X[0], out=[[0.0] * 50] * 3)),
    "silu_and_mul: no array": (TypeError, "silu_and_mul: input is a NoneType", lambda: fulmen.silu_and_mul(None)),
    "factory: names without types": (
        ValueError, "uri: additional_tensor_names has 2 entries, additional_tensor_dtypes has 1",
        lambda: spec((0, ["sink", "more"]))),
    "factory: a name for a list": (TypeError, "additional_scalar_names is 'sm_scale'", lambda: spec((2, "sm_scale"))),
    "factory: no text": (TypeError, "variant_decl is a NoneType", lambda: spec((5, None))),
    "factory: name": (TypeError, "variant_name is a int", lambda: spec((4, 7))),
    "factory: rotary positions": (NotImplementedError, "pos_encoding_mode=1", lambda: spec(pos_encoding_mode=1)),
    "factory: an unknown option": (TypeError, "nonsense", lambda: spec(nonsense=1)),
    "variant: extras swapped": (TypeError, "uri: sink is a float, expected an array", lambda: decoded(0.1, X[0, :2])),
    "rmsnorm: enable_pdl": (
        TypeError, "rmsnorm: enable_pdl is 'yes', expected True, False or None",
        lambda: fulmen.rmsnorm(X, X[0], enable_pdl="yes")),
    "rmsnorm: another machine's bytes": (
        ValueError, "order of bytes", lambda: fulmen.rmsnorm(X.astype(">f4"), X[0])),
    "silu_and_mul: out is a list": (
        TypeError, "silu_and_mul: out is a list", lambda: fulmen.silu_and_mul(X, out=[[0.0] * 25] * 3)),
    "layernorm: no array": (TypeError, "layernorm: input is 'x', expected an array",
                            lambda: fulmen.layernorm("x", X[0], X[0])),
    "rope: indptr is a list": (
        TypeError, "apply_rope: indptr is a list, expected an array",
        lambda: fulmen.apply_rope(Q, Q, [0, 4], i32(1))),
    "rope: head_size": (
        ValueError, "apply_rope_with_cos_sin_cache: ZeroDivisionError.* head_size 0",
        lambda: fulmen.apply_rope_with_cos_sin_cache(i32(0), X[:1], X[:1], 0, X)),
    "rope: a flag in words": (
        TypeError, "is_neox is 'False', expected True or False",
        lambda: fulmen.apply_rope_with_cos_sin_cache(i32(0), X[:1], X[:1], 50, X, is_neox="False")),
    "merge_state: complex": (
        TypeError, "complex64", lambda: fulmen.merge_state(Q, Q[..., 0].astype("c8"), Q, Q[..., 0])),
    "sampling: generator beside a seed": (
        TypeError, "generator is", lambda: fulmen.sampling_from_probs(PROBS, seed=1, generator="x")),
    "sampling: a flag in words": (
        TypeError, "check_nan is 'no'", lambda: fulmen.sampling_from_probs(PROBS, seed=1, check_nan="no")),
    "decode: window of a half": (
        TypeError, "single_decode_with_kv_cache: window_left is 1.5, expected an integer",
        lambda: single(window_left=1.5)),
    "decode: sm_scale 0": (ValueError, "sm_scale is 0.0, expected a number other than 0", lambda: single(sm_scale=0)),
    "decode: sm_scale NaN": (ValueError, "sm_scale is nan", lambda: single(sm_scale=np.nan)),
    "decode: rope_theta in words": (TypeError, "rope_theta is 'x', expected a number", lambda: single(rope_theta="x")),
    "plan: window of a half": (
        TypeError, "BatchDecodeWithPagedKVCacheWrapper.plan: window_left is 1.5",
        lambda: planned_decode(window_left=1.5)),
    "plan: a split of a half": (TypeError, "fixed_split_size is 1.5", lambda: planned_decode(fixed_split_size=1.5)),
    "plan: heads beyond 64 bits": (
        ValueError, "window_left is 1180591620717411303424, expected an integer of 64 bits",
        lambda: planned_decode(window_left=2**70)),
    "plan: huge heads": (
        ValueError, "num_qo_heads is 8589934594, expected less", lambda: planned_decode(num_qo_heads=2**33 + 2)),
    "softmax: no memory": (
        MemoryError, "softmax: Unable to allocate", lambda: fulmen.softmax(np.broadcast_to(X[:1], (2**45, 50)))),
    "rmsnorm: out in its input": (
        ValueError, "rmsnorm: out shares memory with input: it begins 4 bytes behind its start, expected memory of its",
        lambda: fulmen.rmsnorm(X.ravel()[:100].reshape(2, 50), X[0].copy(), out=X.ravel()[1:101].reshape(2, 50))),
    "silu_and_mul: out in its input": (
        ValueError, "act_and_mul: out shares memory with input", lambda: fulmen.silu_and_mul(X, out=X[:, 25:])),
    "decode: out in q": (
        ValueError, "out shares memory with q", lambda: planned_decode().run(Q[:1], CACHE, out=Q[:1])),
    "append: one cache for keys and values": (
        ValueError, "k_cache shares memory with v_cache",
        lambda: fulmen.append_paged_kv_cache(
            Q[:1], Q[:1], i32(0), i32(0), (CACHE[:, 0], CACHE[:, 0]), i32(0), i32(0, 1), i32(1))),
    "plan: no page size": (ValueError, "page_size is 0", lambda: planned_decode(page_size=0)),
    "plan: no queries": (ValueError, "q_len_per_req is 0", lambda: planned_decode(q_len_per_req=0)),
    "plan: no offsets": (ValueError, "a table of offsets has shape", lambda: ragged(qo_indptr=i32())),
    "plan: a mask of numbers to add": (
        TypeError, "custom_mask is of float32", lambda: ragged(custom_mask=np.zeros(8, np.float32))),
    "plan: causal in words": (TypeError, "causal is 'no', expected True or False", lambda: ragged(causal="no")),
    "plan: more pages than given": (
        ValueError, "indptr ends at 2, but indices has 1 entries",
        lambda: planned_decode(use_cuda_graph=True, indptr=i32(0, 2), buffers=(i32(0, 0), i32(0, 0, 0), i32(0)))),
    "init: a workspace in words": (
        TypeError, "float_workspace_buffer is 'x', expected an array or None",
        lambda: fulmen.BatchDecodeWithPagedKVCacheWrapper("x")),
    "run: another page size": (
        ValueError, "paged_kv_cache has page_size 4, expected 8, as planned",
        lambda: planned_decode(page_size=8).run(Q[:1], CACHE)),
    "run: q is a scalar": (
        ValueError, "BatchDecodeWithPagedKVCacheWrapper.run: IndexError", 
        lambda: planned_decode().run(np.array(1, np.float32), CACHE)),
    "run: q_len_per_req": (
        ValueError, "run: q_len_per_req is -1", lambda: planned_decode().run(Q[:1], CACHE, q_len_per_req=-1)),
    "run: after a plan that failed": (RuntimeError, "before plan", lambda: decode_planned_anew(last_page_len=i32(9))),
    "run: after another that failed": (RuntimeError, "before plan", lambda: decode_planned_anew(num_qo_heads=3)),
    "blocks: no plan": (RuntimeError, "before plan", lambda: fulmen.BlockSparseAttentionWrapper(None).run(Q, Q, Q)),
    "batch pod: no plan": (
        RuntimeError, "before plan", lambda: fulmen.BatchPODWithPagedKVCacheWrapper(None).run(Q, CACHE, Q, CACHE)),
    "variable blocks: no plan": (
        RuntimeError, "before plan", lambda: fulmen.VariableBlockSparseAttentionWrapper(None).run(Q, Q, Q)),
    "variable blocks: sizes": (
        ValueError, "block_col_sz has sizes below 0", lambda: blocks(cols=np.array([[-1, 9], [4, 4]]))),
    "variable blocks: sums": (
        ValueError, "sums .* that differ", lambda: blocks(rows=np.array([[3, 4], [4, 4]]))),
    "variable blocks: k": (
        ValueError, r"run: k has shape \(2, 7, 64\), expected \(2, 8, 'head_dim'\)",
        lambda: blocks().run(QB, KB[:, :7], KB)),
    "variable blocks: out": (
        TypeError, "out is a dict", lambda: blocks().run(QB, KB, KB, out={})),
    "xqa: page size": (
        ValueError, "k_cache has page_size, num_kv_heads", lambda: fulmen.xqa(
            Q[:1, None], CACHE[:, 0], CACHE[:, 1], i32(0).reshape(1, 1), i32(1), Q[:1, None].copy(), None, None, 2, 8)),
    "variant: no number": (TypeError, "uri: sm_scale is 'x', expected a number", lambda: decoded(X[0, :2], "x")),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused(name: str) -> None:
    error, text, call = REFUSED[name]
    with pytest.raises(error, match=text):
        call()


def test_factories_take_keywords() -> None:
    names = "additional_tensor_names additional_tensor_dtypes additional_scalar_names additional_scalar_dtypes".split()
    given = dict(zip([*names, "variant_name", "variant_decl"], SINK))
    dtypes = {"dtype_q": "float32", "dtype_kv": "float32", "dtype_o": "float32"}
    dims = {"head_dim_qk": 64, "head_dim_vo": 64}
    single = jit.gen_customize_single_prefill_module(backend="fa2", uri="u", **dtypes, **dims, **given)
    batch = jit.gen_customize_batch_prefill_module("fa2", "u", *dtypes.values(), "int32", 64, 64, **given)
    assert single.load().num_extras == batch.load().num_extras == 2


@pytest.mark.parametrize("setting", ["FULMEN_JIT=maybe", "FULMEN_CACHE_LIMIT_MB=-5", "FULMEN_CACHE_LIMIT_MB=1GB"])
def test_environment(setting: str) -> None:
    name, value = setting.split("=")
    code = "import numpy, fulmen; fulmen.activation.elementwise('return a;', numpy.ones((1, 4), numpy.float32))"
    settings = {**os.environ, "FULMEN_CACHE_DIR": "", name: value}
    done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=False)
    assert f"ValueError: {name}: is '{value}', expected " in done.stderr


def test_compilers_may_print_what_they_like(tmp_path: pathlib.Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\nprintf 'error: \\377\\300 is odd'; exit 1\n")
    compiler.chmod(0o755)
    code = """
import numpy, fulmen
try:
    fulmen.activation.elementwise("return a;", numpy.ones((1, 4), numpy.float32))
except ValueError as error:
    print(error)
"""
    settings = {**os.environ, "FULMEN_CXX": str(compiler), "FULMEN_CACHE_DIR": ""}
    done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=True)
    assert "error: ?? is odd" in done.stdout


def test_a_compiler_that_hangs_can_be_interrupted(tmp_path: pathlib.Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text(f"#!/bin/sh\ntouch {tmp_path}/started; sleep 1000\n")
    compiler.chmod(0o755)
    code = "import numpy, fulmen; fulmen.activation.elementwise('return a;', numpy.ones((1, 4), numpy.float32))"
    settings = {**os.environ, "FULMEN_CXX": str(compiler), "FULMEN_CACHE_DIR": ""}
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env=settings,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    try:
        while not (tmp_path / "started").exists() and child.poll() is None:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        errors = child.communicate(timeout=300)[1]
    finally:
        child.kill()
    assert "KeyboardInterrupt" in errors and child.returncode != 0
