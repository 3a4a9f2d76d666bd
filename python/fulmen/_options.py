# SPDX-License-Identifier: Apache-2.0
"""Keywords of FlashInfer's signatures that mean nothing here, or nothing yet.

Nothing is dropped silently: an option that would change a result and has no implementation raises NotImplementedError
unless it has its no-op value. Hints about how a GPU does its work change no result and are accepted:
use_tensor_cores, non_blocking, deterministic (everything here is), use_cuda_graph (a CPU call captures nothing).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._arrays import Array, _torch_types
from ._ffi import is_compiling

# Which of FlashInfer's kernels would run. All compute the same function, so any of these names is served.
SERVED_BACKENDS = ("auto", "cpu", "fa2", "fa3", "cuda", "cuda-core")


def only(op: str, default: Any = None, **options: Any) -> None:
    """Raises NotImplementedError for every option that is not its no-op value `default`."""
    for name, value in options.items():
        if value is default or (type(value) in (bool, int, float, str) and value == default):
            continue
        shape = getattr(value, "shape", None)
        shown = repr(value) if shape is None else f"an array of shape {tuple(shape)}"
        raise NotImplementedError(f"{op}: {name}={shown} is not implemented; leave it at {default!r}")


def only_newer(op: str, defaults: dict[str, Any], given: dict[str, Any]) -> None:
    """As only, for keywords that newer versions of FlashInfer have; TypeError for any other."""
    for name, value in given.items():
        if name == "multi_ctas_kv_counter_buffer":
            continue  # scratch of FlashInfer's kernel, as its workspaces
        if name not in defaults:
            raise TypeError(f"{op}() got an unexpected keyword argument {name!r}")
        only(op, defaults[name], **{name: value})


def check_backend(op: str, backend: str) -> None:
    if backend not in SERVED_BACKENDS:
        raise NotImplementedError(
            f"{op}: backend={backend!r} is not implemented; use one of {', '.join(SERVED_BACKENDS)}"
        )


def check_kv_layout(kv_layout: str) -> None:
    """FlashInfer's contract: KeyError unless NHD or HND."""
    if kv_layout not in ("NHD", "HND"):
        raise KeyError(f"Invalid kv_layout {kv_layout!r}, expected NHD or HND")


def check_pos_encoding_mode(mode: str) -> None:
    """FlashInfer's contract: KeyError unless NONE, ROPE_LLAMA or ALIBI."""
    if mode not in ("NONE", "ROPE_LLAMA", "ALIBI"):
        raise KeyError(f"Invalid pos_encoding_mode {mode!r}, expected NONE, ROPE_LLAMA or ALIBI")


def unpack_paged_kv_cache(paged_kv_cache: Array | tuple[Array, Array], kv_layout: str) -> tuple[Array, Array]:
    """K and V views of a paged cache: one array [pages, 2, ...] or a pair.

    Each becomes rank 4; a pair of rank 3 has page_size 1 and gets a page axis. KeyError on anything else.
    """
    if isinstance(paged_kv_cache, (tuple, list)):
        if len(paged_kv_cache) != 2:
            raise KeyError(f"Unrecognized paged_kv_cache: {len(paged_kv_cache)} arrays, expected K and V")
        return _with_page_axis(paged_kv_cache[0], kv_layout), _with_page_axis(paged_kv_cache[1], kv_layout)
    if not hasattr(paged_kv_cache, "shape"):
        raise KeyError(
            f"Unrecognized paged_kv_cache type {type(paged_kv_cache)}, expected an array or a pair of arrays"
        )
    if paged_kv_cache.ndim not in (4, 5) or paged_kv_cache.shape[1] != 2:
        shape = tuple(paged_kv_cache.shape)
        raise ValueError(f"paged_kv_cache has shape {shape}, expected [num_pages, 2, ...] of 5 dimensions")
    if isinstance(paged_kv_cache, np.ndarray):
        k, v = paged_kv_cache[:, 0], paged_kv_cache[:, 1]
    else:  # one step of PyTorch's instead of two
        k, v = paged_kv_cache.unbind(1)
    return _with_page_axis(k, kv_layout), _with_page_axis(v, kv_layout)


def attention_cache(paged_kv_cache: Array | tuple[Array, Array], kv_layout: str) -> tuple[Array, Array]:
    """unpack_paged_kv_cache for attention; one PyTorch array comes back twice, the library splits it."""
    x = paged_kv_cache
    if type(x) in _torch_types and x.ndim == 5 and x.shape[1] == 2 and not is_compiling():
        return x, x
    return unpack_paged_kv_cache(x, kv_layout)


def _with_page_axis(x: Array, kv_layout: str) -> Array:
    if x.ndim == 4:
        return x
    if x.ndim != 3:
        raise ValueError(f"a paged cache of {x.ndim} dimensions, expected 4")
    return x[:, None] if kv_layout == "NHD" else x[:, :, None]


def nhd(x: Array, kv_layout: str) -> Array:
    """A view [.., token, head, dim] of K or V, ragged or paged."""
    return x if kv_layout == "NHD" else x.swapaxes(-3, -2)
