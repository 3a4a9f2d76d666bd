# SPDX-License-Identifier: Apache-2.0
"""Gemma 3, one forward step over a mixed batch: every operator but the dense products is the library's.

x = embed[token] * sqrt(hidden)
per layer:  q,k,v = norm(x) Wqkv;  q,k = rope(norm(q)), rope(norm(k));  cache += k,v
            x += norm(attention(q, cache) Wo)
            x += norm(gelu(norm(x) Wgate) * (norm(x) Wup) Wdown)
logits = norm(x_last) embed^T
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import fulmen
import numpy as np
from threadpoolctl import threadpool_limits

DENSE_BLOCK_BYTES = 4 << 20  # a slice of a weight matrix that stays in cache while all requests use it
DENSE_MIN_BLOCKS = 4  # so that small weights, too, are shared out over threads
SPLIT_PAGES = 16  # attention's KV split, fixed: a request's sums are cut at the same keys in every batch


@dataclass
class Step:
    """The tokens of one step, request after request, and the page table as it is after they are appended."""

    tokens: np.ndarray  # [nnz]
    qo_indptr: np.ndarray  # [batch + 1] tokens of request b: tokens[qo_indptr[b] : qo_indptr[b + 1]]
    kv_indptr: np.ndarray  # [batch + 1] pages of request b: kv_indices[kv_indptr[b] : kv_indptr[b + 1]]
    kv_indices: np.ndarray  # [num_pages of the batch]
    last_page_len: np.ndarray  # [batch] slots filled in each last page, 1 .. page_size
    sampled: np.ndarray  # [num_sampled] the requests whose next token is wanted


class Dense:
    """x [nnz, in] times weight [out, in] transposed: [nnz, out], by NumPy, one product per request and weight block.

    BLAS chooses its kernel, and with it the order of summation, by the shape of a product. Multiplying each request's
    rows on their own, by blocks of the weight that depend on the weight alone, makes that shape, and so every bit of
    the result, independent of who else is in the batch and of the number of threads. A block stays in cache while all
    requests use it, so that the weight is read from memory once per step.
    """

    def __init__(self, num_threads):
        self.pool = ThreadPoolExecutor(num_threads)
        self.single = threadpool_limits(1, user_api="blas")  # the threads are ours, each product has one

    def __call__(self, x, weight, indptr):
        out = np.empty((len(x), len(weight)), np.float32)
        num_blocks = max(DENSE_MIN_BLOCKS, weight.nbytes // DENSE_BLOCK_BYTES)
        block = -(-len(weight) // num_blocks)

        def multiply(row):
            part = weight[row : row + block].T
            for begin, end in zip(indptr[:-1], indptr[1:]):
                np.matmul(x[begin:end], part, out=out[begin:end, row : row + block])

        list(self.pool.map(multiply, range(0, len(weight), block)))
        return out


def gemma_weight(stored):
    """GGUF stores 1 + w, gemma_rmsnorm takes w; w came from bfloat16, so that nothing is lost either way."""
    weight = stored - np.float32(1)
    if not np.array_equal(weight + np.float32(1), stored):
        raise SystemExit("a norm weight of this model file does not survive - 1 + 1 in float32")
    return weight


class Layer:
    def __init__(self, arrays, index):
        def take(name):
            return arrays.pop(f"blk.{index}.{name}.weight")

        self.qkv = np.concatenate([take("attn_q"), take("attn_k"), take("attn_v")])
        self.out = take("attn_output")
        self.gate_up = np.concatenate([take("ffn_gate"), take("ffn_up")])
        self.down = take("ffn_down")
        self.norm_in, self.norm_q, self.norm_k, self.norm_attn, self.norm_ffn_in, self.norm_ffn = (
            gemma_weight(take(name))
            for name in ("attn_norm", "attn_q_norm", "attn_k_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        )


class Model:
    """Weights, the paged cache of all layers, and the two attention plans that a step needs."""

    def __init__(self, config, arrays, num_pages, page_size=16, kv_dtype=np.float32, num_threads=1):
        c = self.config = config
        self.dense = Dense(num_threads)
        self.page_size = page_size
        self.layers = [Layer(arrays, i) for i in range(c.num_layers)]
        self.embed = arrays["token_embd.weight"]
        self.head = arrays.get("output.weight", self.embed)  # Gemma ties the two
        self.norm_out = gemma_weight(arrays["output_norm.weight"])
        # [layers, pages, K and V, page_size, kv heads, head_dim]; left unset: slots beyond a length are never read.
        shape = (c.num_layers, num_pages, 2, page_size, c.num_kv_heads, c.head_dim)
        self.cache = np.empty(shape, kv_dtype)
        workspace = np.empty(32 << 20, np.uint8)
        self.local_attention = fulmen.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")
        self.global_attention = fulmen.BatchPrefillWithPagedKVCacheWrapper(np.empty_like(workspace), "NHD")

    def array(self, x):
        """x where the model is."""
        return x

    def plan(self, step):
        """Planned once per step and run by every layer; local and global layers differ in what a query may see."""
        c = self.config
        # window_left counts the keys before the query's own.
        for wrapper, window_left in ((self.local_attention, c.window - 1), (self.global_attention, -1)):
            wrapper.plan(
                step.qo_indptr,
                step.kv_indptr,
                step.kv_indices,
                step.last_page_len,
                c.num_qo_heads,
                c.num_kv_heads,
                c.head_dim,
                self.page_size,
                causal=True,
                sm_scale=c.sm_scale,
                window_left=window_left,
                q_data_type="float32",
                kv_data_type=self.cache.dtype.name,
                fixed_split_size=SPLIT_PAGES,
            )

    def attention(self, x, index, step, slots):
        """x [nnz, hidden], normed -> [nnz, num_qo_heads * head_dim]; appends the layer's K and V to its cache."""
        c, layer, nnz = self.config, self.layers[index], len(x)
        batch_indices, positions = slots
        is_global = c.is_global(index)
        qkv = self.dense(x, layer.qkv, step.qo_indptr).reshape(nnz, -1, c.head_dim)
        q, k, v = np.split(qkv, [c.num_qo_heads, c.num_qo_heads + c.num_kv_heads], axis=1)
        q = fulmen.gemma_rmsnorm(q, layer.norm_q, c.norm_eps)
        k = fulmen.gemma_rmsnorm(k, layer.norm_k, c.norm_eps)
        theta, scale = (c.rope_theta_global, c.rope_scale_global) if is_global else (c.rope_theta_local, 1.0)
        fulmen.apply_rope_pos_ids_inplace(q, k, positions, rope_scale=scale, rope_theta=theta)
        cache = self.cache[index]
        table = (step.kv_indices, step.kv_indptr, step.last_page_len)
        k, v = k.astype(cache.dtype, copy=False), v.astype(cache.dtype, copy=False)
        fulmen.append_paged_kv_cache(k, v, batch_indices, positions, cache, *table)
        wrapper = self.global_attention if is_global else self.local_attention
        return wrapper.run(q, cache).reshape(nnz, -1)

    def forward(self, step):
        """Logits [num_sampled, vocab] after the last token of each sampled request."""
        c, indptr, nnz = self.config, step.qo_indptr, len(step.tokens)
        kv_len = fulmen.get_seq_lens(step.kv_indptr, step.last_page_len, self.page_size)
        slots = fulmen.get_batch_indices_positions(indptr, kv_len, nnz)
        self.plan(step)
        residual = self.embed[step.tokens] * np.float32(np.sqrt(c.hidden_dim))
        x = fulmen.gemma_rmsnorm(residual, self.layers[0].norm_in, c.norm_eps)
        following = [layer.norm_in for layer in self.layers[1:]] + [self.norm_out]
        for index, (layer, norm_next) in enumerate(zip(self.layers, following)):
            x = self.dense(self.attention(x, index, step, slots), layer.out, indptr)
            x = fulmen.gemma_rmsnorm(x, layer.norm_attn, c.norm_eps)
            fulmen.gemma_fused_add_rmsnorm(x, residual, layer.norm_ffn_in, c.norm_eps)  # residual += x; x = norm
            x = fulmen.gelu_tanh_and_mul(self.dense(x, layer.gate_up, indptr))
            x = fulmen.gemma_rmsnorm(self.dense(x, layer.down, indptr), layer.norm_ffn, c.norm_eps)
            fulmen.gemma_fused_add_rmsnorm(x, residual, norm_next, c.norm_eps)
        last = x[indptr[1:][step.sampled] - 1]
        return self.dense(last, self.head, np.arange(len(last) + 1))
