# SPDX-License-Identifier: Apache-2.0
"""Gemma 3 270M answers prompts through fulmen, on the CPU or a GPU. `./dev demo` runs this.

python examples/generate/generate.py --prompt "The capital of France is" --prompt "def fib(n):" --greedy
"""

import argparse
import contextlib
import os
import sys
import time

import ml_dtypes
import numpy as np
from rich.console import Console
from rich.live import Live
from rich.progress import Progress
from rich.text import Text

from engine import GREEDY, Engine, Sampling
from model import Model
from tokenizer import Tokenizer
from weights import ModelFile, model_path

PROMPTS = ["The three primary colours are", "Once upon a time, in a village by the sea,", "def fibonacci(n):"]
KV_DTYPES = {"f32": np.float32, "bf16": ml_dtypes.bfloat16, "f16": np.float16}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="repeatable; all run in one batch")
    parser.add_argument("--max-tokens", type=int, default=64, metavar="N", help="new tokens per prompt (%(default)s)")
    parser.add_argument("--greedy", action="store_true", help="always the most probable token")
    parser.add_argument("--temperature", type=float, default=0.8, metavar="T", help="of sampling (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of sampling (%(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("--kv-dtype", choices=KV_DTYPES, default="f32", help="type of the KV cache (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda needs PyTorch (%(default)s)")
    parser.add_argument("--pages", type=int, default=256, metavar="N", help="of the KV cache, 16 tokens each (256)")
    args = parser.parse_args()
    for name in ("max_tokens", "threads", "pages", "temperature"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be positive")
    return args


def load(args):
    """(tokenizer, model), with a progress bar per stage: check or assemble the file, then dequantise."""
    with Progress(console=Console(stderr=True), transient=True) as bars:
        tasks = {}

        def progress(done, total, what):
            if what not in tasks:
                tasks[what] = bars.add_task(f"{what} weights", total=total)
            bars.update(tasks[what], completed=done)

        file = ModelFile(model_path(progress))
        if args.device == "cuda":
            return Tokenizer(file), torch_model()(file.config, file.load(progress), args.pages)
        kv_dtype = np.dtype(KV_DTYPES[args.kv_dtype])
        model = Model(file.config, file.load(progress), args.pages, kv_dtype=kv_dtype, num_threads=args.threads)
    return Tokenizer(file), model


def torch_model():
    """The class of the GPU's model; ends with a sentence where there is no PyTorch or no GPU."""
    try:
        import torch
    except ImportError:
        sys.exit("generate: --device cuda multiplies matrices with PyTorch, which is not installed here")
    if not torch.cuda.is_available():
        sys.exit("generate: --device cuda: PyTorch finds no CUDA device on this machine")
    from model_torch import TorchModel

    return TorchModel


class Screen:
    """Answers as they grow: on a terminal all at once; elsewhere line by line, each with its prompt's number."""

    def __init__(self, tokenizer, prompts):
        self.prompts, self.answers = prompts, [""] * len(prompts)
        self.decoders = [tokenizer.stream() for _ in prompts]
        self.unfinished = list(prompts)  # the last line of each text, not printed yet
        self.live = Live(auto_refresh=False) if Console().is_terminal else None

    def show(self, request, token):
        i = request.index
        text = self.decoders[i](token)
        self.answers[i] += text
        if self.live:
            return self.live.update(self.page(), refresh=True)
        *lines, self.unfinished[i] = (self.unfinished[i] + text).split("\n")
        for line in [*lines, self.unfinished[i]] if request.finished_at else lines:
            print(f"[{i}] {line}", flush=True)

    def page(self):
        page = Text()
        for prompt, answer in zip(self.prompts, self.answers):
            page.append(prompt, style="bold").append(answer + "\n\n")
        return page


def stream(engine, screen):
    with screen.live or contextlib.nullcontext():
        while engine.busy():
            for request, token in engine.step():
                screen.show(request, token)


def report(engine, requests, seconds):
    """The closing line: time to first token of the slowest request, tokens per second over the whole run, pages."""
    first = max(request.first_token_at - request.added_at for request in requests)
    count = sum(len(request.answer()) for request in requests)
    pages, page_size = engine.allocator, engine.model.page_size
    return (
        f"{len(requests)} prompts, {count} tokens in {seconds:.2f} s: first token after {first * 1e3:.0f} ms, "
        f"{count / seconds:.1f} tokens/s, {pages.peak} of {pages.num_pages} pages of {page_size} tokens"
    )


def main():
    args = parse_args()
    os.environ["FULMEN_NUM_THREADS"] = str(args.threads)  # the library reads it when it first runs in parallel
    tokenizer, model = load(args)
    engine = Engine(model, GREEDY if args.greedy else Sampling(temperature=args.temperature, seed=args.seed))
    prompts = args.prompt or PROMPTS
    try:
        requests = [engine.add(tokenizer.encode(prompt), args.max_tokens) for prompt in prompts]
    except ValueError as error:
        sys.exit(f"generate: {error}")
    start = time.perf_counter()
    stream(engine, Screen(tokenizer, prompts))
    print(report(engine, requests, time.perf_counter() - start), file=sys.stderr)


if __name__ == "__main__":
    main()
