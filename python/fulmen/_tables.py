# SPDX-License-Identifier: Apache-2.0
"""Index tensors and masks as the library takes them, left where they lie: what a GPU holds is not waited for."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._arrays import Array, arg, dtype_of, from_numpy, host_ints, is_torch
from ._device_plan import on_device, to_device
from ._explain import about
from ._ffi import lib


def index(x: Any) -> Any:
    """An index tensor as the library takes it: int32 or int64 and contiguous, where x is. Shares memory if it can."""
    given = x
    if is_torch(x):
        x = x.detach()
        if x.is_floating_point():
            raise about(given, TypeError(f"a table of {x.dtype}, expected integers"))
        return (x if dtype_of(x) in ("int32", "int64") else x.to(_torch_int32())).contiguous()
    x = np.asarray(x)
    if x.dtype.kind not in "iub" and x.size > 0:
        raise about(given, TypeError(f"a table of {x.dtype}, expected integers"))
    return np.ascontiguousarray(x if x.dtype in (np.int32, np.int64) else x.astype(np.int32))


def _torch_int32() -> Any:
    import torch

    return torch.int32


def _torch_uint8() -> Any:
    import torch

    return torch.uint8


def pack_mask(mask: Array, qo_lens: Any, kv_lens: Any) -> tuple[Any, Any]:
    """Flat booleans, requests one after the other, as little-endian bits, and byte offsets [batch_size + 1] int32.

    Bits are packed where the mask or the lengths lie; on a GPU nothing waits, and sizes go unchecked.
    """
    if "int" not in dtype_of(mask) and dtype_of(mask) != "bool":
        raise TypeError(f"custom_mask is of {dtype_of(mask)}, expected booleans")
    device = next((x.device for x in (mask, qo_lens, kv_lens) if on_device(x)), None)
    if device is not None:
        bounds = _offsets(to_device(qo_lens, device).long() * to_device(kv_lens, device))
        flat = (to_device(mask, device).reshape(-1) != 0).contiguous()
        packed = flat.new_empty(flat.shape[0] // 8 + bounds.shape[0], dtype=_torch_uint8())
        offsets = bounds.new_empty(bounds.shape[0], dtype=_torch_int32())
        lib.segment_packbits(arg(flat), arg(bounds), arg(packed), arg(offsets), "little")
        return packed, offsets
    flat = np.ascontiguousarray((mask.detach().numpy() if is_torch(mask) else np.asarray(mask)).reshape(-1) != 0)
    bounds = np.concatenate([[0], np.cumsum(np.asarray(qo_lens).astype(np.int64) * np.asarray(kv_lens))])
    if flat.shape[0] != bounds[-1]:
        raise ValueError(f"custom_mask has {flat.shape[0]} elements, expected sum(qo_len * kv_len) = {bounds[-1]}")
    packed, offsets = np.empty(int(((np.diff(bounds) + 7) // 8).sum()), np.uint8), np.empty(bounds.shape, np.int32)
    lib.segment_packbits(flat, bounds, packed, offsets, "little")
    return packed, offsets


def mask_offsets(qo_lens: Any, kv_lens: Any) -> Any:
    """Byte offsets [batch_size + 1] int32 of packed masks."""
    if is_torch(qo_lens) or is_torch(kv_lens):
        device = next((x.device for x in (qo_lens, kv_lens) if on_device(x)), "cpu")
        lens = to_device(qo_lens, device).long() * to_device(kv_lens, device)
        return _offsets((lens + 7) // 8).to(_torch_int32())
    return np.concatenate([[0], np.cumsum((qo_lens.astype(np.int64) * kv_lens + 7) // 8)]).astype(np.int32)


def _offsets(lens: Any) -> Any:
    bounds = lens.new_zeros(lens.shape[0] + 1)
    bounds[1:] = lens.cumsum(0)
    return bounds


def lens_of(indptr: Any) -> Any:
    """indptr's differences, where it lies."""
    x = index(indptr)
    return x[1:] - x[:-1]


def paged_lens(indptr: Any, last_page_len: Any, page_size: int, seq_lens: Any = None) -> Any:
    """Numbers of keys, where the tables lie."""
    if seq_lens is not None:
        return index(seq_lens)
    pages, last = lens_of(indptr), index(last_page_len)
    device = next((x.device for x in (pages, last) if on_device(x)), None)
    if device is not None:
        pages, last = to_device(pages, device), to_device(last, device)
    elif is_torch(pages) != is_torch(last):
        pages, last = np.asarray(pages), np.asarray(last)
    return ((pages - 1) * page_size + last) * (pages > 0)


def largest(x: Any) -> int:
    """The largest number of a table in host memory, -1 of none; 0 where the table is a GPU's."""
    return 0 if on_device(x) else int(host_ints(x, "int64").max(initial=-1))


def last_of(x: Any) -> int | None:
    """The last number of a table in host memory; None where the table is a GPU's."""
    if on_device(x):
        return None
    table = host_ints(x, "int64")
    if table.ndim != 1 or table.shape[0] == 0:
        raise ValueError(f"plan: a table of offsets has shape {table.shape}, expected [batch_size + 1]")
    return int(table[-1])


def check_pages(indptr: Any, indices: Any) -> None:
    """ValueError where a table in host memory names more pages than it has: a buffer would lend it old ones."""
    end = last_of(indptr)
    if end is not None and end > len(indices):
        raise ValueError(f"plan: indptr ends at {end}, but indices has {len(indices)} entries")


def copy_into(buffer: Array, x: Any, name: str) -> Array:
    """x copied into the head of the caller's buffer, which is not waited for on a GPU; that head.

    ValueError when it does not fit.
    """
    x = index(x)
    if x.shape[0] > buffer.shape[0]:
        raise ValueError(
            f"The size of {name} should be less than or equal to the allocated buffer: {x.shape[0]} > {buffer.shape[0]}"
        )
    head = buffer[: x.shape[0]]
    if is_torch(x) and is_torch(buffer):
        head.copy_(x, non_blocking=True)
    else:
        head[...] = from_numpy(buffer, host_ints(x))
    return head
