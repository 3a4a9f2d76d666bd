# SPDX-License-Identifier: Apache-2.0
"""Continuous batching over a paged KV cache: requests join and leave between steps, each step is one mixed batch.

    engine = Engine(model)
    request = engine.add(tokens, max_tokens=32)
    while engine.busy():
        for request, token in engine.step(): ...

A step takes the next chunk of each prompt that is not in the cache yet, and one token of each answer being written;
the library's paged prefill attention serves both, since a decode is a prefill of one query. Who shares a step with
whom changes nothing: a request's tokens are the same, bit for bit, as when it runs alone.
"""

import time
from collections import deque
from dataclasses import dataclass, field

import fulmen
import numpy as np

from model import Step

PREFILL_CHUNK = 256  # prompt tokens a request adds per step, so that a long prompt does not stall the others


@dataclass(frozen=True)
class Sampling:
    temperature: float = 1.0
    top_k: int = 64
    top_p: float = 0.95
    seed: int = 0


GREEDY = Sampling(top_k=1, top_p=1.0)  # top-k keeps exactly one: the best logit, the lowest index on a tie


class PageAllocator:
    """Free pages of the cache. `reserve` promises pages to a request before it runs, so that none starves midway."""

    def __init__(self, num_pages):
        self.num_pages = num_pages
        self.free = list(range(num_pages - 1, -1, -1))
        self.reserved = 0
        self.peak = 0

    def reserve(self, count):
        if count > self.num_pages - self.reserved:
            return False
        self.reserved += count
        return True

    def take(self):
        page = self.free.pop()
        self.peak = max(self.peak, self.num_pages - len(self.free))
        return page

    def give_back(self, pages, reserved):
        self.free.extend(reversed(pages))
        self.reserved -= reserved


@dataclass(eq=False)
class Request:
    index: int  # in order of arrival; with the seed, names this request's random numbers
    tokens: list  # prompt, then the answer as it grows
    prompt_len: int
    max_tokens: int
    reserved: int  # pages promised to it
    added_at: float
    pages: list = field(default_factory=list)
    kv_len: int = 0  # tokens in the cache
    first_token_at: float = 0.0
    finished_at: float = 0.0

    def answer(self):
        return self.tokens[self.prompt_len :]


class Engine:
    def __init__(self, model, sampling=GREEDY, max_batch=16):
        self.model, self.sampling, self.max_batch = model, sampling, max_batch
        self.allocator = PageAllocator(model.cache.shape[1])
        self.waiting, self.running, self.num_added = deque(), [], 0

    def add(self, tokens, max_tokens):
        """Queue a prompt; refused at once if it could never run, since waiting would not help."""
        total, limit = len(tokens) + max_tokens, self.model.config.context_len
        if not tokens or max_tokens < 1:
            raise ValueError("a request needs at least one prompt token and max_tokens >= 1")
        if total > limit:
            raise ValueError(f"{len(tokens)} prompt + {max_tokens} new tokens exceed the model's context of {limit}")
        # The last token is sampled but never fed back, so it needs no slot.
        pages = pages_for(total - 1, self.model.page_size)
        if pages > self.allocator.num_pages:
            raise ValueError(f"the request needs {pages} pages, the cache has {self.allocator.num_pages}")
        request = Request(self.num_added, list(tokens), len(tokens), max_tokens, pages, time.perf_counter())
        self.num_added += 1
        self.waiting.append(request)
        return request

    def busy(self):
        return bool(self.waiting or self.running)

    def step(self):
        """Run one batch; returns [(request, new token)] for the requests that got one."""
        self.admit()
        step = self.assemble()
        logits = self.model.forward(step)
        got = [self.running[i] for i in step.sampled]
        picked = list(zip(got, self.sample(logits, got)))
        for request, token in picked:
            self.accept(request, int(token))
        self.running = [request for request in self.running if not request.finished_at]
        return picked

    def admit(self):
        """In order of arrival, while pages last: a request that must wait is not overtaken by a smaller one."""
        while self.waiting and len(self.running) < self.max_batch:
            if not self.allocator.reserve(self.waiting[0].reserved):
                break
            self.running.append(self.waiting.popleft())

    def assemble(self):
        tokens, lengths, tables, last_page_len, sampled = [], [], [], [], []
        page_size = self.model.page_size
        for i, request in enumerate(self.running):
            chunk = request.tokens[request.kv_len : request.kv_len + PREFILL_CHUNK]
            request.kv_len += len(chunk)
            while len(request.pages) < pages_for(request.kv_len, page_size):
                request.pages.append(self.allocator.take())
            tokens += chunk
            lengths.append(len(chunk))
            tables.append(request.pages)
            last_page_len.append((request.kv_len - 1) % page_size + 1)
            if request.kv_len == len(request.tokens):  # everything known is in the cache: the next token is wanted
                sampled.append(i)
        return Step(
            tokens=np.array(tokens, np.int32),
            qo_indptr=indptr(lengths),
            kv_indptr=indptr(map(len, tables)),
            kv_indices=np.concatenate(tables, dtype=np.int32, casting="unsafe"),
            last_page_len=np.array(last_page_len, np.int32),
            sampled=np.array(sampled, np.int64),
        )

    def sample(self, logits, requests):
        """One token per row. Random numbers are keyed by request and position, never by the row in the batch."""
        s = self.sampling
        if not requests:
            return []
        seeds = np.array([s.seed + request.index for request in requests], np.int64)
        offsets = np.array([len(request.tokens) for request in requests], np.int64)
        logits /= s.temperature
        keys = {"seed": self.model.array(seeds), "offset": self.model.array(offsets)}
        return fulmen.top_k_top_p_sampling_from_logits(logits, s.top_k, s.top_p, **keys).tolist()

    def accept(self, request, token):
        now = time.perf_counter()
        request.tokens.append(token)
        request.first_token_at = request.first_token_at or now
        if token == self.model.config.eos_id or len(request.tokens) - request.prompt_len == request.max_tokens:
            request.finished_at = now
            self.allocator.give_back(request.pages, request.reserved)


def pages_for(num_tokens, page_size):
    return -(-num_tokens // page_size)


def indptr(counts):
    return np.cumsum([0, *counts], dtype=np.int32)
