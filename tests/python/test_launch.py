# SPDX-License-Identifier: Apache-2.0
"""How calls reach a GPU: enable_pdl decides for its call, and samplers in a replayed CUDA graph draw anew."""

import numpy as np
import pytest
from conftest import torch

import fulmen
from fulmen._ffi import lib
from fulmen._launch import asks_pdl

needs_cuda = pytest.mark.skipif(torch is None or not torch.cuda.is_available(), reason="needs PyTorch with CUDA")


def asked():
    """What calls of this thread ask of dependent launch now."""
    on = lib.ask_dependent_launch(None)
    lib.ask_dependent_launch(on)
    return on


def test_enable_pdl_decides_for_its_call_alone():
    @asks_pdl
    def outer(x, enable_pdl=None):
        return asked(), inner(x), inner(x, enable_pdl=not enable_pdl), asked()

    @asks_pdl
    def inner(x, enable_pdl=None):
        return asked()

    @asks_pdl
    def off(x, enable_pdl=False):
        return asked()

    assert outer(0) == (None, None, True, None)
    assert outer(0, True) == (True, True, False, True)
    assert outer(0, enable_pdl=False) == (False, False, True, False)
    assert off(0) is False and off(0, None) is None and off(0, True) is True
    assert asked() is None


def test_an_error_ends_what_its_call_asked():
    x = np.ones((2, 8), np.float32)
    with pytest.raises(ValueError):
        fulmen.rmsnorm(x, x[0, :4], enable_pdl=False)
    assert asked() is None


@pytest.mark.parametrize("pdl", [None, True, False])
def test_every_way_of_passing_enable_pdl(xp, rng, pdl):
    x, w = xp.array(rng.normal(size=(3, 64)), "float32"), xp.array(rng.normal(size=64), "float32")
    expected = fulmen.rmsnorm(x, w)
    for got in (fulmen.rmsnorm(x, w, 1e-6, None, pdl), fulmen.rmsnorm(x, w, enable_pdl=pdl)):
        assert (np.asarray(got.cpu() if hasattr(got, "cpu") else got) == np.asarray(
            expected.cpu() if hasattr(expected, "cpu") else expected)).all()  # fmt: skip
    assert asked() is None


@needs_cuda
@pytest.mark.parametrize("generator", [False, True])
def test_a_replayed_graph_draws_new_tokens(generator):
    probs = torch.softmax(torch.randn(32, 20000, device="cuda"), -1)
    logits, draft = torch.randn(32, 20000, device="cuda"), torch.rand(4, 3, 500, device="cuda")
    draft = draft / draft.sum(-1, keepdim=True)
    target = torch.full((4, 4, 500), 1 / 500, device="cuda")
    ids = torch.randint(0, 500, (4, 3), device="cuda", dtype=torch.int32)
    options = {"generator": torch.Generator("cuda").manual_seed(1)} if generator else {}

    def draw():
        return [
            fulmen.sampling_from_probs(probs, **options),
            fulmen.sampling_from_logits(logits, **options),
            fulmen.top_k_top_p_sampling_from_logits(logits, 500, 0.99, **options),
            fulmen.top_p_sampling_from_probs(probs, 0.95, **options),
            fulmen.min_p_sampling_from_probs(probs, 0.01, **options),
            fulmen.chain_speculative_sampling(draft, ids, target, **options)[0],
        ]

    draw()
    graph = torch.cuda.CUDAGraph()
    if generator:
        graph.register_generator_state(options["generator"])
    with torch.cuda.graph(graph):
        tokens = draw()
    seen = []
    for _ in range(5):
        graph.replay()
        seen.append([t.cpu() for t in tokens])
    for i, (first, *later) in enumerate(zip(*seen)):
        assert first.dtype == torch.int32 and (first < 20000).all()
        assert all((first != other).any() for other in later), i


@needs_cuda
def test_dependent_launches_in_a_graph_give_the_same_bits():
    x, w = torch.randn(64, 4096, device="cuda").bfloat16(), torch.randn(4096, device="cuda").bfloat16()

    def steps(x, pdl):
        for _ in range(20):
            y = fulmen.rmsnorm(x, w, enable_pdl=pdl)
            x = fulmen.silu_and_mul(torch.cat([x, y], -1), enable_pdl=pdl) + x
        return x

    expected = steps(x, False)
    assert torch.equal(steps(x, True), expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = steps(x, True)
    graph.replay()
    assert torch.equal(got, expected)
