# SPDX-License-Identifier: Apache-2.0
"""What the model must say: Gemma 3 in float64 NumPy, the whole sequence anew for every token, no cache, no library.

Shares with the engine only the file reader. Each step gives the greedy token and the gap between the two best
logits: two correct float32 implementations may disagree only where that gap is within their rounding error.

    python examples/generate/oracle.py --prompt "The capital of France is" --max-tokens 8
"""

import argparse
import json

import numpy as np

from tokenizer import Tokenizer
from weights import ModelFile, model_path


class Oracle:
    def __init__(self, config, arrays):
        self.config = config
        self.w = {name: array.astype(np.float64) for name, array in arrays.items()}

    def norm(self, x, name):
        """RMSNorm; the file already stores 1 + w, the factor that Gemma multiplies by."""
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.config.norm_eps) * self.w[name]

    def rope(self, x, layer):
        """x [seq, heads, dim]: dimensions i and i + dim/2 turn together by position * theta^(-2i/dim)."""
        c, half = self.config, x.shape[-1] // 2
        theta, scale = (c.rope_theta_local, 1.0)
        if c.is_global(layer):
            theta, scale = c.rope_theta_global, c.rope_scale_global
        angle = np.outer(np.arange(len(x)), theta ** (-np.arange(half) / half)) / scale
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def attention(self, x, layer):
        c, block, seq = self.config, f"blk.{layer}.", len(x)
        q, k, v = ((x @ self.w[f"{block}attn_{p}.weight"].T).reshape(seq, -1, c.head_dim) for p in "qkv")
        q = self.rope(self.norm(q, block + "attn_q_norm.weight"), layer)
        k = self.rope(self.norm(k, block + "attn_k_norm.weight"), layer)
        distance = np.arange(seq)[:, None] - np.arange(seq)[None, :]
        seen = (distance >= 0) & (c.is_global(layer) | (distance < c.window))
        out = np.empty_like(q)
        for head in range(c.num_qo_heads):
            kv_head = head * c.num_kv_heads // c.num_qo_heads
            logits = np.where(seen, q[:, head] @ k[:, kv_head].T * c.sm_scale, -np.inf)
            p = np.exp(logits - logits.max(-1, keepdims=True))
            out[:, head] = p @ v[:, kv_head] / p.sum(-1, keepdims=True)
        return out.reshape(seq, -1) @ self.w[block + "attn_output.weight"].T

    def feed_forward(self, x, layer):
        gate, up = (x @ self.w[f"blk.{layer}.ffn_{p}.weight"].T for p in ("gate", "up"))
        gelu = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        return (gelu * up) @ self.w[f"blk.{layer}.ffn_down.weight"].T

    def logits(self, tokens, first_row):
        """Logits [len(tokens) - first_row, vocab]; row i says what follows tokens[: first_row + i + 1]."""
        h = self.w["token_embd.weight"][tokens] * np.sqrt(self.config.hidden_dim)
        for layer in range(self.config.num_layers):
            block = f"blk.{layer}."
            a = self.attention(self.norm(h, block + "attn_norm.weight"), layer)
            h = h + self.norm(a, block + "post_attention_norm.weight")
            f = self.feed_forward(self.norm(h, block + "ffn_norm.weight"), layer)
            h = h + self.norm(f, block + "post_ffw_norm.weight")
        h = self.norm(h[first_row:], "output_norm.weight")
        return h @ self.w.get("output.weight", self.w["token_embd.weight"]).T

    def greedy(self, prompt, max_tokens):
        """Tokens and, for each, the gap between the best and the second best logit."""
        tokens, gaps = list(prompt), []
        while len(gaps) < max_tokens and tokens[-1] != self.config.eos_id:
            token, gap = best_and_gap(self.logits(tokens, len(tokens) - 1))
            tokens.append(int(token[0]))
            gaps.append(float(gap[0]))
        return tokens[len(prompt) :], gaps

    def follow(self, prompt, answer):
        """Greedy tokens and gaps after each prefix of a given answer: checks all its steps in one pass."""
        return best_and_gap(self.logits(list(prompt) + list(answer[:-1]), len(prompt) - 1))


def best_and_gap(logits):
    best_two = np.partition(logits, -2, axis=-1)[:, -2:]
    return logits.argmax(-1), best_two[:, 1] - best_two[:, 0]


def load(progress=None):
    file = ModelFile(model_path())
    return Tokenizer(file), Oracle(file.config, file.load())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt", action="append", required=True)
    parser.add_argument("--max-tokens", type=int, default=32)
    args = parser.parse_args()
    tokenizer, oracle = load()
    for prompt in args.prompt:
        tokens, gaps = oracle.greedy(tokenizer.encode(prompt), args.max_tokens)
        print(json.dumps({"prompt": prompt, "text": tokenizer.decode(tokens), "tokens": tokens, "gaps": gaps}))


if __name__ == "__main__":
    main()
