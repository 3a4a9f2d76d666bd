# SPDX-License-Identifier: Apache-2.0
"""Attention rows of the standard table through PyTorch's scaled_dot_product_attention, beside Fulmen's own figures.

    python3 benchmarks/peers/gpu_attention.py --fulmen gpu-attention.json --out peers-attention.json

PyTorch has no pages: its caches are contiguous, which favours it. `--fulmen` is what `fulmen_gpu_bench` wrote for the
same rows on the same machine. Peers: FlashAttention-2 and cuDNN, as PyTorch ships them; windows and requests of several
lengths (P15, P16) go through varlen_attn, which is FlashAttention-2.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import subprocess
import time
from typing import Any, Callable

import gpu_timing
import torch
from torch.nn import attention
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

PEERS = {"pytorch fa2": attention.SDPBackend.FLASH_ATTENTION, "pytorch cudnn": attention.SDPBackend.CUDNN_ATTENTION}


@dataclasses.dataclass
class Case:
    batch: int
    qo_len: int
    kv_len: int
    num_qo_heads: int = 32
    num_kv_heads: int = 8
    head_dim: int = 128
    causal: bool = False
    window_left: int = -1
    last_len: int = 0  # of the last request, where it is another than the others'


CASES = {
    "P1": Case(1, 16384, 16384, 16, 16),
    "P2": Case(1, 16384, 16384, 16, 16, causal=True),
    "P3": Case(4, 4096, 4096, 16, 16, causal=True),
    "P4": Case(32, 512, 512, 16, 16, causal=True),
    "P5": Case(1, 16384, 16384, 32, 32, 64),
    "P6": Case(1, 16384, 16384, 32, 32, 64, causal=True),
    "P11": Case(1, 8192, 8192, causal=True),
    "P12": Case(16, 8192, 8192, 32, 32, causal=True),
    "P13": Case(1, 2048, 32768, 64, 8, causal=True),
    "P15": Case(4, 8192, 8192, 64, 8, 64, causal=True, window_left=127),
    "P16": Case(32, 512, 512, causal=True, last_len=32768),
    "D1": Case(1, 1, 1024),
    "D2": Case(1, 1, 32768),
    "D3": Case(1, 1, 131072),
    "D4": Case(16, 1, 8192),
    "D5": Case(64, 1, 8192, 64, 8),
    "D7": Case(256, 1, 1024, 64, 8),
    "D8": Case(8, 4, 16384, 64, 8, causal=True),
    "D10": Case(16, 1, 2048, 32, 32),
}


def tensors(c: Case) -> tuple[torch.Tensor, ...]:
    def random(tokens: int, heads: int) -> torch.Tensor:  # stored by tokens, as caches are
        return torch.randn(c.batch, tokens, heads, c.head_dim, dtype=torch.bfloat16, device="cuda").transpose(1, 2)

    return random(c.qo_len, c.num_qo_heads), random(c.kv_len, c.num_kv_heads), random(c.kv_len, c.num_kv_heads)


def caller(c: Case) -> Callable[[Any], Any]:
    grouped = c.num_qo_heads != c.num_kv_heads
    if c.causal and c.qo_len != c.kv_len:
        bias = causal_lower_right(c.qo_len, c.kv_len)
        return lambda t: scaled_dot_product_attention(*t, attn_mask=bias, enable_gqa=grouped)
    return lambda t: scaled_dot_product_attention(*t, is_causal=c.causal, enable_gqa=grouped)


def packed_tensors(c: Case) -> tuple[torch.Tensor, ...]:
    total = (c.batch - 1) * c.kv_len + (c.last_len or c.kv_len)
    return tuple(
        torch.randn(total, heads, c.head_dim, dtype=torch.bfloat16, device="cuda")
        for heads in (c.num_qo_heads, c.num_kv_heads, c.num_kv_heads)
    )


def packed_caller(c: Case) -> Callable[[Any], Any]:
    from torch.nn.attention.varlen import varlen_attn  # PyTorch 2.10 and later

    lens = [c.kv_len] * (c.batch - 1) + [c.last_len or c.kv_len]
    starts = torch.tensor([0, *lens]).cumsum(0).to(torch.int32).cuda()
    return lambda t: varlen_attn(*t, starts, starts, max(lens), max(lens), window_size=(c.window_left, 0))


def measure(timer: gpu_timing.Timer, c: Case, row: dict[str, Any], deadline: float) -> None:
    packed = c.window_left >= 0 or c.last_len > 0
    num_bytes = 2 * c.batch * c.head_dim * (2 * c.qo_len * c.num_qo_heads + 2 * c.kv_len * c.num_kv_heads)
    count = 1 if num_bytes > 2e8 else gpu_timing.num_sets(num_bytes)
    sets = [packed_tensors(c) if packed else tensors(c) for _ in range(count)]
    for name, backend in PEERS.items():
        if packed and backend != attention.SDPBackend.FLASH_ATTENTION:
            continue
        if time.monotonic() > deadline:
            row["problems"][name] = "out of time"
            continue
        try:
            with attention.sdpa_kernel(backend), contextlib.redirect_stderr(None):
                timing = timer.time(packed_caller(c) if packed else caller(c), sets)
            row["peers"][name], row["low_us"][name] = round(timing.us, 3), round(timing.low_us, 3)
            row["methods"][name] = timing.method
        except RuntimeError as e:
            row["problems"][name] = str(e).splitlines()[0][:80]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fulmen", help="JSON of fulmen_gpu_bench")
    parser.add_argument("--rows", default=",".join(CASES))
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--out", default="peers-attention.json")
    args = parser.parse_args()
    deadline = time.monotonic() + args.seconds
    own: dict[str, Any] = {"rows": [], "ceilings": {}, "commit": "unknown"}
    if args.fulmen:
        with open(args.fulmen) as file:
            own = json.load(file)
    ours = {row["id"]: row for row in own["rows"]}
    timer = gpu_timing.Timer(replays=11)
    rows = []
    for name in args.rows.split(","):
        us = ours.get(name, {})
        row: dict[str, Any] = {"id": name, "shape": us.get("shape", ""), "us": us.get("us"), "peers": {},
                               "floor_us": us.get("floor_us"), "low_us": {}, "problems": {}, "methods": {}}  # fmt: skip
        measure(timer, CASES[name], row, deadline)
        print(name, row["us"], row["peers"], row["problems"], flush=True)
        rows.append(row)
    query = "--query-gpu=driver_version,clocks.sm,power.draw"
    driver = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True).stdout
    data = {
        "device": torch.cuda.get_device_name(), "driver": driver.strip(), "commit": own["commit"],
        "date": str(datetime.date.today()), "suite": "peers-attention", "versions": {"torch": torch.__version__},
        "ceilings": {"copy_bytes_per_second": timer.copy_bytes_per_second()}, "rows": rows,
    }  # fmt: skip
    with open(args.out, "w") as file:
        json.dump(data, file, indent=1)


if __name__ == "__main__":
    main()
