# SPDX-License-Identifier: Apache-2.0
"""Programs written for FlashInfer 0.5.3: signatures, and PyTorch calls through `import flashinfer`."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest
from conftest import needs_cuda, torch

import fulmen

# Parameters in FlashInfer's order with its defaults; more may follow here.
SIGNATURES = """
norm.rmsnorm(input, weight, eps=1e-06, out=None, enable_pdl=None)
norm.fused_add_rmsnorm(input, residual, weight, eps=1e-06, enable_pdl=None)
norm.gemma_rmsnorm(input, weight, eps=1e-06, out=None, enable_pdl=None)
norm.gemma_fused_add_rmsnorm(input, residual, weight, eps=1e-06, enable_pdl=None)
norm.layernorm(input, gemma, beta, eps=1e-06)
activation.silu_and_mul(input, out=None, enable_pdl=None)
activation.gelu_tanh_and_mul(input, out=None, enable_pdl=None)
activation.gelu_and_mul(input, out=None, enable_pdl=None)
rope.apply_rope(q, k, indptr, offsets, rotary_dim=None, interleave=False, rope_scale=1, rope_theta=10000.0)
rope.apply_rope_inplace(q, k, indptr, offsets, rotary_dim=None, interleave=False, rope_scale=1, rope_theta=10000.0)
rope.apply_rope_pos_ids(q, k, pos_ids, rotary_dim=None, interleave=False, rope_scale=1, rope_theta=10000.0)
rope.apply_rope_pos_ids_inplace(q, k, pos_ids, rotary_dim=None, interleave=False, rope_scale=1, rope_theta=10000.0)
rope.apply_llama31_rope(q, k, indptr, offsets, rotary_dim=None, interleave=False, rope_scale=8, rope_theta=500000.0, \
low_freq_factor=1, high_freq_factor=4, old_context_len=8192)
rope.apply_llama31_rope_pos_ids_inplace(q, k, pos_ids, rotary_dim=None, interleave=False, rope_scale=8, \
rope_theta=500000.0, low_freq_factor=1, high_freq_factor=4, old_context_len=8192)
rope.apply_rope_with_cos_sin_cache(positions, query, key, head_size, cos_sin_cache, is_neox=True)
rope.apply_rope_with_cos_sin_cache_inplace(positions, query, key, head_size, cos_sin_cache, is_neox=True)
page.get_batch_indices_positions(append_indptr, seq_lens, nnz)
page.get_seq_lens(kv_indptr, kv_last_page_len, page_size)
page.append_paged_kv_cache(append_key, append_value, batch_indices, positions, paged_kv_cache, kv_indices, kv_indptr, \
kv_last_page_len, kv_layout='NHD')
page.append_paged_mla_kv_cache(append_ckv, append_kpe, batch_indices, positions, ckv_cache, kpe_cache, kv_indices, \
kv_indptr, kv_last_page_len)
cascade.merge_state(v_a, s_a, v_b, s_b)
cascade.merge_state_in_place(v, s, v_other, s_other, mask=None)
cascade.merge_states(v, s)
quantization.packbits(x, bitorder='big')
quantization.segment_packbits(x, indptr, bitorder='big')
sampling.softmax(logits, temperature=None, enable_pdl=None)
sampling.sampling_from_logits(logits, indices=None, deterministic=True, generator=None, check_nan=False)
sampling.sampling_from_probs(probs, indices=None, deterministic=True, generator=None, check_nan=False)
sampling.top_p_sampling_from_probs(probs, top_p, indices=None, deterministic=True, generator=None, check_nan=False)
sampling.top_k_sampling_from_probs(probs, top_k, indices=None, deterministic=True, generator=None, check_nan=False)
sampling.min_p_sampling_from_probs(probs, min_p, indices=None, deterministic=True, generator=None, check_nan=False)
sampling.top_k_top_p_sampling_from_logits(logits, top_k, top_p, indices=None, filter_apply_order='top_k_first', \
deterministic=True, generator=None, check_nan=False)
sampling.top_k_top_p_sampling_from_probs(probs, top_k, top_p, indices=None, filter_apply_order='top_k_first', \
deterministic=True, generator=None, check_nan=False)
sampling.top_p_renorm_probs(probs, top_p)
sampling.top_k_renorm_probs(probs, top_k)
sampling.top_k_mask_logits(logits, top_k)
topk.top_k_page_table_transform(input, src_page_table, lengths, k, row_to_batch=None, deterministic=False, \
tie_break=0, dsa_graph_safe=False, row_starts=None, page_table_row_starts=None, page_size=1, out=None, \
out_raw_indices=None)
topk.top_k_ragged_transform(input, offsets, lengths, k, deterministic=False, tie_break=0, dsa_graph_safe=False, \
row_starts=None)
sampling.chain_speculative_sampling(draft_probs, draft_token_ids, target_probs, maybe_output_accepted_token_num=None, \
maybe_output_emitted_draft_token_num=None, deterministic=True, generator=None)
decode.single_decode_with_kv_cache(q, k, v, kv_layout='NHD', pos_encoding_mode='NONE', use_tensor_cores=False, \
q_scale=None, k_scale=None, v_scale=None, window_left=-1, logits_soft_cap=None, sm_scale=None, rope_scale=None, \
rope_theta=None, return_lse=False)
"""
# Names of parameters in the order of FlashInfer 0.7.2, where it differs from 0.5.3 or goes on.
NEWER = {
    "sampling.top_k_renorm_probs": "probs top_k is_deterministic",
    "decode.fast_decode_plan": "self indptr indices last_page_len num_qo_heads num_kv_heads head_dim page_size "
    "pos_encoding_mode window_left logits_soft_cap q_data_type kv_data_type data_type sm_scale rope_scale rope_theta "
    "non_blocking fixed_split_size disable_split_kv q_len_per_req global_override_indptr_cpu",
    "decode.trtllm_batch_decode_with_kv_cache": "query kv_cache workspace_buffer block_tables seq_lens max_seq_len "
    "bmm1_scale bmm2_scale window_left out out_dtype o_sf_scale o_sf_vec_size sinks kv_layout enable_pdl backend "
    "q_len_per_req o_scale mask max_q_len cum_seq_lens_q skip_softmax_threshold_scale_factor kv_cache_sf "
    "uses_shared_paged_kv_idx lse return_lse newer",
    "prefill.trtllm_batch_context_with_kv_cache": "query kv_cache workspace_buffer block_tables seq_lens max_q_len "
    "max_kv_len bmm1_scale bmm2_scale batch_size cum_seq_lens_q cum_seq_lens_kv window_left out out_dtype o_sf_scale "
    "o_sf_vec_size kv_layout enable_pdl sinks kv_cache_sf skip_softmax_threshold_scale_factor "
    "uses_shared_paged_kv_idx causal lse return_lse newer",
}


@pytest.mark.parametrize("name", NEWER)
def test_order_of_newer_parameters(name):
    module, function = name.split(".")
    assert " ".join(inspect.signature(getattr(getattr(fulmen, module), function)).parameters) == NEWER[name]


def test_newer_options_are_refused_unless_they_ask_for_nothing():
    def call(**options):
        x = np.ones((1, 2, 64), np.float32)
        cache, ids = np.ones((1, 2, 2, 4, 64), np.float32), np.zeros((1, 1), np.int32)
        return fulmen.decode.trtllm_batch_decode_with_kv_cache(x, cache, None, ids, ids[0] + 1, 1, 0.125, **options)

    assert np.allclose(call(cp_world=1, request_order=None, multi_ctas_kv_counter_buffer=np.zeros(8)), 1)
    for options in ({"cp_world": 2}, {"max_q_len": 3}, {"uses_shared_paged_kv_idx": False}):
        with pytest.raises(NotImplementedError, match=next(iter(options))):
            call(**options)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        call(nonsense=1)


LINES = SIGNATURES.replace("\\\n", "").strip().splitlines()


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split("(")[0])
def test_signature(line):
    name, documented = line.split("(", 1)
    module, function = name.split(".")
    expected = inspect.signature(eval(f"lambda {documented[:-1]}: None"))
    own = list(inspect.signature(getattr(getattr(fulmen, module), function)).parameters.values())
    for theirs, ours in zip(expected.parameters.values(), own):
        assert (theirs.name, theirs.default) == (ours.name, ours.default)
    assert len(own) >= len(expected.parameters)
    assert all(p.default is not inspect.Parameter.empty for p in own[len(expected.parameters) :])


PROGRAM = """
import sys
{first}
import fulmen
fulmen.install_as_flashinfer()
import torch
import flashinfer
from flashinfer.norm import rmsnorm
from flashinfer.page import append_paged_kv_cache
from flashinfer.cascade import merge_state
assert flashinfer.rmsnorm is rmsnorm is fulmen.rmsnorm

device = torch.device("{device}")
half = dict(dtype=torch.float16, device=device)
ints = dict(dtype=torch.int32, device=device)
x, w = torch.randn(5, 128, **half), torch.nn.Parameter(torch.ones(128, **half))
y = flashinfer.rmsnorm(x, w, 1e-6)
assert y.device == x.device and y.dtype == x.dtype and not y.requires_grad
torch.testing.assert_close(y, torch.nn.functional.rms_norm(x, (128,), w, 1e-6).detach(), rtol=2e-3, atol=2e-3)
residual = torch.zeros_like(x)
flashinfer.fused_add_rmsnorm(input=x, residual=residual, weight=w)
assert torch.equal(x, y)
gate = torch.randn(5, 256, **half)
out = torch.empty(5, 128, **half)
assert flashinfer.silu_and_mul(gate, out=out, enable_pdl=False) is out
expected = torch.nn.functional.silu(gate[:, :128].float()) * gate[:, 128:].float()
torch.testing.assert_close(out.float(), expected, rtol=2e-3, atol=2e-3)

q, k, v = torch.randn(5, 8, 64, **half), torch.randn(5, 2, 64, **half), torch.randn(5, 2, 64, **half)
q2, k2 = flashinfer.apply_rope_pos_ids(q, k, torch.arange(5, **ints))
assert torch.equal(q2[0], q[0]) and not torch.equal(q2[1], q[1])
flashinfer.apply_llama31_rope_inplace(q.clone(), k.clone(), torch.tensor([0, 5], **ints), torch.tensor([3], **ints))

kv_cache = torch.zeros(4, 2, 4, 2, 64, **half)
table = [torch.tensor(t, **ints) for t in ([2, 0], [0, 2], [1])]
append_paged_kv_cache(k, v, torch.zeros(5, **ints), torch.arange(5, **ints), kv_cache, *table)
assert torch.equal(kv_cache[2, 0, :4], k[:4]) and torch.equal(kv_cache[0, 1, 0], v[4])

lse = torch.randn(5, 8, device=device)
merged, both = merge_state(q, lse, q, lse)
torch.testing.assert_close(merged, q, rtol=2e-3, atol=2e-3)
torch.testing.assert_close(both, lse + 1)
print("ok")
"""


@pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("first", ["", "import torch"], ids=["fulmen first", "torch first"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_a_program_for_flashinfer(first, device):
    code = PROGRAM.replace("{first}", first).replace("{device}", device)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=400, check=False)
    assert done.stdout.strip() == "ok", done.stderr


def test_what_engines_import_is_there():
    """The import lines at the top of vLLM's and SGLang's attention backends and samplers."""
    code = """
import fulmen
fulmen.install_as_flashinfer()
from flashinfer import BatchDecodeWithPagedKVCacheWrapper, BatchPrefillWithPagedKVCacheWrapper
from flashinfer import BatchPrefillWithRaggedKVCacheWrapper, MultiLevelCascadeAttentionWrapper, fast_decode_plan
from flashinfer.cascade import merge_state
from flashinfer.decode import _get_range_buf, get_seq_lens, trtllm_batch_decode_with_kv_cache
from flashinfer.prefill import trtllm_batch_context_with_kv_cache
from flashinfer.sampling import min_p_sampling_from_probs, top_k_renorm_prob, top_p_renorm_prob
from flashinfer.utils import FP4Tensor
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr


def test_fp4_is_refused_by_name():
    from fulmen.utils import FP4Tensor

    scale = np.zeros((2, 4), np.uint8).view(pytest.importorskip("ml_dtypes").float8_e4m3fn)
    with pytest.raises(ValueError, match="FP4Tensor: data has dtype float32, expected uint8"):
        FP4Tensor(np.zeros((2, 32), np.float32), scale)
    out = FP4Tensor(np.zeros((2, 32), np.uint8), scale)
    q, cache = np.ones((2, 4, 64), np.float32), np.ones((4, 2, 2, 16, 64), np.float32)
    tables = np.zeros((2, 2), np.int32), np.array([3, 4], np.int32)
    with pytest.raises(TypeError, match="out is a FP4Tensor, expected an array"):
        fulmen.decode.trtllm_batch_decode_with_kv_cache(q, cache, None, *tables, 16, out=out)


def test_numpys_integers_are_integers():
    assert fulmen.next_positive_power_of_2(np.int64(5)) == 8
    assert fulmen.utils.last_positive_power_of_2(np.int32(5)) == 4
