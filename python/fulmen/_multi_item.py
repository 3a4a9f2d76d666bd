# SPDX-License-Identifier: Apache-2.0
"""FlashInfer's multi-item scoring: several items share a prefix and do not see each other.

A token of the prefix is causal; a token at place p of its item, the delimiter being 0, sees the prefix and the p tokens
up to itself. On the host that is a mask; where a GPU holds a table it is a variant, compiled at its first run, that
reads the tables themselves: nothing is waited for and no mask takes memory.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ._device_plan import to_device
from .jit import Variant


def multi_item_mask(
    qo_lens: np.ndarray, kv_lens: np.ndarray, prefix_lens: np.ndarray, positions: np.ndarray, stride: int
) -> np.ndarray:
    """Flat booleans. positions[b * stride + t] is the place of request b's t-th token after the prefix."""
    masks = []
    for b, (qo_len, kv_len, prefix_len) in enumerate(zip(qo_lens, kv_lens, prefix_lens)):
        i = np.arange(kv_len - qo_len, kv_len)[:, None]
        j = np.arange(kv_len)[None, :]
        place = np.zeros_like(i)
        after = i[:, 0] >= prefix_len
        place[after, 0] = positions[b * stride + (i[after, 0] - prefix_len)]
        item = (j < prefix_len) | ((j > i - place) & (j <= i))
        masks.append(np.where(i < prefix_len, j <= i, item).reshape(-1))
    return np.concatenate(masks) if masks else np.zeros(0, bool)


_TEXT = """
struct MultiItem : AttentionVariantBase {
  static constexpr bool use_softmax = true;
  uint32_t window_left, qo_len, kv_len, prefix_len;
  const int32_t* places;
  float sm_scale_log2, before;

  template <typename Params>
  __device__ __host__ MultiItem(const Params& params, uint32_t batch_idx, uint8_t*) {
    qo_len = params.get_qo_len(batch_idx), kv_len = params.get_kv_len(batch_idx);
    window_left = params.window_left >= 0 ? uint32_t(params.window_left) : kv_len;
    prefix_len = uint32_t(params.prefix_lens[batch_idx]);
    places = params.places + batch_idx * params.places_per_request;
    before = params.soft_cap > 0 ? params.sm_scale / params.soft_cap : 1;
    sm_scale_log2 = (params.soft_cap > 0 ? params.soft_cap : params.sm_scale) * math::log2e;
  }
  CAPPED
  REGISTER_LOGITS_MASK(params, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx, {
    const uint32_t i = kv_len - qo_len + qo_idx;
    if (kv_idx > i || kv_idx + window_left < i) return false;
    if (i < prefix_len || kv_idx < prefix_len) return true;
    return kv_idx + uint32_t(places[i - prefix_len]) > i;
  })
};
"""
_CAPPED = """
  REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx,
                            { return math::tanh(logits * before); })
"""


@functools.lru_cache(maxsize=2)
def _variant(capped: bool) -> Variant:
    text = _TEXT.replace("CAPPED", _CAPPED if capped else "")
    tensors = [("prefix_lens", "int32_t"), ("places", "int32_t")]
    scalars = [("places_per_request", "int64_t"), ("sm_scale", "float"), ("soft_cap", "float")]
    return Variant("multi_item", "MultiItem", text, tensors, scalars)


def _as_int32(x: Any, device: Any) -> Any:
    import torch

    x = to_device(x, device)
    if x.dtype == torch.uint16:
        return x.view(torch.int16).to(torch.int32) & 0xFFFF
    return x.view(torch.int32) if x.dtype == torch.uint32 else x.to(torch.int32)


class ItemsOnDevice:
    """The tables of one plan on a GPU, and the variant that reads them. Their memory stays while it fits."""

    def __init__(self) -> None:
        self._tensors: list[Any] = [None, None]
        self._stride = 0

    def set(self, prefix_lens: Any, places: Any, stride: int, device: Any) -> None:
        """Tables as plan() takes them."""
        for i, x in enumerate((prefix_lens, places)):
            x = _as_int32(x, device).reshape(-1).contiguous()
            held = self._tensors[i]
            if held is not None and held.shape == x.shape and held.device == x.device:
                held.copy_(x)
            else:
                self._tensors[i] = x
        self._stride = int(stride)

    def variant(self, soft_cap: float, sm_scale: float) -> tuple[Variant, tuple[Any, ...]]:
        """The variant, and what it gets beside q, k and v."""
        return _variant(soft_cap > 0), (*self._tensors, self._stride, sm_scale, max(soft_cap, 0.0))
