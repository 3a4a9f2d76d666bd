# SPDX-License-Identifier: Apache-2.0
"""Attention entry points and wrappers against the oracle; conventions of plan and run."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from conftest import assert_near, dtype_name, f64
from numpy_oracle import attention
from paged import Paged, near

import fulmen
from fulmen.utils import alibi_slopes


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("kv_len", [1, 17, 300])
def test_single_decode(xp, rng, dtype, layout, kv_len):
    q = xp.array(rng.normal(size=(8, 64)), dtype)
    k, v = (rng.normal(size=(kv_len, 2, 64)) for _ in range(2))
    given = [xp.array(x if layout == "NHD" else x.swapaxes(0, 1), dtype) for x in (k, v)]
    k, v = (f64(x) if layout == "NHD" else f64(x).swapaxes(0, 1) for x in given)
    expected, lse2 = attention(f64(q)[None], k, v)
    out, lse = fulmen.single_decode_with_kv_cache(q, *given, kv_layout=layout, return_lse=True)
    assert xp.owns(out) and xp.owns(lse) and dtype_name(out) == dtype and dtype_name(lse) == "float32"
    near(out, expected[0])
    assert_near(lse, lse2[0], 1e3, scale=1.0)
    again = fulmen.single_decode_with_kv_cache(q, *given, kv_layout=layout)
    assert (f64(again) == f64(out)).all()


VARIANTS = [
    ({}, {}),
    ({"causal": True}, {"causal": True}),
    ({"causal": True, "window_left": 5}, {"causal": True, "window_left": 5}),
    ({"logits_soft_cap": 3.0}, {"cap": 3.0}),
    ({"sm_scale": 0.5}, {"sm_scale": 0.5}),
    ({"pos_encoding_mode": "ALIBI", "causal": True}, {"alibi": alibi_slopes(6), "causal": True}),
    ({"pos_encoding_mode": "ROPE_LLAMA", "causal": True}, {"rope": (1e4, 1.0), "causal": True}),
    ({"pos_encoding_mode": "ROPE_LLAMA", "rope_scale": 2.0, "rope_theta": 1e3}, {"rope": (1e3, 2.0)}),
]


@pytest.mark.parametrize("given, meant", VARIANTS)
@pytest.mark.parametrize("lens", [(5, 5), (7, 40), (1, 9)])
def test_single_prefill(xp, rng, given, meant, lens):
    dtype = "float16" if xp.name == "torch_cuda" else "float32"  # GPUs' kernels are for 16 bits
    q, k, v = (xp.array(rng.normal(size=s), dtype) for s in ((lens[0], 6, 32), (lens[1], 2, 32), (lens[1], 2, 48)))
    expected, lse2 = attention(f64(q), f64(k), f64(v), **meant)
    out, lse = fulmen.single_prefill_with_kv_cache_return_lse(q, k, v, **given)
    assert_near(out, expected, 300 if dtype == "float32" else 8, scale=1.0)
    assert_near(lse, lse2, 300 if dtype == "float32" else 3e4, scale=4.0)
    assert (f64(fulmen.single_prefill_with_kv_cache(q, k, v, **given)) == f64(out)).all()


def test_single_prefill_masks(xp, rng):
    q, k, v = (xp.array(rng.normal(size=s), "bfloat16") for s in ((5, 4, 64), (11, 2, 64), (11, 2, 64)))
    mask = rng.random((5, 11)) < 0.5
    mask[2] = False  # a row that sees nothing
    expected, lse2 = attention(f64(q), f64(k), f64(v), mask=mask)
    out, lse = fulmen.single_prefill_with_kv_cache(
        q, k, v, custom_mask=xp.array(mask, "bool"), causal=True, return_lse=True
    )
    near(out, expected)
    assert (f64(out)[2] == 0).all() and (f64(lse)[2] == -np.inf).all()
    bits = xp.array(np.packbits(mask.reshape(-1), bitorder="little"), "uint8")
    packed = fulmen.single_prefill_with_kv_cache(q, k, v, packed_custom_mask=bits)
    assert (f64(packed) == f64(out)).all()
    of_numpy = fulmen.single_prefill_with_kv_cache(q, k, v, custom_mask=mask)
    assert (f64(of_numpy) == f64(out)).all()


@pytest.mark.parametrize("kv_dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_fp8_cache_and_scales(xp, rng, kv_dtype):
    p = Paged(xp, rng, [9, 30], dtype="bfloat16", kv_dtype=kv_dtype)
    w = fulmen.BatchDecodeWithPagedKVCacheWrapper(None)
    w.plan(*p.ints("indptr", "indices", "last"), 4, 2, 64, 4, q_data_type="bfloat16", kv_data_type=kv_dtype)
    expected, _ = p.expected(sm_scale=64**-0.5 * 0.5 * 2.0)
    near(w.run(p.q, (p.k, p.v), q_scale=0.5, k_scale=2.0, v_scale=3.0), expected * 3.0)


@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize("page_size", [1, 4, 16])
@pytest.mark.parametrize("given, meant", VARIANTS[:1] + VARIANTS[2:5])
def test_batch_decode(xp, rng, layout, page_size, given, meant):
    given, meant = ({n: x for n, x in o.items() if n != "causal"} for o in (given, meant))
    p = Paged(xp, rng, [1, 0, 33, 7], page_size=page_size, layout=layout)
    workspace = xp.empty((1 << 22,), "uint8")
    w = fulmen.BatchDecodeWithPagedKVCacheWrapper(workspace, layout)
    w.plan(*p.ints("indptr", "indices", "last"), 4, 2, 64, page_size, q_data_type=p.q.dtype, **given)
    out, lse = w.run(p.q, (p.k, p.v), return_lse=True)
    expected, lse2 = p.expected(**meant)
    near(out, expected)
    assert_near(lse, lse2, 1e4, scale=1.0)
    assert (f64(lse)[1] == -np.inf).all() and (f64(out)[1] == 0).all()
    assert xp.owns(out) and xp.owns(lse)


def test_one_five_dimensional_cache_equals_a_pair(xp, rng):
    p = Paged(xp, rng, [5, 21])
    whole = xp.empty((p.k.shape[0], 2, *p.k.shape[1:]), "float16")
    whole[:, 0], whole[:, 1] = p.k, p.v
    w = fulmen.BatchDecodeWithPagedKVCacheWrapper(None)
    w.plan(*p.ints("indptr", "indices", "last"), 4, 2, 64, 4)
    assert (f64(w.run(p.q, whole)) == f64(w.run(p.q, (p.k, p.v)))).all()
    for bad in (p.k, (p.k,), (p.k[0, 0], p.v[0, 0])):
        with pytest.raises((ValueError, KeyError)):
            w.run(p.q, bad)
    with pytest.raises(KeyError):
        w.run(p.q, None)


def test_decode_wrapper_state_and_old_names(xp, rng):
    p = Paged(xp, rng, [5, 21])
    w = fulmen.BatchDecodeWithPagedKVCacheWrapper(xp.empty((1 << 22,), "uint8"), "NHD", use_tensor_cores=True)
    assert w.use_tensor_cores and not w.is_cuda_graph_enabled
    with pytest.raises(RuntimeError, match="plan"):
        w.run(p.q, (p.k, p.v))
    assert w.begin_forward(*p.ints("indptr", "indices", "last"), 4, 2, 64, 4, "NONE", data_type="float16") is None
    assert (w._window_left, w._logits_soft_cap, w._sm_scale, w._causal) == (-1, 0.0, None, False)
    planned = w.run(p.q, (p.k, p.v))
    forward, lse = w.forward_return_lse(p.q, (p.k, p.v), window_left=3, logits_soft_cap=2.0)
    near(forward, p.expected(window_left=3, cap=2.0)[0])
    assert (f64(w.forward(p.q, (p.k, p.v))) == f64(planned)).all()
    assert (f64(w.run_return_lse(p.q, (p.k, p.v))[0]) == f64(planned)).all()
    assert w.end_forward() is None
    info = w._plan_info
    assert w._cached_module.plan(*range(18)) is not info
    assert (f64(w.run(p.q, (p.k, p.v))) == f64(planned)).all()


def test_plan_checks_at_run(xp, rng):
    p = Paged(xp, rng, [5, 21])
    w = fulmen.BatchDecodeWithPagedKVCacheWrapper(None)
    w.plan(*p.ints("indptr", "indices", "last"), 4, 2, 64, 4, q_data_type="bfloat16")
    with pytest.raises(ValueError, match="plan function"):
        w.run(p.q, (p.k, p.v))
    w.plan(*p.ints("indptr", "indices", "last"), 4, 2, 64, 4)
    with pytest.raises(ValueError):
        w.run(p.q[:1], (p.k, p.v))
    with pytest.raises(ValueError, match="out has shape"):
        w.run(p.q, (p.k, p.v), out=xp.empty((2, 4, 32), "float16"))
    with pytest.raises(ValueError, match="lse has dtype"):
        w.run(p.q, (p.k, p.v), lse=xp.empty((2, 4), "float16"))
    out, lse = xp.empty((2, 4, 64), "float16"), xp.empty((2, 4), "float32")
    got = w.run(p.q, (p.k, p.v), out=out, lse=lse, return_lse=True)
    assert got[0] is out and got[1] is lse
    assert w.run(p.q, (p.k, p.v), out=out) is out
    small = fulmen.BatchDecodeWithPagedKVCacheWrapper(xp.empty((1,), "uint8"))
    big = Paged(xp, rng, [3000])
    with pytest.raises(RuntimeError, match="float_workspace_buffer has 1 bytes"):
        small.plan(*big.ints("indptr", "indices", "last"), 4, 2, 64, 4, fixed_split_size=64)
        small.run(big.q, (big.k, big.v))


def test_options_that_are_not_implemented_say_so(xp, rng):
    p = Paged(xp, rng, [5, 21])
    w = fulmen.BatchDecodeWithPagedKVCacheWrapper(None)
    w.plan(*p.ints("indptr", "indices", "last"), 4, 2, 64, 4)
    with pytest.raises(NotImplementedError, match="kv_cache_sf=an array of shape .* is not implemented"):
        w.run(p.q, (p.k, p.v), kv_cache_sf=p.k)
    with pytest.raises(NotImplementedError):
        w.run(p.q, (p.k, p.v), 1.0)
    with pytest.raises(TypeError):
        w.run(p.q, (p.k, p.v), nonsense=1)
    with pytest.raises(NotImplementedError, match="trtllm"):
        fulmen.BatchDecodeWithPagedKVCacheWrapper(None, backend="trtllm-gen")
    with pytest.raises(TypeError):
        fulmen.BatchDecodeWithPagedKVCacheWrapper(None, jit_args=["x"])
    with pytest.raises(NotImplementedError, match="use_fp16_qk_reduction"):
        fulmen.single_prefill_with_kv_cache(p.q, p.k[0], p.v[0], use_fp16_qk_reduction=True)
    with pytest.raises(KeyError, match="kv_layout"):
        fulmen.single_prefill_with_kv_cache(p.q, p.k[0], p.v[0], kv_layout="DHN")
    with pytest.raises(KeyError, match="pos_encoding_mode"):
        fulmen.single_prefill_with_kv_cache(p.q, p.k[0], p.v[0], pos_encoding_mode="ROPE")
    with pytest.raises(NotImplementedError, match="scale_q"):
        fulmen.single_prefill_with_kv_cache(p.q, p.k[0], p.v[0], scale_q=xp.empty((4,), "float32"))
    with pytest.raises(ValueError, match="head_dim"):
        fulmen.single_prefill_with_kv_cache(p.q[..., :63], p.k[0][..., :63], p.v[0])


def test_positional_orders_of_old_and_new_flashinfer(xp, rng):
    p = Paged(xp, rng, [5, 21], dtype="bfloat16")
    tables = p.ints("indptr", "indices", "last")
    runs = []
    for tail in (("NONE", -1, None, "bfloat16", None, None, 0.25, None, None, True),
                 ("NONE", -1, None, "bfloat16", None, None, None, 0.25, None, None, True),
                 ("NONE", -1, None, "bfloat16", None, "bfloat16", "bfloat16", 0.25, None, None, True)):  # fmt: skip
        w = fulmen.BatchDecodeWithPagedKVCacheWrapper(None)
        w.plan(*tables, 4, 2, 64, 4, *tail)
        assert w._sm_scale == 0.25
        runs.append(f64(w.run(p.q, (p.k, p.v))))
    assert (runs[0] == runs[1]).all() and (runs[0] == runs[2]).all()
    w = fulmen.BatchPrefillWithPagedKVCacheWrapper(None)
    qo = p.ints("qo_indptr")
    head = (4, 2, 64, 4, None, None, None, False, "NONE", False, 0.25, -1, None, None, None, "bfloat16", "bfloat16")
    w.plan(*qo, *tables, *head, True)
    first = f64(w.run(p.q, (p.k, p.v)))
    w.plan(*qo, *tables, *head, "float32", True)
    out = w.run(p.q, (p.k, p.v))
    assert dtype_name(out) == "float32" and np.abs(f64(out) - first).max() < 0.02
    with pytest.raises(TypeError):
        w.plan(*qo, *tables, *head, "float32", True, o_data_type="float32")


@pytest.mark.parametrize("given, meant", [(g, m) for g, m in VARIANTS if "pos_encoding_mode" not in g])
@pytest.mark.parametrize("dims", [(64, 64), (96, 64)])
def test_batch_prefill_paged(xp, rng, given, meant, dims):
    p = Paged(xp, rng, [3, 0, 40, 17], [3, 2, 11, 17], dims=dims, dtype="bfloat16")
    w = fulmen.BatchPrefillWithPagedKVCacheWrapper(xp.empty((1 << 22,), "uint8"))
    tables = p.ints("qo_indptr", "indptr", "indices", "last")
    w.plan(*tables, 4, 2, dims[0], 4, dims[1], q_data_type="bfloat16", **given)
    out, lse = w.run_return_lse(p.q, (p.k, p.v))
    expected, lse2 = p.expected(**meant)
    near(out, expected)
    assert_near(lse, lse2, 1e4, scale=1.0)
    forward = w.forward(p.q, (p.k, p.v), **given)
    assert (f64(forward) == f64(out)).all()


def test_batch_prefill_masks(xp, rng):
    p = Paged(xp, rng, [9, 20], [5, 3])
    masks = [rng.random((q, k)) < 0.6 for q, k in zip(p.qo_lens, p.kv_lens)]
    w = fulmen.BatchPrefillWithPagedKVCacheWrapper(None)
    tables = p.ints("qo_indptr", "indptr", "indices", "last")
    flat = np.concatenate([m.reshape(-1) for m in masks])
    w.plan(*tables, 4, 2, 64, 4, custom_mask=xp.array(flat, "bool"), causal=True)
    out = w.run(p.q, (p.k, p.v))
    near(out, p.expected(mask=masks)[0])
    bits = np.concatenate([np.packbits(m.reshape(-1), bitorder="little") for m in masks])
    w.plan(*tables, 4, 2, 64, 4, packed_custom_mask=xp.array(bits, "uint8"))
    assert (f64(w.run(p.q, (p.k, p.v))) == f64(out)).all()
    if xp.name == "torch_cuda":  # lengths lie on the GPU, and nothing waits for them
        return
    with pytest.raises(ValueError, match="custom_mask"):
        w.plan(*tables, 4, 2, 64, 4, custom_mask=xp.array(flat[:-1], "bool"))


def test_multi_item_scoring(xp, rng):
    # prefix of 4, then items of 2 and 3 tokens, each behind a delimiter
    p = Paged(xp, rng, [11], [7])
    places = np.array([0, 1, 2, 0, 1, 2, 3], np.uint16)
    w = fulmen.BatchPrefillWithPagedKVCacheWrapper(None)
    w.plan(*p.ints("qo_indptr", "indptr", "indices", "last"), 4, 2, 64, 4, causal=True,
           prefix_len_ptr=np.array([4], np.uint32), token_pos_in_items_ptr=places, token_pos_in_items_len=7,
           max_item_len_ptr=np.array([3], np.uint16))  # fmt: skip
    mask = np.zeros((7, 11), bool)
    for row, place in enumerate(places):
        mask[row, :4] = True
        mask[row, 4 + row - place + 1 : 4 + row + 1] = True
    near(w.run(p.q, (p.k, p.v)), p.expected(mask=[mask])[0])


def test_batch_prefill_ragged(xp, rng):
    qo, kv = np.array([0, 3, 3, 10], np.int32), np.array([0, 8, 12, 30], np.int32)
    q, k, v = (xp.array(rng.normal(size=s), "float16") for s in ((10, 4, 64), (30, 4, 64), (30, 4, 32)))
    w = fulmen.BatchPrefillWithRaggedKVCacheWrapper(xp.empty((1 << 22,), "uint8"))
    w.plan(xp.array(qo, "int32"), xp.array(kv, "int32"), 4, 4, 64, 32, causal=True)
    out, lse = w.run(q, k, v, return_lse=True)
    for b in range(3):
        rows, keys = slice(qo[b], qo[b + 1]), slice(kv[b], kv[b + 1])
        expected, lse2 = attention(f64(q)[rows], f64(k)[keys], f64(v)[keys], causal=True)
        near(f64(out)[rows].astype(np.float16), expected)
        assert_near(f64(lse)[rows].astype(np.float32), lse2, 1e4, scale=1.0)
    assert (f64(w.forward(q, k, v, causal=True)) == f64(out)).all()
    hnd = fulmen.BatchPrefillWithRaggedKVCacheWrapper(None, "HND")
    hnd.plan(qo, kv, 4, 4, 64, 32, causal=True)
    assert (f64(hnd.run(q, k.swapaxes(0, 1), v.swapaxes(0, 1))) == f64(out)).all()


def test_sinks(xp, rng):
    p = Paged(xp, rng, [9, 0, 20], [5, 2, 3], dtype="bfloat16")
    sink = rng.normal(size=4)
    expected, lse2 = p.expected(sinks=sink, causal=True)
    tables = p.ints("qo_indptr", "indptr", "indices", "last")
    w = fulmen.BatchPrefillWithPagedKVCacheWrapper(None)
    w.plan(*tables, 4, 2, 64, 4, causal=True, q_data_type="bfloat16")
    near(w.run(p.q, (p.k, p.v), sinks=xp.array(sink, "float32")), expected)
    w = fulmen.BatchAttentionWithAttentionSinkWrapper(None, head_dim_qk=64, head_dim_vo=64)
    w.plan(*tables, 4, 2, 64, 4, causal=True, q_data_type="bfloat16")
    near(w.run(p.q, (p.k, p.v), xp.array(sink, "float32"), 64**-0.5), expected)


def test_batch_attention(xp, rng):
    p = Paged(xp, rng, [1, 40, 17], [1, 1, 9], dtype="bfloat16")
    w = fulmen.BatchAttention()
    w.plan(*p.ints("qo_indptr", "indptr", "indices", "kv_lens"), 4, 2, 64, 64, 4, causal=True, logits_soft_cap=5.0)
    out, lse = w.run(p.q, (p.k, p.v), logits_soft_cap=5.0)
    expected, lse2 = p.expected(causal=True, cap=5.0)
    near(out, expected)
    assert_near(lse, lse2, 1e4, scale=1.0)
    with pytest.raises(ValueError, match="logits_soft_cap"):
        w.run(p.q, (p.k, p.v), logits_soft_cap=6.0)


def test_fixed_split_size_makes_requests_independent(xp, rng):
    p = Paged(xp, rng, [700, 5, 90])
    w = fulmen.BatchDecodeWithPagedKVCacheWrapper(None)
    w.plan(*p.ints("indptr", "indices", "last"), 4, 2, 64, 4, fixed_split_size=16)
    whole = f64(w.run(p.q, (p.k, p.v)))
    w.plan(p.indptr[:2], p.indices[: p.indptr[1]], p.last[:1], 4, 2, 64, 4, fixed_split_size=16)
    assert (f64(w.run(p.q[:1], (p.k, p.v))) == whole[:1]).all()
    w.plan(*p.ints("indptr", "indices", "last"), 4, 2, 64, 4, fixed_split_size=-1, disable_split_kv=True)
    near(w.run(p.q, (p.k, p.v)), p.expected()[0])


def test_cuda_graph_wrappers_keep_the_batch(xp, rng):
    p = Paged(xp, rng, [5, 21, 8])
    buffers = [xp.empty((n,), "int32") for n in (4, 32, 3)]
    w = fulmen.CUDAGraphBatchDecodeWithPagedKVCacheWrapper(xp.empty((1 << 22,), "uint8"), *buffers)
    assert w.is_cuda_graph_enabled and w._fixed_batch_size == 3
    w.plan(*p.ints("indptr", "indices", "last"), 4, 2, 64, 4)
    near(w.run(p.q, (p.k, p.v)), p.expected()[0])
    assert (f64(buffers[1])[: len(p.indices)] == p.indices).all()
    with pytest.raises(ValueError, match="batch size should be fixed"):
        w.plan(p.indptr[:3], p.indices, p.last[:2], 4, 2, 64, 4)
    with pytest.raises(ValueError, match="less than or equal to the allocated buffer"):
        w.plan(p.indptr, np.zeros(33, np.int32), p.last, 4, 2, 64, 4)
    with pytest.raises(ValueError, match="should not be None"):
        fulmen.BatchDecodeWithPagedKVCacheWrapper(None, use_cuda_graph=True)
    names = ("qo_indptr", "indptr", "indices", "last")
    w = fulmen.BatchPrefillWithPagedKVCacheWrapper(None, "NHD", True, *(xp.empty((n,), "int32") for n in (4, 4, 32, 3)))
    w.plan(*p.ints(*names), 4, 2, 64, 4)
    near(w.run(p.q, (p.k, p.v)), p.expected()[0])
    more = Paged(xp, rng, [5, 21, 8], [2, 1, 1])
    if xp.name == "torch_cuda":  # lengths lie on the GPU, and nothing waits for them
        return
    with pytest.raises(ValueError, match="total number of rows"):
        w.plan(*more.ints(*names), 4, 2, 64, 4)


def test_fast_decode_plan(xp, rng):
    p = Paged(xp, rng, [5, 21])
    w = fulmen.BatchDecodeWithPagedKVCacheWrapper(None)
    tables = p.ints("indptr", "indices", "last")
    w.plan(*tables, 4, 2, 64, 4)
    first = f64(w.run(p.q, (p.k, p.v)))
    w.begin_forward = functools.partial(fulmen.fast_decode_plan, w)
    assert w.begin_forward.func is fulmen.fast_decode_plan
    w.begin_forward(*tables, 4, 2, 64, 4, data_type="float16", global_override_indptr_cpu=p.indptr)
    assert (f64(w.run(p.q, (p.k, p.v))) == first).all()


def test_several_query_tokens_per_request(xp, rng):
    p = Paged(xp, rng, [9, 20], [2, 2])
    w = fulmen.BatchDecodeWithPagedKVCacheWrapper(None)
    w.plan(*p.ints("indptr", "indices", "last"), 4, 2, 64, 4, q_len_per_req=2)
    near(w.run(p.q, (p.k, p.v)), p.expected(causal=True)[0])


@pytest.mark.parametrize("layout", ["NHD", "HND"])
def test_block_table_entry_points(xp, rng, layout):
    p = Paged(xp, rng, [9, 20, 1], layout=layout)
    tables = np.zeros((3, 6), np.int32)
    for b in range(3):
        own = p.indices[p.indptr[b] : p.indptr[b + 1]]
        tables[b, : len(own)] = own
    scale = 64**-0.5
    common = (xp.array(tables, "int32"), *p.ints("kv_lens"))
    out = fulmen.decode.trtllm_batch_decode_with_kv_cache(
        p.q, (p.k, p.v), None, *common, 20, scale, 2.0, kv_layout=layout, window_left=6
    )
    near(out, p.expected(window_left=6)[0] * 2.0)
    out = fulmen.prefill.trtllm_batch_context_with_kv_cache(
        p.q, (p.k, p.v), None, *common, 1, 20, scale, 1.0, 3, *p.ints("qo_indptr"), None, kv_layout=layout
    )
    near(out, p.expected()[0])


def test_foreign_dlpack_arrays(rng):
    """Anything with __dlpack__ goes in; without an array namespace, NumPy comes out."""
    import tvm_ffi

    q, k, v = (rng.normal(size=s).astype(np.float32) for s in ((4, 64), (9, 2, 64), (9, 2, 64)))
    out = fulmen.single_decode_with_kv_cache(*(tvm_ffi.from_dlpack(x) for x in (q, k, v)))
    assert isinstance(out, np.ndarray)
    assert (out == fulmen.single_decode_with_kv_cache(q, k, v)).all()


def test_the_longest_window_is_none():
    """Also for rows before the first key, whose position minus the window does not fit 32 bits."""
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((n, 2, 64)).astype(np.float32) for n in (9, 3, 3))
    expected = fulmen.single_prefill_with_kv_cache(q, k, v)
    assert np.array_equal(fulmen.single_prefill_with_kv_cache(q, k, v, window_left=2**31 - 1), expected)
    wrapper = fulmen.BatchPrefillWithRaggedKVCacheWrapper(None)
    ints = np.array([0, 9], np.int32), np.array([0, 3], np.int32)
    wrapper.plan(*ints, 2, 2, 64, window_left=2**31 - 1, q_data_type="float32")
    assert np.array_equal(wrapper.run(q, k, v), expected)
