# SPDX-License-Identifier: Apache-2.0
"""The same model on a GPU: PyTorch multiplies, every other operator is the library's on PyTorch's tensors.

A step in which every request gets one token, which is nearly all of them, runs as one captured CUDA graph: lengths,
page tables and tokens are copied into its buffers, attention's plans are made by kernels inside it. Steps with prompts
run eagerly. Products and residuals are float32, the cache and attention's queries bfloat16.
"""

import fulmen
import numpy as np
import torch

from model import Layer, gemma_weight


def attention_wrapper(device, graph=None, num_pages=0):
    workspace = torch.empty(64 << 20, dtype=torch.uint8, device=device)
    if graph is None:
        return fulmen.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")
    tables = [graph[name] for name in ("qo_indptr", "kv_indptr", "kv_indices", "last_page_len")]
    return fulmen.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD", True, *tables)


class TorchModel:
    """What engine.Engine needs of a model: config, page_size, cache, forward(), array()."""

    def __init__(self, config, arrays, num_pages, page_size=16, device="cuda", max_batch=16):
        c = self.config = config
        self.device, self.page_size, self.max_batch = torch.device(device), page_size, max_batch
        self.layers = [Layer(arrays, i) for i in range(c.num_layers)]
        for layer in self.layers:
            vars(layer).update({name: self.array(x) for name, x in vars(layer).items()})
        self.embed = self.array(arrays["token_embd.weight"])
        self.head = self.array(arrays["output.weight"]) if "output.weight" in arrays else self.embed
        self.norm_out = self.array(gemma_weight(arrays["output_norm.weight"]))
        shape = (c.num_layers, num_pages, 2, page_size, c.num_kv_heads, c.head_dim)
        self.cache = torch.empty(shape, dtype=torch.bfloat16, device=self.device)
        self.eager = [attention_wrapper(self.device) for _ in range(2)]  # local, global
        self.graph = None

    def array(self, x):
        """x where the model is."""
        return torch.from_numpy(np.ascontiguousarray(x)).to(self.device)

    def plan(self, wrappers, step):
        c = self.config
        for wrapper, window_left in zip(wrappers, (c.window - 1, -1)):
            wrapper.plan(
                step["qo_indptr"], step["kv_indptr"], step["kv_indices"], step["last_page_len"], c.num_qo_heads,
                c.num_kv_heads, c.head_dim, self.page_size, causal=True, sm_scale=c.sm_scale, window_left=window_left,
                q_data_type="bfloat16", kv_data_type="bfloat16", o_data_type="float32",
            )  # fmt: skip

    def attention(self, x, index, step, slots, wrappers):
        c, layer, nnz = self.config, self.layers[index], x.shape[0]
        is_global = c.is_global(index)
        qkv = (x @ layer.qkv.T).reshape(nnz, -1, c.head_dim)
        q, k, v = qkv.split([c.num_qo_heads, c.num_kv_heads, c.num_kv_heads], dim=1)
        q = fulmen.gemma_rmsnorm(q, layer.norm_q, c.norm_eps)
        k = fulmen.gemma_rmsnorm(k, layer.norm_k, c.norm_eps)
        theta, scale = (c.rope_theta_global, c.rope_scale_global) if is_global else (c.rope_theta_local, 1.0)
        fulmen.apply_rope_pos_ids_inplace(q, k, slots[1], rope_scale=scale, rope_theta=theta)
        cache = self.cache[index]
        table = (step["kv_indices"], step["kv_indptr"], step["last_page_len"])
        fulmen.append_paged_kv_cache(k.to(cache.dtype), v.to(cache.dtype), *slots, cache, *table)
        return wrappers[int(is_global)].run(q.to(torch.bfloat16), cache).reshape(nnz, -1)

    def hidden(self, step, wrappers):
        """The last layer's normed output [nnz, hidden]."""
        c = self.config
        kv_len = fulmen.get_seq_lens(step["kv_indptr"], step["last_page_len"], self.page_size)
        slots = fulmen.get_batch_indices_positions(step["qo_indptr"], kv_len, step["tokens"].shape[0])
        residual = self.embed[step["tokens"]] * float(np.float32(np.sqrt(c.hidden_dim)))
        x = fulmen.gemma_rmsnorm(residual, self.layers[0].norm_in, c.norm_eps)
        following = [layer.norm_in for layer in self.layers[1:]] + [self.norm_out]
        for index, (layer, norm_next) in enumerate(zip(self.layers, following)):
            x = self.attention(x, index, step, slots, wrappers) @ layer.out.T
            x = fulmen.gemma_rmsnorm(x, layer.norm_attn, c.norm_eps)
            fulmen.gemma_fused_add_rmsnorm(x, residual, layer.norm_ffn_in, c.norm_eps)  # residual += x; x = norm
            x = fulmen.gelu_tanh_and_mul(x @ layer.gate_up.T)
            x = fulmen.gemma_rmsnorm(x @ layer.down.T, layer.norm_ffn, c.norm_eps)
            fulmen.gemma_fused_add_rmsnorm(x, residual, norm_next, c.norm_eps)
        return x

    def forward(self, step):
        """Logits [num_sampled, vocab] after the last token of each sampled request."""
        batch = len(step.last_page_len)
        is_decode = len(step.tokens) == batch and batch <= self.max_batch and len(step.sampled) == batch
        if is_decode and self.device.type == "cuda":
            return self.decode(step)[:batch].clone()
        names = ("tokens", "qo_indptr", "kv_indptr", "kv_indices", "last_page_len")
        tables = {name: self.array(getattr(step, name)) for name in names}
        self.plan(self.eager, tables)
        last = self.array(step.qo_indptr[1:][step.sampled] - 1).long()
        return self.hidden(tables, self.eager)[last] @ self.head.T

    def decode(self, step):
        """One token per request: the graph's buffers are filled, requests that are not there are empty."""
        batch = len(step.last_page_len)
        if self.graph is None:
            self.capture()
        missing = self.max_batch - batch
        tables = {
            "tokens": np.pad(step.tokens, (0, missing)),
            "qo_indptr": np.pad(step.qo_indptr, (0, missing), mode="edge"),
            "kv_indptr": np.pad(step.kv_indptr, (0, missing), mode="edge"),
            "kv_indices": step.kv_indices,
            "last_page_len": np.pad(step.last_page_len, (0, missing), constant_values=1),
        }
        for name, x in tables.items():
            self.buffers[name][: len(x)].copy_(torch.from_numpy(x), non_blocking=True)
        self.graph.replay()
        return self.logits

    def capture(self):
        b, pages = self.max_batch, self.cache.shape[1]
        sizes = {"tokens": b, "qo_indptr": b + 1, "kv_indptr": b + 1, "kv_indices": pages, "last_page_len": b}
        self.buffers = {n: torch.zeros(s, dtype=torch.int32, device=self.device) for n, s in sizes.items()}
        wrappers = [attention_wrapper(self.device, self.buffers) for _ in range(2)]
        self.plan(wrappers, self.buffers)  # of empty requests: the graph reads the tables as they will be
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.hidden(self.buffers, wrappers) @ self.head.T  # compiles what no cache holds
        torch.cuda.current_stream().wait_stream(side)
        self.graph, self.held = torch.cuda.CUDAGraph(), wrappers
        with torch.cuda.graph(self.graph):
            self.logits = self.hidden(self.buffers, wrappers) @ self.head.T
