# SPDX-License-Identifier: Apache-2.0
"""Seconds from a variant's text to its first correct output on a GPU: cold, and with the kernel in the cache.

    python benchmarks/variant_time.py [OUT.json]

Each figure is of a process of its own, which has imported the package and run another kernel before.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

TEXT = """
struct Biased : AttentionVariantBase {
  static constexpr bool use_softmax = true;
  uint32_t window_left, qo_len, kv_len;
  float sm_scale_log2;
  template <typename Params>
  __device__ __host__ Biased(const Params& params, uint32_t batch_idx, uint8_t* smem_ptr) {
    qo_len = params.get_qo_len(batch_idx), kv_len = params.get_kv_len(batch_idx), window_left = kv_len;
    sm_scale_log2 = params.sm_scale * math::log2e;
  }
  REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx,
                            { return logits + params.bias[qo_head_idx] * float(kv_idx); })
};
"""


def first_output() -> float:
    import torch

    import fulmen

    q, k, v = (torch.randn(s, dtype=torch.bfloat16, device="cuda") for s in ((8, 128), (500, 2, 128), (500, 2, 128)))
    bias = torch.linspace(-0.1, 0.1, 8, device="cuda")
    fulmen.rmsnorm(q, torch.ones(128, dtype=torch.bfloat16, device="cuda"))
    fulmen.single_decode_with_kv_cache(q, k, v)
    torch.cuda.synchronize()
    start = time.perf_counter()
    dtypes = [torch.bfloat16] * 3
    module = fulmen.jit.gen_customize_single_decode_module(
        "biased", *dtypes, 128, 128, ["bias"], ["float"], ["sm_scale"], ["double"], "Biased", TEXT
    ).build_and_load()
    out = fulmen.decode.single_decode_with_kv_cache_with_jit_module(module, q, k, v, bias, 128**-0.5)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    keys, values = (x.double().repeat_interleave(4, 1) for x in (k, v))
    logits = torch.einsum("hd,jhd->hj", q.double(), keys) + bias.double()[:, None] * torch.arange(500, device="cuda")
    expected = torch.einsum("hj,jhd->hd", torch.softmax(logits * 128**-0.5, 1), values)
    assert (out.double() - expected).abs().max() < 0.02 * expected.abs().max()
    return seconds


def main() -> None:
    if sys.argv[1:] == ["--one"]:
        print(first_output())
        return
    import torch

    rows = []
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "FULMEN_CACHE_DIR": cache}
        for name in ("cold", "cached"):
            done = subprocess.run([sys.executable, __file__, "--one"], env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(done.stderr)
            us = float(done.stdout.split()[-1]) * 1e6
            rows.append({"id": f"V-{name}", "shape": "from a variant's text to its first correct output, decode D128",
                         "us": us, "peers": {}})  # fmt: skip
            print(f"{name}: {us / 1e3:.1f} ms")
    result = {"device": torch.cuda.get_device_name(), "commit": os.environ.get("FULMEN_COMMIT", "unknown"),
              "date": time.strftime("%Y-%m-%d"), "suite": "gpu-variant", "ceilings": {}, "rows": rows}  # fmt: skip
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
