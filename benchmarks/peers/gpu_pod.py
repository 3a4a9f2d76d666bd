# SPDX-License-Identifier: Apache-2.0
"""A prefill beside decodes, tensors of their own each (POD): the same program with fulmen and with flashinfer.

    python3 benchmarks/peers/gpu_pod.py --out peers-pod.json

Contestants of a row, all with one prefill on contiguous keys and decodes on a paged cache:
    fulmen               PODWithPagedKVCacheWrapper
    fulmen, batch        BatchPODWithPagedKVCacheWrapper: the prefill's keys in pages of their own cache
    fulmen, in turn      single_prefill_with_kv_cache, then BatchDecodeWithPagedKVCacheWrapper
    fulmen, one batch    all requests in one cache: BatchPrefillWithPagedKVCacheWrapper
    flashinfer, ...      the same four
A result that is off from the double one is not timed. Each is timed in three ways:
    C2        one launch per graph, after L2 was overwritten. Fulmen's graph holds the kernels that plan, so that it
              follows its tables; FlashInfer's plan was made on the host before and is in none of its figures.
    C2 step   a model's step in a graph: LAYERS launches, each on caches of its own, after one plan; time per launch
    C2 alone  LAYERS launches after a plan that was made before, queued on a stream; time per launch
"""

import argparse
import dataclasses
import datetime
import json
import time
from types import ModuleType, SimpleNamespace
from typing import Any, Callable

import gpu_timing
import torch

import fulmen

bf16, i32 = torch.bfloat16, torch.int32
LAYERS = 4


@dataclasses.dataclass
class Case:
    shape: str
    qo_len: int
    kv_len: int
    batch: int
    decode_len: int
    num_qo_heads: int = 32
    num_kv_heads: int = 8
    page_size: int = 16
    head_dim: int = 128


CASES = {
    "C2": Case("prefill 8k, decode 128x4k 32/8 D128", 8192, 8192, 128, 4096),
    "M1": Case("append q2048 on kv8k, decode 128x4k", 2048, 8192, 128, 4096),
    "M3": Case("append q512 on kv4k, decode 64x8k", 512, 4096, 64, 8192),
    "M4": Case("prefill 8k, decode 8x4k", 8192, 8192, 8, 4096),
    "M6": Case("prefill 512, decode 16x1k", 512, 512, 16, 1024),
    "M8": Case("prefill 2k, decode 16x4k", 2048, 2048, 16, 4096),
    "M9": Case("append q512 on kv16k, decode 256x2k", 512, 16384, 256, 2048),
}


def num_bytes(c: Case) -> float:
    rows = 2 * (c.qo_len + c.batch) * c.num_qo_heads
    return 2.0 * c.head_dim * (rows + 2 * c.num_kv_heads * (c.kv_len + c.batch * c.decode_len))


def num_flops(c: Case) -> float:
    seen = c.qo_len * (c.kv_len - (c.qo_len - 1) / 2) + c.batch * c.decode_len
    return 4.0 * c.head_dim * c.num_qo_heads * seen


def pages_of(c: Case, length: int) -> int:
    return -(-length // c.page_size)


def table(c: Case, lens: list[int]) -> SimpleNamespace:
    counts = torch.tensor([pages_of(c, n) for n in lens])
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    last = torch.tensor([(n - 1) % c.page_size + 1 for n in lens])
    return SimpleNamespace(
        indptr=indptr.to(i32).cuda(), indices=torch.randperm(int(indptr[-1])).to(i32).cuda(), last=last.to(i32).cuda()
    )  # fmt: skip


def offsets(*lens: int) -> torch.Tensor:
    return torch.tensor([0, *lens]).cumsum(0).to(i32).cuda()


def inputs(c: Case, t: SimpleNamespace) -> SimpleNamespace:
    """One cache for all: the prefill's pages come last in the table; its keys also lie contiguously."""

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, c.head_dim, device="cuda", dtype=bf16)

    pages = t.all.indices.shape[0]
    k, v = (random(pages, c.page_size, c.num_kv_heads) for _ in range(2))
    own = t.all.indices[-pages_of(c, c.kv_len) :].long()
    k_p, v_p = (x[own].reshape(-1, c.num_kv_heads, c.head_dim)[: c.kv_len].contiguous() for x in (k, v))
    q = random(c.batch + c.qo_len, c.num_qo_heads)
    return SimpleNamespace(q=q, q_d=q[: c.batch], q_p=q[c.batch :], k=k, v=v, k_p=k_p, v_p=v_p)


def contestants(
    name: str, m: ModuleType, c: Case, t: SimpleNamespace
) -> dict[str, Callable[[], Callable[[SimpleNamespace], Any]]]:
    """Each makes and plans what gives (prefill's output, decodes' output)."""
    sizes = (c.num_qo_heads, c.num_kv_heads, c.head_dim, c.page_size)
    dtypes = {"q_data_type": bf16, "kv_data_type": bf16}

    def workspace() -> torch.Tensor:
        return torch.zeros(256 << 20, dtype=torch.uint8, device="cuda")

    def decode_table() -> tuple[torch.Tensor, ...]:
        return t.all.indptr[:-1].contiguous(), t.decode_indices, t.all.last[:-1].contiguous()

    def pod() -> Callable[[SimpleNamespace], Any]:
        w = m.PODWithPagedKVCacheWrapper(workspace())
        w.plan(*decode_table(), *sizes, **dtypes)
        return lambda s: w.run(s.q_p, s.k_p, s.v_p, s.q_d, (s.k, s.v), causal_p=True)

    def batch() -> Callable[[SimpleNamespace], Any]:
        w = m.BatchPODWithPagedKVCacheWrapper(workspace())
        w.plan(
            offsets(c.qo_len), t.prefill_indptr, t.prefill_indices, t.all.last[-1:].contiguous(),
            offsets(*[1] * c.batch), *decode_table(), *sizes, **dtypes,
        )  # fmt: skip
        return lambda s: w.run(s.q_p, (s.k, s.v), s.q_d, (s.k, s.v), causal_p=True)

    def in_turn() -> Callable[[SimpleNamespace], Any]:
        w = m.BatchDecodeWithPagedKVCacheWrapper(workspace(), use_tensor_cores=True)
        w.plan(*decode_table(), *sizes, **dtypes)

        def run(s: SimpleNamespace) -> Any:
            return m.single_prefill_with_kv_cache(s.q_p, s.k_p, s.v_p, causal=True), w.run(s.q_d, (s.k, s.v))

        return run

    def one_batch() -> Callable[[SimpleNamespace], Any]:
        w = m.BatchPrefillWithPagedKVCacheWrapper(workspace())
        rows = offsets(*[1] * c.batch, c.qo_len)
        w.plan(rows, t.all.indptr, t.all.indices, t.all.last, *sizes, causal=True, **dtypes)

        def run(s: SimpleNamespace) -> Any:
            out = w.run(s.q, (s.k, s.v))
            return out[c.batch :], out[: c.batch]

        return run

    return {name: pod, f"{name}, batch": batch, f"{name}, in turn": in_turn, f"{name}, one batch": one_batch}


def problem(c: Case, t: SimpleNamespace, s: SimpleNamespace, outs: Any) -> str:
    """What is wrong with the last rows of the prefill and the last decode; empty: nothing."""
    worst, rows = 0.0, min(8, c.qo_len)
    for part, length, own in ((0, c.kv_len, t.prefill_indices), (1, c.decode_len, t.decode_indices)):
        n = rows if part == 0 else 1
        out, q = outs[part][-n:].double(), (s.q_p, s.q_d)[part][-n:].double()
        k, v = (x[own[-pages_of(c, length) :].long()].reshape(-1, *x.shape[2:])[:length].double() for x in (s.k, s.v))
        group = c.num_qo_heads // c.num_kv_heads
        logits = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(group, 1)) / c.head_dim**0.5
        hidden = torch.arange(length, device="cuda") > length - n + torch.arange(n, device="cuda")[:, None]
        weights = logits.masked_fill(hidden, -float("inf")).softmax(-1)
        want = torch.einsum("hqk,khd->qhd", weights, v.repeat_interleave(group, 1))
        error = float((out - want).abs().max() / want.abs().max())
        worst = max(worst, error if error == error else float("inf"))
    return "" if worst <= 0.02 else f"off from the double result by {worst:.3g} of its largest element"


def tables(c: Case) -> SimpleNamespace:
    both = table(c, [c.decode_len] * c.batch + [c.kv_len])
    own = pages_of(c, c.kv_len)
    return SimpleNamespace(
        all=both, decode_indices=both.indices[:-own].contiguous(), prefill_indices=both.indices[-own:].contiguous(),
        prefill_indptr=offsets(own),
    )  # fmt: skip


def measure(timer: gpu_timing.Timer, name: str, peers: list[Any], deadline: float) -> list[dict[str, Any]]:
    c = CASES[name]
    t = tables(c)
    rows = [
        {"id": f"{name}{form}", "shape": c.shape + words, "us": None, "floor_us": None, "peers": {}, "low_us": {},
         "problems": {}, "methods": {}}
        for form, words in (("", ""), (" step", f", {LAYERS} layers"), (" alone", f", {LAYERS} layers, planned before"))
    ]  # fmt: skip
    single, step, alone = rows
    # A wrapper whose launches were captured plans again with each launch that is not: those come first.
    form = gpu_timing.Form
    forms = (form(alone, LAYERS, graph=False), form(single, 1), form(step, LAYERS))
    sets = [inputs(c, t) for _ in range(LAYERS)]
    makers = {who: make for module_name, m in peers for who, make in contestants(module_name, m, c, t).items()}
    for who, make in makers.items():

        def prepare(make: Callable[[], Callable[[Any], Any]] = make) -> tuple[Callable[[Any], Any], str]:
            call = make()
            return call, problem(c, t, sets[0], call(sets[0]))

        timer.time_forms(who, forms, sets, num_bytes(c), prepare, deadline)
    for row in rows:
        row["us"] = row["peers"].pop("fulmen", None)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(CASES))
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--out", default="peers-pod.json")
    parser.add_argument("--replays", type=int, default=15)
    args = parser.parse_args()
    deadline = time.monotonic() + args.seconds
    versions = {"torch": torch.__version__, "fulmen": fulmen.__version__}
    peers: list[Any] = [("fulmen", fulmen)]
    try:
        import flashinfer

        versions["flashinfer"] = flashinfer.__version__
        peers.append(("flashinfer", flashinfer))
    except ImportError as e:
        print(f"flashinfer cannot be imported: {e}")
    timer = gpu_timing.Timer(replays=args.replays)
    copy = timer.copy_bytes_per_second()
    rows: list[dict[str, Any]] = []
    data = {
        "device": torch.cuda.get_device_name(), "commit": args.commit, "date": str(datetime.date.today()),
        "suite": "peers-pod", "versions": versions, "ceilings": {"copy_bytes_per_second": copy}, "rows": rows,
    }  # fmt: skip
    for name in args.rows.split(","):
        for row in measure(timer, name, peers, deadline):
            row["floor_us"] = round(num_bytes(CASES[name]) / copy * 1e6, 3)
            row["tflops"] = round(num_flops(CASES[name]) / 1e12, 4)
            print(row["id"], row["us"], row["peers"], row["problems"], flush=True)
            rows.append(row)
        with open(args.out, "w") as file:  # also where time is up
            json.dump(data, file, indent=1)


if __name__ == "__main__":
    main()
