# SPDX-License-Identifier: Apache-2.0
"""Gemma 3 270M answers prompts on the CPU through fulmen. `./dev demo` runs this.

    python examples/generate/generate.py --prompt "The capital of France is" --prompt "def fib(n):" --greedy
"""

import argparse
import os
import sys
import time

DEFAULT_PROMPTS = [
    "The three primary colours are",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):",
]
KV_DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="repeatable; all run in one batch")
    parser.add_argument("--max-tokens", type=int, default=64, metavar="N", help="new tokens per prompt (%(default)s)")
    parser.add_argument("--greedy", action="store_true", help="always the most probable token")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument("--kv-dtype", choices=KV_DTYPES, default="f32", help="type of the KV cache (%(default)s)")
    parser.add_argument("--pages", type=int, default=256, metavar="N", help="pages of the KV cache (%(default)s)")
    args = parser.parse_args()
    for name in ("max_tokens", "threads", "pages", "temperature"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be positive")
    args.prompt = args.prompt or DEFAULT_PROMPTS
    return args


ARGS = parse_args() if __name__ == "__main__" else None
if ARGS:  # both thread pools read their size when they are first loaded
    for variable in ("FULMEN_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[variable] = str(ARGS.threads)

import numpy as np  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.live import Live  # noqa: E402
from rich.progress import Progress  # noqa: E402
from rich.text import Text  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from engine import GREEDY, Engine, Sampling  # noqa: E402
from model import Model  # noqa: E402
from tokenizer import Tokenizer  # noqa: E402
from weights import ModelFile, model_path  # noqa: E402


def load(num_pages, kv_dtype="float32", bars=None):
    """(tokenizer, model), with one progress bar per stage if `bars` is a rich Progress."""
    tasks = {}

    def progress(done, total, what):
        if bars:
            if what not in tasks:
                tasks[what] = bars.add_task(f"{what} weights", total=total)
            bars.update(tasks[what], completed=done)

    if kv_dtype == "bfloat16":
        import ml_dtypes  # noqa: F401  teaches NumPy the type's name
    file = ModelFile(model_path(progress))
    model = Model(file.config, file.load(progress), num_pages, kv_dtype=np.dtype(kv_dtype))
    return Tokenizer(file), model


class Screen:
    """Answers as they grow: all at once on a terminal; elsewhere one prompt streams and several print when done."""

    def __init__(self, tokenizer, prompts):
        self.tokenizer, self.console, self.prompts = tokenizer, Console(highlight=False), prompts
        self.answers, self.decoders, self.live = {}, {}, None
        if len(prompts) > 1 and self.console.is_terminal:
            self.live = Live(console=self.console, auto_refresh=False, vertical_overflow="visible")

    def __enter__(self):
        if self.live:
            self.live.start()
        elif len(self.prompts) == 1:
            self.write(self.prompts[0])
        return self

    def __exit__(self, *error):
        if self.live:
            self.live.stop()
        elif len(self.prompts) == 1:
            self.write("\n")

    def write(self, text):
        sys.stdout.write(text)
        sys.stdout.flush()

    def show(self, request, token):
        decode = self.decoders.setdefault(request.index, self.tokenizer.stream())
        text = decode(token)
        self.answers[request.index] = self.answers.get(request.index, "") + text
        if self.live:
            self.live.update(self.page(), refresh=True)
        elif len(self.prompts) == 1:
            self.write(text)
        elif request.finished_at:
            self.write(f"{self.prompts[request.index]}{self.answers[request.index]}\n\n")

    def page(self):
        page = Text()
        for i, prompt in enumerate(self.prompts):
            page.append(prompt, style="bold").append(self.answers.get(i, "") + "\n\n")
        return page


def report(engine, requests, seconds):
    """The closing line: first token (of the slowest request), rate over the whole run, pages."""
    first = max(request.first_token_at - request.added_at for request in requests)
    count = sum(len(request.answer()) for request in requests)
    pages, page_size = engine.allocator, engine.model.page_size
    return (
        f"{len(requests)} prompts, {count} tokens in {seconds:.2f} s: first token after {first * 1e3:.0f} ms, "
        f"{count / seconds:.1f} tokens/s, {pages.peak} of {pages.num_pages} pages of {page_size} tokens"
    )


def main(args):
    with Progress(console=Console(stderr=True), transient=True) as bars:
        tokenizer, model = load(args.pages, KV_DTYPES[args.kv_dtype], bars)
    sampling = GREEDY if args.greedy else Sampling(temperature=args.temperature, seed=args.seed)
    engine = Engine(model, sampling)
    try:
        requests = [engine.add(tokenizer.encode(prompt), args.max_tokens) for prompt in args.prompt]
    except ValueError as error:
        sys.exit(f"generate: {error}")
    start = time.perf_counter()
    with threadpool_limits(args.threads), Screen(tokenizer, args.prompt) as screen:
        while engine.busy():
            for request, token in engine.step():
                screen.show(request, token)
    print(report(engine, requests, time.perf_counter() - start), file=sys.stderr)


if __name__ == "__main__":
    main(ARGS)
