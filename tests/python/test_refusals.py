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


def planned_decode() -> Any:
    wrapper = fulmen.BatchDecodeWithPagedKVCacheWrapper(None)
    wrapper.plan(i32(0, 1), i32(0), i32(1), 2, 2, 64, 4, q_data_type="float32")
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
    compiler.write_text(f"#!/bin/sh\ntouch {tmp_path}/started; sleep 100\n")
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
        errors = child.communicate(timeout=60)[1]
    finally:
        child.kill()
    assert "KeyboardInterrupt" in errors and child.returncode != 0
