# SPDX-License-Identifier: Apache-2.0
"""The demo's model on PyTorch's tensors, with random weights of a small size, against the demo's NumPy model."""

import dataclasses
import pathlib
import sys

import ml_dtypes
import numpy as np
import pytest
from conftest import needs_cuda

torch = pytest.importorskip("torch")
pytest.importorskip("threadpoolctl", reason="needs examples/generate/requirements.txt")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples" / "generate"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "generate"))

from engine import Engine, Sampling  # noqa: E402
from model import Model  # noqa: E402
from model_torch import TorchModel  # noqa: E402

VOCAB = 500


@dataclasses.dataclass
class Config:
    num_layers: int = 3
    hidden_dim: int = 64
    num_qo_heads: int = 4
    num_kv_heads: int = 1
    head_dim: int = 64
    sm_scale: float = 0.125
    norm_eps: float = 1e-6
    window: int = 12
    rope_theta_local: float = 1e4
    rope_theta_global: float = 1e6
    rope_scale_global: float = 1.0
    context_len: int = 400
    bos_id: int = 1
    eos_id: int = -1

    def is_global(self, index):
        return index == 1


def weights(config):
    rng, c = np.random.default_rng(5), config

    def random(*shape):
        return (rng.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)

    def norm(n):
        return (1 + 0.1 * rng.normal(size=n)).astype(ml_dtypes.bfloat16).astype(np.float32)

    q, kv, inner = c.num_qo_heads * c.head_dim, c.num_kv_heads * c.head_dim, 96
    arrays = {"token_embd.weight": random(VOCAB, c.hidden_dim) * 3, "output_norm.weight": norm(c.hidden_dim)}
    for i in range(c.num_layers):
        shapes = {"attn_q": (q, c.hidden_dim), "attn_k": (kv, c.hidden_dim), "attn_v": (kv, c.hidden_dim),
                  "attn_output": (c.hidden_dim, q), "ffn_gate": (inner, c.hidden_dim), "ffn_up": (inner, c.hidden_dim),
                  "ffn_down": (c.hidden_dim, inner)}  # fmt: skip
        arrays |= {f"blk.{i}.{name}.weight": random(*shape) for name, shape in shapes.items()}
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            arrays[f"blk.{i}.{name}.weight"] = norm(c.hidden_dim)
        for name in ("attn_q_norm", "attn_k_norm"):
            arrays[f"blk.{i}.{name}.weight"] = norm(c.head_dim)
    return arrays


def logits_along(model, answers):
    """Logits of every step while the engine is made to take these tokens."""
    engine = Engine(model, Sampling(temperature=1.0, seed=3))
    rows = [[] for _ in answers]
    for prompt, answer in answers:
        engine.add(prompt, len(answer))

    def given(logits, requests):
        for row, request in zip(logits, requests):
            rows[request.index].append(row.cpu().numpy() if isinstance(row, torch.Tensor) else row.copy())
        return [answers[request.index][1][len(request.answer())] for request in requests]

    engine.sample = given
    while engine.busy():
        engine.step()
    return [np.array(x) for x in rows]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_logits_agree_with_the_cpu_model(device):
    config, rng = Config(), np.random.default_rng(2)
    answers = [(rng.integers(2, VOCAB, size=n).tolist(), rng.integers(2, VOCAB, size=m).tolist())
               for n, m in ((5, 20), (40, 11), (1, 30), (300, 5))]  # fmt: skip
    expected = logits_along(Model(config, weights(config), 64, kv_dtype=np.dtype(ml_dtypes.bfloat16)), answers)
    got = logits_along(TorchModel(config, weights(config), 64, device=device), answers)
    for g, e in zip(got, expected):
        assert g.shape == e.shape
        assert np.abs(g - e).max() < 0.05 * np.abs(e).max()  # queries in bfloat16


@needs_cuda
def test_samples_on_the_gpu():
    config = Config()
    engine = Engine(TorchModel(config, weights(config), 64), Sampling(seed=3))
    requests = [engine.add([5, 6, 7 + i], 12) for i in range(3)]
    while engine.busy():
        engine.step()
    assert all(len(r.answer()) == 12 and all(0 <= t < VOCAB for t in r.answer()) for r in requests)
