# SPDX-License-Identifier: Apache-2.0
"""Seconds from a variant's text to its first correct output: cold, and with the kernel in the cache; on the CPU also
how fast texts run beside the built-in options that say the same.

    python benchmarks/variant_time.py [--cpu] [OUT.json]

Each figure of the first kind is of a process of its own, which has imported the package and run another kernel before.
"""

import json
import os
import statistics
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


def biased_expected(q, k, v, bias):
    import numpy as np

    keys, values = (x.astype(float).repeat(q.shape[1] // k.shape[1], 1) for x in (k, v))
    logits = np.einsum("ihd,jhd->hij", q.astype(float), keys) + bias[:, None, None] * np.arange(len(k))
    weights = np.exp((logits - logits.max(-1, keepdims=True)) * q.shape[-1] ** -0.5)
    return np.einsum("hij,jhd->ihd", weights / weights.sum(-1, keepdims=True), values)


def first_output_on_cpu() -> float:
    import numpy as np

    import fulmen

    rng = np.random.default_rng(1)
    q, k, v = (rng.normal(size=s).astype(np.float32) for s in ((1, 8, 128), (500, 2, 128), (500, 2, 128)))
    bias = np.linspace(-0.1, 0.1, 8, dtype=np.float32)
    fulmen.single_decode_with_kv_cache(q[0], k, v)
    start = time.perf_counter()
    module = fulmen.jit.gen_customize_single_decode_module(
        "biased", *["float32"] * 3, 128, 128, ["bias"], ["float"], ["sm_scale"], ["double"], "Biased", TEXT
    ).build_and_load()
    out = fulmen.decode.single_decode_with_kv_cache_with_jit_module(module, q[0], k, v, bias, 128**-0.5)
    seconds = time.perf_counter() - start
    assert np.abs(out - biased_expected(q, k, v, bias)[0]).max() < 1e-3
    return seconds


PLAIN = """
struct PlainText : AttentionVariantBase {
  static constexpr bool use_softmax = true;
  float sm_scale_log2;
  template <typename Params>
  __device__ __host__ PlainText(const Params& params, uint32_t batch_idx, uint8_t* smem_ptr) {
    sm_scale_log2 = params.sm_scale * math::log2e;
  }
};
"""
CAPPED = """
struct CappedText : AttentionVariantBase {
  static constexpr bool use_softmax = true;
  float sm_scale_log2, pre;
  template <typename Params>
  __device__ __host__ CappedText(const Params& params, uint32_t batch_idx, uint8_t* smem_ptr) {
    sm_scale_log2 = math::log2e, pre = params.sm_scale / params.cap;
  }
  REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx,
                            { return params.cap * math::tanh(logits * pre); })
};
"""


def texts_on_cpu() -> list[dict]:
    """Texts in turn with the built-in options, so that a busy machine is busy for both."""
    import numpy as np

    import fulmen

    rng, rows = np.random.default_rng(2), []

    def module(text, scalars):
        name = text.split()[1]
        args = [], [], scalars, ["double"] * len(scalars), name, text
        return fulmen.jit.gen_customize_single_prefill_module("fa2", name, *["float32"] * 3, 128, 128, *args)

    for what, rows_of_q, keys in (("decode", 1, 8192), ("prefill", 512, 1024)):
        q, k, v = (rng.normal(size=(n, h, 128)).astype(np.float32) for n, h in ((rows_of_q, 32), (keys, 8), (keys, 8)))
        text = fulmen.prefill.single_prefill_with_kv_cache_with_jit_module
        plain = module(PLAIN, ["sm_scale"]).build_and_load()
        capped = module(CAPPED, ["sm_scale", "cap"]).build_and_load()
        calls = {
            ("plain", "option"): lambda: fulmen.single_prefill_with_kv_cache(q, k, v, sm_scale=0.1),
            ("plain", "text"): lambda: text(plain, q, k, v, 0.1),
            ("soft cap", "option"): lambda: fulmen.single_prefill_with_kv_cache(
                q, k, v, sm_scale=0.1, logits_soft_cap=30.0),
            ("soft cap", "text"): lambda: text(capped, q, k, v, 0.1, 30.0),
        }  # fmt: skip
        times: dict = {name: [] for name in calls}
        outs = {name: call() for name, call in calls.items()}
        for kind in ("plain", "soft cap"):
            assert np.abs(outs[kind, "option"] - outs[kind, "text"]).max() < 1e-4
        for _ in range(25):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
        for kind in ("plain", "soft cap"):
            us = {how: 1e6 * statistics.median(times[kind, how]) for how in ("option", "text")}
            rows.append({"id": f"V-{what}-{kind.replace(' ', '-')}", "us": us["text"], "option_us": us["option"],
                         "shape": f"{kind} as a text, {rows_of_q} queries, {keys} keys, 32 and 8 heads of 128, f32"})
            print(f"{what} {kind}: text {us['text']:.0f} us, option {us['option']:.0f} us")
    return rows


def compiler_ms(environment) -> float:
    """Processor time of the one compilation that a cache has seen."""
    command = [sys.executable, "-m", "fulmen", "jit", "list", "--json"]
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(listed.stdout)[0]["compile_ms"]


def cpu_name() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "CPU")


def main() -> None:
    on_cpu = "--cpu" in sys.argv
    if sys.argv[1:2] == ["--one"]:
        print(first_output_on_cpu() if on_cpu else first_output())
        return
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "FULMEN_CACHE_DIR": cache}
        for name in ("cold", "cached"):
            command = [sys.executable, __file__, "--one", *["--cpu"] * on_cpu]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(done.stderr)
            us = float(done.stdout.split()[-1]) * 1e6
            rows.append({"id": f"V-{name}", "shape": "from a variant's text to its first correct output, decode D128",
                         "us": us, "peers": {}})  # fmt: skip
            if on_cpu and name == "cold":
                rows[-1]["compiler_ms"] = compiler_ms(environment)
            print(f"{name}: {us / 1e3:.1f} ms")
    if on_cpu:
        rows += texts_on_cpu()
        device, suite = cpu_name(), "cpu_texts"
    else:
        import torch

        device, suite = torch.cuda.get_device_name(), "gpu-variant"
    result = {"device": device, "commit": os.environ.get("FULMEN_COMMIT", "unknown"),
              "date": time.strftime("%Y-%m-%d"), "suite": suite, "ceilings": {}, "rows": rows}  # fmt: skip
    if sys.argv[-1].endswith(".json"):
        with open(sys.argv[-1], "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
