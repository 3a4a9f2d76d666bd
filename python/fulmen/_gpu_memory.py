# SPDX-License-Identifier: Apache-2.0
"""New tensors on a GPU by the call that PyTorch's compiler makes for them: past the dispatcher, on the current device.

Half the time of empty_like (`benchmarks/results/…-host-pieces_2.json`), a third of new_empty with another dtype. The
call is private to PyTorch: where it is missing or refuses, or where something watches the dispatcher, the caller takes
PyTorch's public way.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Sequence

# What PyTorch has, looked for when the first tensor of a GPU comes.
_make: Callable[..., Any] | None = None
_is_one_gpu = _is_found = False
_current_device: Callable[[], int]
_is_compiling: Callable[[], bool]
_num_modes: Callable[[], int]
_is_tracing: Callable[[], bool]


def _find() -> None:
    global _make, _is_one_gpu, _is_found, _current_device, _is_compiling, _num_modes, _is_tracing
    torch = sys.modules["torch"]
    _make = getattr(getattr(torch._C._dynamo, "guards", None), "_empty_strided_cuda", None)
    _is_one_gpu = torch.cuda.device_count() == 1
    _current_device, _is_compiling = torch._C._cuda_getDevice, torch.compiler.is_dynamo_compiling
    _num_modes, _is_tracing = torch._C._len_torch_dispatch_stack, torch._C._is_tracing
    _is_found = True


def new_on_gpu(like: Any, shape: Sequence[int], dtype: Any) -> Any:
    """An uninitialised contiguous tensor of one to three dimensions on the GPU of like, or None."""
    if not _is_found:
        if sys.modules["torch"].compiler.is_compiling():
            return None
        _find()
    if _is_compiling() or _make is None or _num_modes() or _is_tracing():
        return None
    if not _is_one_gpu and like.get_device() != _current_device():
        return None
    try:
        if len(shape) == 2:
            rows, size = shape
            return _make((rows, size), (size, 1), dtype)
        if len(shape) == 3:
            rows, heads, size = shape
            return _make((rows, heads, size), (heads * size, size, 1), dtype)
        return _make((shape[0],), (1,), dtype) if len(shape) == 1 else None
    except (TypeError, RuntimeError):  # sizes that are no plain integers; whatever else PyTorch says next
        return None
