# SPDX-License-Identifier: Apache-2.0
"""Attention in float64 NumPy, from the formula: one request at a time, no blocks, two passes."""

from __future__ import annotations

import numpy as np


def rope_pairs(
    x: np.ndarray,
    positions: np.ndarray,
    theta: float = 1e4,
    scale: float = 1.0,
    rotary_dim: int | None = None,
    interleave: bool = False,
    freqs: np.ndarray | None = None,
) -> np.ndarray:
    """x [n, heads, dim] rotated by positions [n]."""
    rd = x.shape[-1] if rotary_dim is None else rotary_dim
    f = theta ** (-2.0 * np.arange(rd // 2) / rd) / scale if freqs is None else freqs
    angle = positions[:, None, None] * f
    cos, sin = np.cos(angle), np.sin(angle)
    out = x.copy()
    first, second = (slice(0, rd, 2), slice(1, rd, 2)) if interleave else (slice(0, rd // 2), slice(rd // 2, rd))
    a, b = x[..., first], x[..., second]
    out[..., first], out[..., second] = a * cos - b * sin, b * cos + a * sin
    return out


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    causal: bool = False,
    window_left: int = -1,
    cap: float = 0.0,
    sm_scale: float | None = None,
    mask: np.ndarray | None = None,
    alibi: np.ndarray | None = None,
    sinks: np.ndarray | None = None,
    rope: tuple[float, float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(out [qo_len, heads, dim_vo], lse base 2 [qo_len, heads]) of q [qo_len, heads, dim], k and v [kv_len, kv_heads,
    ..].
    """
    qo_len, heads, dim = q.shape
    kv_len, group = k.shape[0], heads // k.shape[1]
    if rope is not None:
        q = rope_pairs(q, np.arange(kv_len - qo_len, kv_len), *rope)
        k = rope_pairs(k, np.arange(kv_len), *rope)
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    z = np.einsum("ihd,jhd->ihj", q, k) * (dim**-0.5 if sm_scale is None else sm_scale)
    i, j = np.arange(qo_len)[:, None, None], np.arange(kv_len)[None, None, :]
    if cap > 0:
        z = cap * np.tanh(z / cap)
    if alibi is not None:
        z = z + alibi[None, :, None] * (j - i)
    keep = np.ones((qo_len, 1, kv_len), bool)
    if mask is not None:
        keep = mask.reshape(qo_len, 1, kv_len).astype(bool)
    elif causal:
        keep = j + qo_len <= kv_len + i
    if window_left >= 0:
        keep = keep & (j + qo_len + window_left >= kv_len + i)
    z = np.where(keep, z, -np.inf)
    top = z.max(-1, initial=-np.inf)
    if sinks is not None:
        top = np.maximum(top, sinks[None, :])
    safe = np.where(np.isfinite(top), top, 0.0)
    w = np.exp(z - safe[..., None])
    total = w.sum(-1) + (0 if sinks is None else np.exp(sinks[None, :] - safe))
    out = np.einsum("ihj,jhd->ihd", w, v) / np.where(total > 0, total, 1.0)[..., None]
    with np.errstate(divide="ignore"):
        lse = (safe + np.log(total)) / np.log(2.0)
    return out, lse


def gather(k_pages: np.ndarray, indices: np.ndarray, indptr: np.ndarray, lens: np.ndarray, b: int) -> np.ndarray:
    """Keys of request b from pages [num_pages, page_size, heads, dim]."""
    pages = k_pages[indices[indptr[b] : indptr[b + 1]]]
    return pages.reshape(-1, *k_pages.shape[2:])[: lens[b]]
