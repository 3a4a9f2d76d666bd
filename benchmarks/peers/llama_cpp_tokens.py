# SPDX-License-Identifier: Apache-2.0
"""Greedy tokens of llama.cpp against the float64 oracle, on the same model file. Measuring only.

Two peers: the file as shipped, where llama.cpp multiplies quantised weights by activations that it rounds to 8 bits,
and the same weights written out as float32, where only float32 rounding is left: this one tells whether the oracle
and llama.cpp compute the same function. Twice per prompt: free (each writes its own answer; how many tokens agree
before they part) and led (llama.cpp reads the oracle's answer; at how many steps would it have chosen otherwise, and
how close were the oracle's best two logits there).

    pip install llama-cpp-python -r examples/generate/requirements.txt
    python benchmarks/peers/llama_cpp_tokens.py --out benchmarks/results/DATE-cpu-llama_cpp_tokens.json
"""

import argparse
import datetime
import json
import pathlib
import platform
import subprocess
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "generate"))

import oracle as oracle_module  # noqa: E402
from weights import ModelFile, model_path  # noqa: E402

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):",
    "Once upon a time, in a village by the sea,",
    "The three primary colours are",
    "Water boils at",
    "Q: What is the largest planet in the solar system?\nA:",
    "机器学习是",
    "1, 2, 3, 4, 5,",
    # 649 tokens: the local layers no longer see the beginning.
    " ".join(f"The quick brown fox jumps over the lazy dog number {i}." for i in range(47)),
]


def write_float32(source, target):
    """The same model with every weight as float32."""
    writer = gguf.GGUFWriter(target, "gemma3")
    for key, field in gguf.GGUFReader(source).fields.items():
        if key != "general.architecture" and not key.startswith("GGUF."):
            sub_type = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type)
    for name, array in ModelFile(source).load().items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Peer:
    def __init__(self, path, threads):
        self.llama = llama_cpp.Llama(
            str(path), n_ctx=768, n_batch=768, n_threads=threads, n_threads_batch=threads,
            logits_all=True, verbose=False, type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
        )  # fmt: skip

    def logits(self, tokens):
        """[len(tokens), vocab], the whole sequence in one batch."""
        self.llama.reset()
        self.llama.eval(tokens)
        return np.array(self.llama.scores[: len(tokens)])

    def greedy(self, prompt, count):
        """Token by token through its own KV cache."""
        self.llama.reset()
        self.llama.eval(prompt)
        tokens = []
        while len(tokens) < count:
            tokens.append(int(np.argmax(self.llama.scores[self.llama.n_tokens - 1])))
            self.llama.eval(tokens[-1:])
        return tokens


def compare_peer(peer, ids, want, gaps, reference):
    free = peer.greedy(ids, len(want))
    agree = next((i for i, (a, b) in enumerate(zip(want, free)) if a != b), len(want))
    logits = peer.logits(ids + want[:-1])[len(ids) - 1 :]
    led = logits.argmax(-1)
    return {
        "free_agreement": agree,
        "led_agreement": int((led == want).sum()),
        "led_differences": [
            {"step": int(i), "oracle": want[i], "llama_cpp": int(led[i]), "oracle_gap": gaps[i]}
            for i in np.flatnonzero(led != want)
        ],
        "led_max_abs_logit_difference": float(np.abs(logits - reference).max()),
    }


def compare(prompt, tokenizer, oracle, peers, count):
    ids = tokenizer.encode(prompt)
    want, gaps = oracle.greedy(ids, count)
    reference = oracle.logits(ids + want[:-1], len(ids) - 1)
    peer_ids = next(iter(peers.values())).llama.tokenize(prompt.encode(), add_bos=True, special=False)
    return {
        "prompt": prompt,
        "tokenizer_agrees": ids == peer_ids,
        "text": tokenizer.decode(want),
        "num_steps": len(want),
        "smallest_oracle_gap": min(gaps),
        "peers": {name: compare_peer(peer, ids, want, gaps, reference) for name, peer in peers.items()},
    }


def summary(rows, name):
    peers = [row["peers"][name] for row in rows]
    return {
        "free_agreement": sum(peer["free_agreement"] for peer in peers),
        "led_agreement": sum(peer["led_agreement"] for peer in peers),
        "largest_gap_decided_otherwise": max((d["oracle_gap"] for p in peers for d in p["led_differences"]), default=0),
        "max_abs_logit_difference": max(peer["led_max_abs_logit_difference"] for peer in peers),
    }


def measure(args):
    tokenizer, oracle = oracle_module.load()
    path, rows = model_path(), []
    with tempfile.TemporaryDirectory() as folder:
        float32_path = pathlib.Path(folder) / "float32.gguf"
        write_float32(path, float32_path)
        peers = {"as shipped": Peer(path, args.threads), "float32 weights": Peer(float32_path, args.threads)}
        for prompt in PROMPTS:
            rows.append(compare(prompt, tokenizer, oracle, peers, args.max_tokens))
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    return {
        "suite": "llama_cpp_tokens",
        "date": datetime.date.today().isoformat(),
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip(),
        "device": f"cpu {platform.machine()}",
        "model": path.name,
        "peer": f"llama-cpp-python {llama_cpp.__version__}",
        "steps": sum(row["num_steps"] for row in rows),
        "summary": {name: summary(rows, name) for name in peers},
        "rows": rows,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    result = measure(args)
    print(json.dumps(result["summary"], indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
