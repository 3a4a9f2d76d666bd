# SPDX-License-Identifier: Apache-2.0
"""The sampling rows of gpu_memory.py. A drawn token must be one that the filter keeps; its distribution is not tested
here.
"""

from types import SimpleNamespace
from typing import Any, Callable

import torch
from gpu_rows import Row, bf16, f32, near, returned

import fulmen

TOP_K, TOP_P = 50, 0.9


def logits(batch: int, vocab: int, dtype: torch.dtype) -> Callable[[], SimpleNamespace]:
    return lambda: SimpleNamespace(x=(torch.randn(batch, vocab, device="cuda") * 3).to(dtype))


def drawn_from_filter(s: Any, results: tuple[Any, ...]) -> str:
    """Top-k, then top-p of what is left; a token whose rank or mass is at the border within rounding is let through."""
    tokens = results[0].long().flatten()
    if tokens.shape[0] != s.x.shape[0]:
        return f"{tokens.shape[0]} tokens for {s.x.shape[0]} rows"
    if not bool(((tokens >= 0) & (tokens < s.x.shape[1])).all()):
        return "a token out of range"
    best = s.x.float().topk(TOP_K, -1).values.double()
    probs = torch.softmax(best, -1)
    before = probs.cumsum(-1) - probs
    lowest = torch.where(before < TOP_P + 1e-4, best, torch.inf).amin(-1)
    chosen = s.x.gather(1, tokens[:, None]).squeeze(1).double()
    bad = int((chosen < lowest - 1e-5 * lowest.abs()).sum())
    return f"{bad} tokens that the filter does not keep" if bad else ""


def in_range(s: Any, results: tuple[Any, ...]) -> str:
    tokens = results[0].long()
    good = tokens.numel() == s.x.shape[0] and bool(((tokens >= 0) & (tokens < s.x.shape[1])).all())
    return "" if good else "tokens out of range, or not one per row"


def sorted_top_k_top_p(s: Any) -> torch.Tensor:
    """What engines do without a kernel: one sort of the row."""
    values, order = s.x.sort(-1, descending=True)
    values[:, TOP_K:] = -torch.inf
    probs = torch.softmax(values.float(), -1)
    probs = probs.masked_fill(probs.cumsum(-1) - probs >= TOP_P, 0.0)
    return order.gather(1, torch.multinomial(probs, 1)).squeeze(1)


def filtered_row(row_id: str, batch: int, vocab: int) -> Row:
    return Row(
        row_id, f"top-k {TOP_K} + top-p {TOP_P} of f32 logits {batch} x {vocab}", 4.0 * batch * vocab,
        logits(batch, vocab, f32),
        lambda s: fulmen.top_k_top_p_sampling_from_logits(s.x, TOP_K, TOP_P, seed=1, offset=0),
        sorted_top_k_top_p,
        lambda fi, s: fi.top_k_top_p_sampling_from_logits(s.x, TOP_K, TOP_P),
        returned,
        drawn_from_filter,
    )  # fmt: skip


def plain_row() -> Row:
    batch, vocab = 512, 151936
    return Row(
        "S5", f"sample from bf16 logits {batch} x {vocab}", 2.0 * batch * vocab,
        logits(batch, vocab, bf16),
        lambda s: fulmen.sampling_from_logits(s.x, seed=1, offset=0),
        lambda s: torch.multinomial(torch.softmax(s.x.float(), -1), 1),
        lambda fi, s: fi.sampling_from_logits(s.x.float()),
        returned,
        in_range,
    )  # fmt: skip


def renorm_row() -> Row:
    batch, vocab = 128, 131072

    def kept(s: Any) -> torch.Tensor:
        values, order = s.x.sort(-1, descending=True)
        values = values.masked_fill(values.cumsum(-1) - values >= TOP_P, 0.0)
        values = values / values.sum(-1, keepdim=True)
        return torch.zeros_like(s.x).scatter_(1, order, values)

    def expected(s: Any) -> tuple[torch.Tensor]:
        return (kept(SimpleNamespace(x=s.x.double())),)

    return Row(
        "S6", f"top-p {TOP_P} renorm of f32 probs {batch} x {vocab}", 8.0 * batch * vocab,
        lambda: SimpleNamespace(x=torch.softmax(torch.randn(batch, vocab, device="cuda") * 3, -1)),
        lambda s: fulmen.top_p_renorm_probs(s.x, TOP_P),
        kept,
        lambda fi, s: fi.top_p_renorm_probs(s.x, TOP_P),
        returned,
        near(expected, 1e-4),  # a token at the border may be in or out: it weighs less than this
    )  # fmt: skip


def sampling_rows() -> list[Row]:
    return [
        filtered_row("S1", 1, 128256), filtered_row("S2", 128, 131072), filtered_row("S3", 512, 128256),
        filtered_row("S4", 64, 32000), plain_row(), renorm_row(), filtered_row("S8", 1024, 151936),
    ]  # fmt: skip
