# SPDX-License-Identifier: Apache-2.0
"""Greedy tokens of llama.cpp against the float64 oracle, on the same model file. Measuring only.

Twice per prompt: free (each writes its own answer; how many tokens agree before they part) and led (llama.cpp reads
the oracle's answer; at how many steps would it have chosen otherwise, and how close were the oracle's best two
logits there). llama.cpp quantises activations to 8 bits, so that close calls may go the other way.

    pip install llama-cpp-python -r examples/generate/requirements.txt
    python benchmarks/peers/llama_cpp_tokens.py --out benchmarks/results/DATE-cpu-llama_cpp_tokens.json
"""

import argparse
import datetime
import json
import pathlib
import platform
import sys

import llama_cpp
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "generate"))

import oracle as oracle_module  # noqa: E402
from weights import model_path  # noqa: E402

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):",
    "Once upon a time, in a village by the sea,",
    "The three primary colours are",
    "Water boils at",
    "Q: What is the largest planet in the solar system?\nA:",
    "机器学习是",
    "1, 2, 3, 4, 5,",
]


class Peer:
    def __init__(self, path, threads):
        self.llama = llama_cpp.Llama(
            str(path), n_ctx=256, n_threads=threads, n_threads_batch=threads, logits_all=True, verbose=False
        )

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


def compare(prompt, tokenizer, oracle, peer, count):
    ids = tokenizer.encode(prompt)
    peer_ids = peer.llama.tokenize(prompt.encode(), add_bos=True, special=False)
    want, gaps = oracle.greedy(ids, count)
    free = peer.greedy(ids, len(want))
    agree = next((i for i, (a, b) in enumerate(zip(want, free)) if a != b), len(want))
    led_logits = peer.logits(ids + want[:-1])[len(ids) - 1 :]
    led = led_logits.argmax(-1)
    reference = oracle.logits(ids + want[:-1], len(ids) - 1)
    return {
        "prompt": prompt,
        "tokenizer_agrees": ids == peer_ids,
        "text": tokenizer.decode(want),
        "num_steps": len(want),
        "free_agreement": agree,
        "free_parting": None if agree == len(want) else {
            "step": agree, "oracle": want[agree], "llama_cpp": free[agree], "oracle_gap": gaps[agree]
        },
        "led_agreement": int((led == want).sum()),
        "led_differences": [
            {"step": int(i), "oracle": want[i], "llama_cpp": int(led[i]), "oracle_gap": gaps[i]}
            for i in np.flatnonzero(led != want)
        ],
        "led_max_abs_logit_difference": float(np.abs(led_logits - reference).max()),
        "smallest_oracle_gap": min(gaps),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    tokenizer, oracle = oracle_module.load()
    path = model_path()
    peer, rows = Peer(path, args.threads), []
    for prompt in PROMPTS:
        rows.append(compare(prompt, tokenizer, oracle, peer, args.max_tokens))
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    result = {
        "suite": "llama_cpp_tokens",
        "date": datetime.date.today().isoformat(),
        "device": platform.machine(),
        "model": path.name,
        "peer": f"llama-cpp-python {llama_cpp.__version__}",
        "steps": sum(row["num_steps"] for row in rows),
        "led_agreement": sum(row["led_agreement"] for row in rows),
        "free_agreement": sum(row["free_agreement"] for row in rows),
        "largest_gap_decided_otherwise": max(
            (d["oracle_gap"] for row in rows for d in row["led_differences"]), default=0.0
        ),
        "rows": rows,
    }
    print({key: value for key, value in result.items() if key != "rows"})
    if args.out:
        args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
