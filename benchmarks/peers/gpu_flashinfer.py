# SPDX-License-Identifier: Apache-2.0
"""Decode rows of the standard table through the paged wrappers, the same program with fulmen and with flashinfer.

    python3 benchmarks/peers/gpu_flashinfer.py --out peers-paged-attention.json

Both libraries get the same caches, page tables and calls; PyTorch, which has no pages, gets contiguous caches of the
same size (gpu_attention.py). A result that is off from the double one is not timed. FlashInfer's decode has two forms,
on CUDA cores and on tensor cores; where it has one for a row, both are given.

Each row is timed in four ways:
    D5        one launch per graph, after L2 was overwritten. Fulmen's graph holds the kernel that plans, so that it
              follows its tables; FlashInfer's plan was made on the host before and is in none of its figures. Rows of
              less than 200 MB: several launches, each on a cache of its own, after one plan.
    D5 clean  the same, but what was overwritten has been written back before
    D5 step   a model's step: LAYERS launches, each on a cache of its own, after one plan; time per launch
    D5 alone  attention alone, of both: LAYERS launches after a plan that was made before, queued on a stream, since a
              graph of Fulmen's would plan; time per launch
"""

import argparse
import dataclasses
import datetime
import json
import time
from types import ModuleType, SimpleNamespace
from typing import Any, Callable, Sequence

import gpu_attention
import gpu_timing
import torch

import fulmen

bf16, i32, e4m3 = torch.bfloat16, torch.int32, torch.float8_e4m3fn
LAYERS = 8


@dataclasses.dataclass
class Case:
    shape: str
    kv_lens: Sequence[int]
    num_qo_heads: int = 32
    num_kv_heads: int = 8
    page_size: int = 16
    qo_len: int = 1
    kv_dtype: torch.dtype = bf16
    head_dim: int = 128


CASES = {
    "D1": Case("decode 32/8 D128 B1 kv1k page 16", [1024]),
    "D2": Case("decode 32/8 D128 B1 kv32k page 16", [32768]),
    "D3": Case("decode 32/8 D128 B1 kv128k page 16", [131072]),
    "D4": Case("decode 32/8 D128 B16 kv8k page 16", [8192] * 16),
    "D5": Case("decode 64/8 D128 B64 kv8k page 16", [8192] * 64, 64),
    "D6": Case("decode 64/8 D128 B128 kv4k page 1", [4096] * 128, 64, page_size=1),
    "D7": Case("decode 64/8 D128 B256 kv1k page 16", [1024] * 256, 64),
    "D8": Case("spec decode q4 64/8 D128 B8 kv16k page 16", [16384] * 8, 64, qo_len=4),
    "D9": Case("decode skew 1x512k + 63x1k 32/8 D128", [524288] + [1024] * 63),
    "D10": Case("decode MHA 32/32 D128 B16 kv2k page 8", [2048] * 16, 32, 32, page_size=8),
    "D11": Case("decode e4m3 kv 64/8 D128 B64 kv8k page 16", [8192] * 64, 64, kv_dtype=e4m3),
}


def num_bytes(c: Case) -> float:
    rows = 2 * len(c.kv_lens) * c.qo_len * c.num_qo_heads * 2
    return float(c.head_dim * (rows + 2 * sum(c.kv_lens) * c.num_kv_heads * c.kv_dtype.itemsize))


def tables(c: Case) -> SimpleNamespace:
    pages = torch.tensor([-(-n // c.page_size) for n in c.kv_lens])
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), pages.cumsum(0)])
    return SimpleNamespace(
        num_pages=int(starts[-1]),
        qo_indptr=(torch.arange(len(c.kv_lens) + 1) * c.qo_len).to(i32).cuda(),
        indptr=starts.to(i32).cuda(),
        indices=torch.randperm(int(starts[-1])).to(i32).cuda(),
        last=torch.tensor([(n - 1) % c.page_size + 1 for n in c.kv_lens], dtype=i32).cuda(),
    )


def inputs(c: Case, num_pages: int) -> SimpleNamespace:
    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, c.head_dim, device="cuda", dtype=bf16)

    q = random(len(c.kv_lens) * c.qo_len, c.num_qo_heads)
    k, v = (random(num_pages, c.page_size, c.num_kv_heads).to(c.kv_dtype) for _ in range(2))
    return SimpleNamespace(q=q, k=k, v=v, out=torch.full_like(q, float("nan")))


def planned(module: ModuleType, c: Case, t: SimpleNamespace, **form: Any) -> Callable[[Any], Any]:
    """run() of module's wrapper, planned for the tables."""
    workspace = torch.zeros(256 << 20, dtype=torch.uint8, device="cuda")
    sizes = (c.num_qo_heads, c.num_kv_heads, c.head_dim, c.page_size)
    dtypes = {"q_data_type": bf16, "kv_data_type": c.kv_dtype}
    if c.qo_len > 1:
        prefill = module.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD", backend="fa2")
        prefill.plan(t.qo_indptr, t.indptr, t.indices, t.last, *sizes, causal=True, **dtypes)
        return lambda s: prefill.run(s.q, (s.k, s.v), out=s.out)
    decode = module.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", **form)
    decode.plan(t.indptr, t.indices, t.last, *sizes, **dtypes)
    return lambda s: decode.run(s.q, (s.k, s.v), out=s.out)


def contestants(c: Case, flashinfer: ModuleType | None) -> dict[str, Callable[[SimpleNamespace], Callable[[Any], Any]]]:
    found = {"fulmen": lambda t: planned(fulmen, c, t)}
    if flashinfer is None:
        return found
    if c.qo_len > 1:
        return found | {"flashinfer": lambda t: planned(flashinfer, c, t)}
    return found | {
        f"flashinfer, {'tensor' if tensor else 'CUDA'} cores": lambda t, tensor=tensor: planned(
            flashinfer, c, t, use_tensor_cores=tensor
        )
        for tensor in (False, True)
    }


def problem(c: Case, t: SimpleNamespace, s: SimpleNamespace, request: int) -> str:
    """What is wrong with s.out of one request; empty: nothing."""
    pages = t.indices[t.indptr[request] : t.indptr[request + 1]].long()
    group, kv_len = c.num_qo_heads // c.num_kv_heads, c.kv_lens[request]
    rows = slice(request * c.qo_len, (request + 1) * c.qo_len)
    worst = 0.0
    for head in range(c.num_kv_heads):
        k, v = (x[pages, :, head].reshape(-1, c.head_dim)[:kv_len].double() for x in (s.k, s.v))
        heads = slice(head * group, (head + 1) * group)
        logits = s.q[rows, heads].double() @ k.T / c.head_dim**0.5
        last = kv_len - c.qo_len + torch.arange(c.qo_len, device="cuda")[:, None]
        hidden = torch.arange(kv_len, device="cuda") > last
        want = logits.masked_fill(hidden[:, None], -float("inf")).softmax(-1) @ v
        error = (s.out[rows, heads].double() - want).abs().max() / want.abs().max()
        worst = max(worst, float(error) if error == error else float("inf"))
    return "" if worst <= 0.02 else f"off from the double result by {worst:.3g} of its largest element"


def empty_row(name: str, shape: str) -> dict[str, Any]:
    return {"id": name, "shape": shape, "us": None, "floor_us": None, "peers": {}, "low_us": {}, "problems": {},
            "methods": {}}  # fmt: skip


def measure(timer: gpu_timing.Timer, name: str, flashinfer: ModuleType | None, deadline: float) -> list[dict[str, Any]]:
    c = CASES[name]
    t = tables(c)
    single, clean, step, alone = rows = [
        empty_row(name, c.shape), empty_row(f"{name} clean", f"{c.shape}, clean L2"),
        empty_row(f"{name} step", f"{c.shape}, {LAYERS} layers"),
        empty_row(f"{name} alone", f"{c.shape}, {LAYERS} layers, planned before"),
    ]  # fmt: skip
    count = 1 if num_bytes(c) > 2e8 else gpu_timing.num_sets(num_bytes(c))
    # A wrapper whose launches were captured plans again with each launch that is not: those come first.
    form = gpu_timing.Form
    forms = (form(alone, LAYERS, graph=False), form(single, count), form(clean, count, clean=True), form(step, LAYERS))
    sets = [inputs(c, t.num_pages) for _ in range(max(count, LAYERS))]
    for who, make in contestants(c, flashinfer).items():

        def prepare(make: Callable[[Any], Callable[[Any], Any]] = make) -> tuple[Callable[[Any], Any], str]:
            call = make(t)
            sets[0].out.fill_(float("nan"))
            call(sets[0])
            return call, problem(c, t, sets[0], len(c.kv_lens) - 1)

        timer.time_forms(who, forms, sets, num_bytes(c), prepare, deadline)
    for row in rows:
        row["us"] = row["peers"].pop("fulmen", None)
    del sets
    if name in gpu_attention.CASES and c.kv_dtype == bf16:
        gpu_attention.measure(timer, gpu_attention.CASES[name], single, deadline)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(CASES))
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--out", default="peers-paged-attention.json")
    args = parser.parse_args()
    deadline = time.monotonic() + args.seconds
    versions = {"torch": torch.__version__, "fulmen": fulmen.__version__}
    try:
        import flashinfer

        versions["flashinfer"] = flashinfer.__version__
    except ImportError as e:
        flashinfer = None
        print(f"flashinfer cannot be imported: {e}")
    timer = gpu_timing.Timer(replays=15)
    copy = timer.copy_bytes_per_second()
    rows = []
    for name in args.rows.split(","):
        for row in measure(timer, name, flashinfer, deadline):
            row["floor_us"] = round(num_bytes(CASES[name]) / copy * 1e6, 3)
            print(row["id"], row["us"], row["peers"], row["problems"], flush=True)
            rows.append(row)
    data = {
        "device": torch.cuda.get_device_name(), "commit": args.commit, "date": str(datetime.date.today()),
        "suite": "peers-paged-attention", "versions": versions, "ceilings": {"copy_bytes_per_second": copy},
        "rows": rows,
    }  # fmt: skip
    with open(args.out, "w") as file:
        json.dump(data, file, indent=1)


if __name__ == "__main__":
    main()
