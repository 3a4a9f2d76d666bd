# SPDX-License-Identifier: Apache-2.0
"""Calls of every public function that launches kernels without reading data on the host, on given arrays.

`CASES[name](make)` returns (function, arguments): the function takes the arguments, returns a tuple of tensors, also of
those that it wrote. `make.normal(shape, dtype)`, `make.ints(values)` make arrays.
"""

from __future__ import annotations

import functools
from typing import Any, Callable

import numpy as np
from conftest import Torch

import fulmen
from fulmen import quantization

CASES: dict[str, Callable[[Any], tuple[Callable[..., Any], list[Any]]]] = {}


class Make:
    def __init__(self, framework: Torch, seed: int = 11) -> None:
        self.framework, self.rng = framework, np.random.default_rng(seed)

    def normal(self, shape: tuple[int, ...], dtype: str = "bfloat16") -> Any:
        return self.framework.array(self.rng.normal(size=shape), dtype)

    def ints(self, values: Any, dtype: str = "int32") -> Any:
        return self.framework.array(np.array(values), dtype)

    def zeros(self, shape: tuple[int, ...], dtype: str = "bfloat16") -> Any:
        return self.framework.empty(shape, dtype)


def case(make_case: Callable[[Make], tuple[Callable[..., Any], list[Any]]]) -> None:
    CASES[make_case.__name__] = make_case


def returning(function: Callable[..., Any], *indices: int) -> Callable[..., Any]:
    """function for its effects: the arguments at these places are its result."""

    def call(*args: Any) -> Any:
        assert function(*args) is None
        return tuple(args[i] for i in indices)

    return call


T, H = 9, 128  # tokens, hidden size


@case
def rmsnorm(m):
    return fulmen.rmsnorm, [m.normal((T, H)), m.normal((H,))]


@case
def rmsnorm_into_out(m):
    return (lambda x, w, out: fulmen.rmsnorm(x, w, out=out)), [m.normal((T, 3, H)), m.normal((H,)), m.zeros((T, 3, H))]


@case
def gemma_rmsnorm(m):
    return fulmen.gemma_rmsnorm, [m.normal((T, H), "float16"), m.normal((H,), "float16")]


@case
def fused_add_rmsnorm(m):
    return returning(fulmen.fused_add_rmsnorm, 0, 1), [m.normal((T, H)), m.normal((T, H)), m.normal((H,))]


@case
def gemma_fused_add_rmsnorm(m):
    return returning(fulmen.gemma_fused_add_rmsnorm, 0, 1), [m.normal((T, H)), m.normal((T, H)), m.normal((H,))]


@case
def layernorm(m):
    return fulmen.layernorm, [m.normal((T, H)), m.normal((H,), "float32"), m.normal((H,), "float32")]


@case
def rmsnorm_quant(m):
    call = returning(lambda out, x, w: fulmen.rmsnorm_quant(out, x, w, 0.5), 0)
    return call, [m.zeros((T, H), "float8_e4m3fn"), m.normal((T, H)), m.normal((H,))]


@case
def fused_add_rmsnorm_quant(m):
    arrays = [m.normal((T, H)), m.normal((T, H)), m.normal((H,)), m.ints([0.5], "float32")]
    return returning(fulmen.fused_add_rmsnorm_quant, 0, 2), [m.zeros((T, H), "float8_e4m3fn"), *arrays]


@case
def layernorm_quant(m):
    arrays = [m.normal((T, H)), m.normal((H,), "float32"), m.normal((H,), "float32"), m.ints([0.5], "float32")]
    return returning(fulmen.layernorm_quant, 0), [m.zeros((T, H), "float8_e5m2"), *arrays]


@case
def silu_and_mul(m):
    return fulmen.silu_and_mul, [m.normal((T, 2 * H))]


@case
def gelu_and_mul(m):
    return fulmen.gelu_and_mul, [m.normal((2, 2, T, 2 * H), "float16")]


@case
def gelu_tanh_and_mul(m):
    return fulmen.gelu_tanh_and_mul, [m.normal((T, 2 * H), "float32")]


def heads(m):
    return [m.normal((T, 4, 64)), m.normal((T, 2, 64))]


def positions(m):
    return m.ints([0, 1, 2, 100, 101, 5000, 7, 8, 9])


def segments(m):
    return [m.ints([0, 3, 3, T]), m.ints([100, 7, 4000])]


@case
def apply_rope(m):
    return fulmen.apply_rope, [*heads(m), *segments(m)]


@case
def apply_rope_inplace(m):
    return returning(fulmen.apply_rope_inplace, 0, 1), [*heads(m), *segments(m)]


@case
def apply_rope_pos_ids(m):
    return (lambda q, k, p: fulmen.apply_rope_pos_ids(q, k, p, 32, True)), [*heads(m), positions(m)]


@case
def apply_rope_pos_ids_inplace(m):
    return returning(fulmen.apply_rope_pos_ids_inplace, 0, 1), [*heads(m), positions(m)]


@case
def apply_llama31_rope(m):
    return fulmen.apply_llama31_rope, [*heads(m), *segments(m)]


@case
def apply_llama31_rope_inplace(m):
    return returning(fulmen.apply_llama31_rope_inplace, 0, 1), [*heads(m), *segments(m)]


@case
def apply_llama31_rope_pos_ids(m):
    return fulmen.apply_llama31_rope_pos_ids, [*heads(m), positions(m)]


@case
def apply_llama31_rope_pos_ids_inplace(m):
    return returning(fulmen.apply_llama31_rope_pos_ids_inplace, 0, 1), [*heads(m), positions(m)]


def cached(m):
    return [positions(m), m.normal((T, 4 * 64)), m.normal((T, 2 * 64)), m.normal((5001, 64), "float32")]


@case
def apply_rope_with_cos_sin_cache(m):
    return (lambda p, q, k, table: fulmen.apply_rope_with_cos_sin_cache(p, q, k, 64, table)), cached(m)


@case
def apply_rope_with_cos_sin_cache_inplace(m):
    function = fulmen.apply_rope_with_cos_sin_cache_inplace
    return returning(lambda p, q, k, table: function(p, q, k, 64, table, False), 1, 2), cached(m)


def pages(m):
    """batch_indices, positions, and a table of two requests of 5 and 4 tokens in pages of 4."""
    ids = [m.ints([0] * 5 + [1] * 4), m.ints([0, 1, 2, 3, 4, 0, 1, 2, 3])]
    return ids, [m.ints([5, 0, 3]), m.ints([0, 2, 3]), m.ints([1, 4])]


@case
def append_paged_kv_cache(m):
    ids, table = pages(m)
    new = [m.normal((T, 2, 64)), m.normal((T, 2, 64))]
    return returning(fulmen.append_paged_kv_cache, 4), [*new, *ids, m.zeros((6, 2, 4, 2, 64)), *table]


@case
def append_paged_kv_cache_pair_hnd(m):
    ids, table = pages(m)
    new = [m.normal((T, 2, 64)), m.normal((T, 2, 64))]
    call = lambda k, v, b, p, kc, vc, *t: fulmen.append_paged_kv_cache(k, v, b, p, (kc, vc), *t, "HND")  # noqa: E731
    return returning(call, 4, 5), [*new, *ids, m.zeros((6, 2, 4, 64)), m.zeros((6, 2, 4, 64)), *table]


@case
def append_paged_mla_kv_cache(m):
    ids, table = pages(m)
    new = [m.normal((T, 64)), m.normal((T, 16))]
    caches = [m.zeros((6, 4, 64)), m.zeros((6, 4, 16))]
    return returning(fulmen.append_paged_mla_kv_cache, 4, 5), [*new, *ids, *caches, *table]


def states(m):
    return [m.normal((T, 4, 64)), m.normal((T, 4), "float32"), m.normal((T, 4, 64)), m.normal((T, 4), "float32")]


@case
def merge_state(m):
    return fulmen.merge_state, states(m)


@case
def merge_state_in_place(m):
    return returning(fulmen.merge_state_in_place, 0, 1), [*states(m), m.ints(np.arange(T) % 2 == 0, "bool")]


@case
def merge_states(m):
    return fulmen.merge_states, [m.normal((T, 3, 4, 64)), m.normal((T, 3, 4), "float32")]


@case
def per_tensor_quant_fp8(m):
    return quantization.per_tensor_quant_fp8, [m.normal((T, H))]


@case
def per_token_group_quant_8bit(m):
    return (lambda x: quantization.per_token_group_quant_8bit(x, 64)), [m.normal((T, H))]


@case
def get_batch_indices_positions(m):
    return (lambda i, n: fulmen.get_batch_indices_positions(i, n, 11)), [m.ints([0, 2, 11]), m.ints([5, 9])]


@case
def get_seq_lens(m):
    return (lambda i, n: fulmen.get_seq_lens(i, n, 4)), [m.ints([0, 2, 5]), m.ints([1, 4])]


@case
def packbits(m):
    return fulmen.packbits, [m.ints(np.arange(77) % 3 == 0, "bool")]


def probs(m):
    x = np.exp(np.random.default_rng(3).normal(size=(T, 300)) * 2)
    return m.ints(x / x.sum(-1, keepdims=True), "float32")


@case
def softmax(m):
    return (lambda x: fulmen.softmax(x, 0.7)), [m.normal((T, 300))]


@case
def sampling_with_seeds(m):
    call = lambda p, s: fulmen.top_k_top_p_sampling_from_probs(p, 20, 0.9, seed=s, offset=3)  # noqa: E731
    return call, [probs(m), m.ints(np.arange(T), "int64")]


@case
def sampling_of_logits(m):
    return (lambda x: fulmen.sampling_from_logits(x, seed=5, offset=3)), [m.normal((T, 300), "float32")]


@case
def renorm_and_mask(m):
    call = lambda p, x: (fulmen.top_p_renorm_probs(p, 0.8), fulmen.top_k_mask_logits(x, 5))  # noqa: E731
    return call, [probs(m), m.normal((T, 300), "float32")]


@case
def top_k(m):
    return (lambda x: fulmen.top_k(x, 8, sorted=True)), [m.normal((T, 300), "float32")]


@case
def top_k_transforms(m):
    def call(x, table, lengths):
        paged = fulmen.top_k_page_table_transform(x, table, lengths, 8, page_size=16)
        return paged, fulmen.top_k_ragged_transform(x, lengths, lengths, 8)

    table, lengths = np.arange(T * 20).reshape(T, 20), np.arange(T) * 30 + 3
    return call, [m.normal((T, 300), "float32"), m.ints(table, "int32"), m.ints(lengths, "int32")]


@case
def chain_speculative_sampling(m):
    draft, target = probs(m)[:6].reshape(3, 2, 300), probs(m).reshape(3, 3, 300)
    call = lambda d, i, t: fulmen.chain_speculative_sampling(d, i, t, seed=1, offset=2)  # noqa: E731
    return call, [draft, m.ints([[1, 2], [3, 4], [5, 6]]), target]


@case
def rope_append_paged_kv_cache(m):
    ids, table = pages(m)
    q, k = heads(m)
    caches = [m.zeros((6, 2, 4, 2, 64))]

    def call(q, k, v, positions, batch, cache, indices, indptr):
        out = fulmen.page.rope_append_paged_kv_cache(q, k, v, positions, batch, positions, cache, indices, indptr)
        return out, cache

    return call, [q, k, m.normal((T, 2, 64)), ids[1], ids[0], *caches, *table[:2]]


@case
def single_prefill(m):
    q, k, v = m.normal((5, 4, 64)), m.normal((20, 2, 64)), m.normal((20, 2, 64))
    return functools.partial(fulmen.single_prefill_with_kv_cache, causal=True, return_lse=True), [q, k, v]


@case
def single_decode(m):
    q, k, v = m.normal((4, 64)), m.normal((30, 2, 64)), m.normal((30, 2, 64))
    return functools.partial(fulmen.single_decode_with_kv_cache, logits_soft_cap=3.0), [q, k, v]


@case
def trtllm_batch_decode(m):
    q, cache = m.normal((3, 4, 64)), m.normal((9, 2, 2, 4, 64))
    tables, lens = m.ints([[1, 4, 0], [2, 3, 8], [5, 6, 7]]), m.ints([12, 5, 1])

    def call(q, cache, tables, lens):
        return fulmen.decode.trtllm_batch_decode_with_kv_cache(q, cache, None, tables, lens, 12, 0.125)

    return call, [q, cache, tables, lens]


@case
def batch_decode_run(m):
    w = fulmen.BatchDecodeWithPagedKVCacheWrapper(None)
    tables = m.ints([0, 2, 3, 3]), m.ints([4, 1, 0]), m.ints([3, 4, 1])
    w.plan(*tables, 4, 2, 64, 4, q_data_type="bfloat16")

    def call(q, cache):
        return w.run(q, cache, return_lse=True, k_scale=0.5)

    return call, [m.normal((3, 4, 64)), m.normal((5, 2, 4, 2, 64))]


@case
def batch_prefill_ragged_run(m):
    w = fulmen.BatchPrefillWithRaggedKVCacheWrapper(None)
    w.plan(m.ints([0, 3, 7]), m.ints([0, 9, 20]), 4, 2, 64, causal=True, q_data_type="bfloat16")
    return w.run, [m.normal((7, 4, 64)), m.normal((20, 2, 64)), m.normal((20, 2, 64))]
