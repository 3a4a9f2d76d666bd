# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F401  names are imported to be this package's
"""Fulmen: kernels for LLM inference, call-compatible with FlashInfer.

Functions take NumPy, PyTorch or other DLPack arrays and answer in the same framework; the device is the arrays'. The
compiled library is loaded at the first call. `install_as_flashinfer()` makes `import flashinfer` give this package.
"""

from __future__ import annotations

from typing import Any

from . import (
    activation,
    attention,
    cascade,
    decode,
    jit,
    norm,
    page,
    pod,
    prefill,
    quantization,
    rope,
    sampling,
    sparse,
    topk,
    utils,
)
from ._flashinfer import install_as_flashinfer
from ._version import __git_version__, __version__
from .activation import gelu_and_mul, gelu_tanh_and_mul, silu_and_mul
from .attention import BatchAttention, BatchAttentionWithAttentionSinkWrapper
from .cascade import (
    BatchDecodeWithSharedPrefixPagedKVCacheWrapper,
    BatchPrefillWithSharedPrefixPagedKVCacheWrapper,
    MultiLevelCascadeAttentionWrapper,
    merge_state,
    merge_state_in_place,
    merge_states,
)
from .decode import (
    BatchDecodeMlaWithPagedKVCacheWrapper,
    BatchDecodeWithPagedKVCacheWrapper,
    CUDAGraphBatchDecodeWithPagedKVCacheWrapper,
    cudnn_batch_decode_with_kv_cache,
    fast_decode_plan,
    single_decode_with_kv_cache,
)
from .norm import (
    fused_add_rmsnorm,
    fused_add_rmsnorm_quant,
    gemma_fused_add_rmsnorm,
    gemma_rmsnorm,
    layernorm,
    layernorm_quant,
    rmsnorm,
    rmsnorm_quant,
)
from .page import append_paged_kv_cache, append_paged_mla_kv_cache, get_batch_indices_positions, get_seq_lens
from .pod import BatchPODWithPagedKVCacheWrapper, PODWithPagedKVCacheWrapper
from .prefill import (
    BatchPrefillWithPagedKVCacheWrapper,
    BatchPrefillWithRaggedKVCacheWrapper,
    single_prefill_with_kv_cache,
    single_prefill_with_kv_cache_return_lse,
)
from .quantization import packbits, segment_packbits
from .rope import (
    apply_llama31_rope,
    apply_llama31_rope_inplace,
    apply_llama31_rope_pos_ids,
    apply_llama31_rope_pos_ids_inplace,
    apply_rope,
    apply_rope_inplace,
    apply_rope_pos_ids,
    apply_rope_pos_ids_inplace,
    apply_rope_with_cos_sin_cache,
    apply_rope_with_cos_sin_cache_inplace,
)
from .sampling import (
    chain_speculative_sampling,
    min_p_sampling_from_probs,
    sampling_from_logits,
    sampling_from_probs,
    softmax,
    top_k_mask_logits,
    top_k_renorm_probs,
    top_k_sampling_from_probs,
    top_k_top_p_sampling_from_logits,
    top_k_top_p_sampling_from_probs,
    top_p_renorm_probs,
    top_p_sampling_from_probs,
)
from .sparse import BlockSparseAttentionWrapper, VariableBlockSparseAttentionWrapper
from .topk import TopKTieBreak, top_k, top_k_page_table_transform, top_k_ragged_transform
from .utils import next_positive_power_of_2
from .xqa import xqa, xqa_mla

__all__ = [name for name in globals() if not name.startswith("_") and name not in ("annotations", "Any")]
__all__ += ["cpu_level", "dependent_launch", "get_num_threads", "set_dependent_launch", "set_num_threads"]


def get_num_threads() -> int:
    """Threads of the CPU backend, the caller's included. First value: FULMEN_NUM_THREADS, else the CPUs one may use."""
    from ._ffi import lib

    return int(lib.num_threads())


def set_num_threads(n: int) -> None:
    """Sets the threads of the CPU backend, 1 to 1024; ValueError outside."""
    from ._ffi import lib

    lib.set_num_threads(n)


def dependent_launch() -> bool:
    """Whether CUDA kernels use programmatic dependent launch: they start while the stream's previous kernel ends, and
    wait for its memory. First value: whether FULMEN_PDL is not 0. A call's enable_pdl, unless None, decides for it.
    """
    from ._ffi import lib

    return bool(lib.dependent_launch())


def set_dependent_launch(on: bool) -> None:
    """Sets dependent_launch() for all later calls of this process."""
    from ._ffi import lib

    lib.set_dependent_launch(on)


def cpu_level() -> str:
    """The instruction set of the CPU kernels: what the machine has, capped by the environment's FULMEN_CPU_LEVEL."""
    from ._ffi import lib

    return str(lib.cpu_level())


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'fulmen' has no attribute {name!r}; FlashInfer may, but it is not implemented here")
