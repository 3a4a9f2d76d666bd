# SPDX-License-Identifier: Apache-2.0
"""The rows of gpu_memory.py: norms, activation, RoPE, append, merge, sampling, each written for every contestant.

A row makes its inputs, and has one function per contestant from inputs to results; `expected` gives the same results in
double, and how far off a result may be.
"""

import dataclasses
from types import SimpleNamespace
from typing import Any, Callable

import torch
import torch.nn.functional as functional
from gpu_timing import Timing

import fulmen

bf16, f32, i32, fp8 = torch.bfloat16, torch.float32, torch.int32, torch.float8_e4m3fn
EPS = 1e-6
# Contestants may round intermediate results to bfloat16 a few times: four half units of the largest operand.
ROUNDINGS = 4 * 2.0**-8


@dataclasses.dataclass
class Row:
    id: str
    shape: str
    num_bytes: float
    make: Callable[[], SimpleNamespace]
    fulmen: Callable[[Any], Any]
    pytorch: Callable[[Any], Any]
    flashinfer: Callable[[Any, Any], Any] | str  # (module, inputs), or why there is none
    results: Callable[[Any, Any], tuple[Any, ...]]  # (inputs, what a contestant returned)
    problem: Callable[[Any, tuple[Any, ...]], str]  # (inputs as they were, results) → what is wrong; empty: nothing


def new_entry(row: Row, num_sets: int, copy_rate: float) -> dict[str, Any]:
    """What the result file says of a row, before anybody is timed."""
    entry: dict[str, Any] = {"id": row.id, "shape": row.shape, "us": None, "bytes": row.num_bytes, "peers": {}}
    return entry | {"floor_us": row.num_bytes / copy_rate * 1e6, "low_us": {}, "problems": {}, "methods": {},
                    "sets": num_sets}  # fmt: skip


def add_timing(entry: dict[str, Any], name: str, timing: Timing) -> None:
    if name == "fulmen":
        entry["us"] = round(timing.us, 3)
    else:
        entry["peers"][name] = round(timing.us, 3)
    entry["low_us"][name], entry["methods"][name] = round(timing.low_us, 3), timing.method


def returned(s: Any, result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def normal(*shape: int, dtype: torch.dtype = bf16) -> torch.Tensor:
    return torch.randn(*shape, device="cuda", dtype=f32 if dtype.itemsize < 4 else dtype).to(dtype)


def near(expected: Callable[[Any], tuple[torch.Tensor, ...]], tolerance: float = ROUNDINGS) -> Callable[..., str]:
    """A Row.problem: every result is within tolerance of the double result, relative, or absolute below 1."""

    def problem(inputs: Any, results: tuple[Any, ...]) -> str:
        for i, (want, got) in enumerate(zip(expected(inputs), results)):
            worst = ((got.double() - want).abs() / want.abs().clamp(min=1.0)).max().item()
            if not worst <= tolerance:
                return f"result {i} is off by {worst:.3g}, allowed is {tolerance:.3g}"
        return ""

    return problem


def rms64(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    x = x.double()
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + EPS) * w.double()


def rmsnorm_row(row_id: str, *shape: int) -> Row:
    hidden, count = shape[-1], torch.Size(shape).numel()
    return Row(
        row_id, f"rmsnorm bf16 {' x '.join(map(str, shape))}", 4.0 * count,
        lambda: SimpleNamespace(x=normal(*shape), w=normal(hidden), out=torch.empty(shape, dtype=bf16, device="cuda")),
        lambda s: fulmen.rmsnorm(s.x, s.w, EPS, s.out),
        lambda s: functional.rms_norm(s.x, (hidden,), s.w, EPS),
        lambda fi, s: fi.rmsnorm(s.x.view(-1, hidden), s.w, EPS, s.out.view(-1, hidden)).view(s.x.shape),
        returned,
        near(lambda s: (rms64(s.x, s.w),)),
    )  # fmt: skip


def fused_add_rmsnorm_row() -> Row:
    def pytorch(s: Any) -> None:
        s.r.add_(s.x)
        s.x.copy_(functional.rms_norm(s.r, (8192,), s.w, EPS))

    def expected(s: Any) -> tuple[torch.Tensor, ...]:
        total = s.x.double() + s.r.double()
        return rms64(total, s.w), total

    return Row(
        "N2", "fused_add_rmsnorm bf16 4096 x 8192", 8.0 * 4096 * 8192,
        lambda: SimpleNamespace(x=normal(4096, 8192), r=normal(4096, 8192), w=normal(8192)),
        lambda s: fulmen.fused_add_rmsnorm(s.x, s.r, s.w, EPS),
        pytorch,
        lambda fi, s: fi.fused_add_rmsnorm(s.x, s.r, s.w, EPS),
        lambda s, _: (s.x, s.r),
        near(expected, 2 * ROUNDINGS),
    )  # fmt: skip


def rmsnorm_quant_row() -> Row:
    def pytorch(s: Any) -> torch.Tensor:
        y = functional.rms_norm(s.x.float(), (4096,), s.w.float(), EPS) / s.scale
        return y.clamp(-448, 448).to(fp8)

    return Row(
        "N3", "rmsnorm bf16 to e4m3 8192 x 4096", 3.0 * 8192 * 4096,
        lambda: SimpleNamespace(x=normal(8192, 4096), w=normal(4096), scale=torch.full((1,), 0.5, device="cuda"),
                                out=torch.empty(8192, 4096, dtype=fp8, device="cuda")),
        lambda s: (fulmen.rmsnorm_quant(s.out, s.x, s.w, s.scale, EPS), s.out)[1],
        pytorch,
        "flashinfer 0.5.3 has no norm that quantizes",
        returned,
        near(lambda s: (rms64(s.x, s.w) / 0.5,), 2.0**-4 + 2.0**-8),  # half a unit of e4m3, and float32's roundings
    )  # fmt: skip


def silu_row() -> Row:
    d = 14336
    return Row(
        "N5", f"silu_and_mul bf16 4096 x 2*{d}", 6.0 * 4096 * d,
        lambda: SimpleNamespace(x=normal(4096, 2 * d), out=torch.empty(4096, d, dtype=bf16, device="cuda")),
        lambda s: fulmen.silu_and_mul(s.x, s.out),
        lambda s: functional.silu(s.x[:, :d]) * s.x[:, d:],
        lambda fi, s: fi.silu_and_mul(s.x, s.out),
        returned,
        near(lambda s: (functional.silu(s.x[:, :d].double()) * s.x[:, d:].double(),)),
    )  # fmt: skip


def rotated(x: torch.Tensor, positions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Halves of each head rotated, computed in dtype."""
    half = x.shape[-1] // 2
    freqs = 1e4 ** (-torch.arange(half, device=x.device, dtype=torch.float64) / half)
    angles = (positions.double()[:, None] * freqs)[:, None]
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    a, b = x[..., :half].to(dtype), x[..., half:].to(dtype)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def paged(batch: int, new: int, old: int) -> SimpleNamespace:
    """A cache of 16-token pages in random order, and new tokens at the end of each request."""
    length, pages = old + new, -(-(old + new) // 16)
    p = SimpleNamespace()
    p.table = torch.randperm(batch * pages, device="cuda").to(i32)
    p.indptr = torch.arange(batch + 1, device="cuda", dtype=i32) * pages
    p.last = torch.full((batch,), length - (pages - 1) * 16, device="cuda", dtype=i32)
    p.batch_indices = torch.arange(batch, device="cuda", dtype=i32).repeat_interleave(new)
    p.positions = (torch.arange(new, device="cuda", dtype=i32) + old).repeat(batch)
    p.slot_page = p.table[(p.batch_indices * pages + p.positions // 16).long()].long()
    p.slot = (p.positions % 16).long()
    p.cache = torch.zeros(batch * pages, 2, 16, 8, 128, dtype=bf16, device="cuda")
    p.k, p.v = normal(batch * new, 8, 128), normal(batch * new, 8, 128)
    return p


def append(library: Any, s: Any) -> None:
    library.append_paged_kv_cache(s.k, s.v, s.batch_indices, s.positions, s.cache, s.table, s.indptr, s.last)


def append_by_index(s: Any, k: torch.Tensor) -> None:
    s.cache[s.slot_page, 0, s.slot] = k
    s.cache[s.slot_page, 1, s.slot] = s.v


def stored(s: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return s.cache[s.slot_page, 0, s.slot], s.cache[s.slot_page, 1, s.slot]


def rope_append_row() -> Row:
    def make() -> SimpleNamespace:
        s = paged(8, 1024, 1000)
        s.q = normal(8192, 32, 128)
        s.out = torch.empty_like(s.q)
        return s

    def fused(s: Any) -> torch.Tensor:
        return fulmen.page.rope_append_paged_kv_cache(
            s.q, s.k, s.v, s.positions, s.batch_indices, s.positions, s.cache, s.table, s.indptr, out=s.out
        )

    def by(library: Any, s: Any) -> None:
        library.apply_rope_pos_ids_inplace(s.q, s.k, s.positions)
        append(library, s)

    def pytorch(s: Any) -> torch.Tensor:
        append_by_index(s, rotated(s.k, s.positions, f32).to(bf16))
        return rotated(s.q, s.positions, f32).to(bf16)

    def expected(s: Any) -> tuple[torch.Tensor, ...]:
        return (*(rotated(x, s.positions, torch.float64) for x in (s.q, s.k)), s.v.double())

    return Row(
        "N6", "rope + append bf16 8192 tokens 32/8 D128", 2.0 * 8192 * 128 * (2 * 32 + 4 * 8), make,
        fused, pytorch, by,
        lambda s, q: (s.q if q is None else q, *stored(s)),
        near(expected),
    )  # fmt: skip


def append_row() -> Row:
    return Row(
        "N7", "append bf16 256 decode tokens 8 heads D128", 8.0 * 256 * 8 * 128,
        lambda: paged(256, 1, 100),
        lambda s: append(fulmen, s),
        lambda s: append_by_index(s, s.k),
        append,
        lambda s, _: stored(s),
        near(lambda s: (s.k.double(), s.v.double()), 0.0),
    )  # fmt: skip


def merge_row() -> Row:
    def merged(s: Any, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        top = torch.maximum(s.sa, s.sb)
        wa, wb = torch.exp2((s.sa - top).to(dtype)), torch.exp2((s.sb - top).to(dtype))
        total = wa + wb
        va, vb = s.va.to(dtype), s.vb.to(dtype)
        return (va * (wa / total)[..., None] + vb * (wb / total)[..., None]), top.to(dtype) + torch.log2(total)

    def pytorch(s: Any) -> tuple[torch.Tensor, torch.Tensor]:
        v, lse = merged(s, f32)
        return v.to(bf16), lse

    def make() -> SimpleNamespace:
        sa, sb = (torch.randn(8192, 64, device="cuda") for _ in range(2))
        return SimpleNamespace(va=normal(8192, 64, 128), vb=normal(8192, 64, 128), sa=sa, sb=sb)

    return Row(
        "C3", "merge_state bf16 8192 x 64 x 128", 8192.0 * 64 * (3 * 256 + 3 * 4), make,
        lambda s: fulmen.merge_state(s.va, s.sa, s.vb, s.sb),
        pytorch,
        lambda fi, s: fi.merge_state(s.va, s.sa, s.vb, s.sb),
        returned,
        near(lambda s: merged(s, torch.float64)),
    )  # fmt: skip


def memory_rows() -> list[Row]:
    return [
        rmsnorm_row("N1", 1, 8192), fused_add_rmsnorm_row(), rmsnorm_quant_row(), rmsnorm_row("N4", 27030, 24, 128),
        silu_row(), rope_append_row(), append_row(), merge_row(),
    ]  # fmt: skip
