# SPDX-License-Identifier: Apache-2.0
"""Names that FlashInfer's users import from its utils, with this library's answers to questions about GPUs."""

from __future__ import annotations

import enum
import math
import operator
from typing import Any, Callable, Sequence

import numpy as np

from ._arrays import Array, dtype_of, from_numpy
from ._dtypes import FP8, dtype_name
from ._options import check_kv_layout as _check_kv_layout
from ._options import check_pos_encoding_mode as _check_pos_encoding_mode
from ._options import unpack_paged_kv_cache as _unpack_paged_kv_cache

__all__ = [
    "FP4Tensor", "PosEncodingMode", "MaskMode", "TensorLayout",
    "LibraryError", "GPUArchitectureError", "BackendSupportedError",
    "canonicalize_torch_dtype", "ceil_div", "check_shape_dtype_device", "determine_attention_backend",
    "device_support_pdl", "get_alibi_slopes", "get_compute_capability", "get_indptr", "is_float8",
    "is_sm90a_supported", "is_sm100a_supported", "last_positive_power_of_2", "next_positive_power_of_2",
    "register_custom_op", "register_fake_op", "round_up", "version_at_least",
    "_check_kv_layout", "_check_pos_encoding_mode", "_unpack_paged_kv_cache", "_get_cache_buf", "_get_range_buf",
]  # fmt: skip


class PosEncodingMode(enum.Enum):
    """Position encoding inside attention."""

    NONE = 0
    ROPE_LLAMA = 1
    ALIBI = 2


class MaskMode(enum.Enum):
    """Which keys a query sees."""

    NON_CAUSAL = 0
    CAUSAL = 1
    CUSTOM = 2
    MULTIITEMSCORING = 3


class TensorLayout(enum.Enum):
    """Order of the token and head axes of keys and values."""

    NHD = 0
    HND = 1


class LibraryError(Exception):
    """A library that a call needs is missing."""


class GPUArchitectureError(Exception):
    """The device cannot run what was asked."""


class BackendSupportedError(Exception):
    """The named backend does not serve the call."""


class FP4Tensor:
    """Two FP4 values a byte with their scales, as engines name them in their imports. No kernel here reads or writes
    them: an `out` of this type is refused.

    data: uint8; scale: float8_e4m3fn; scale_start_index: the scale's first row; original_shape: before packing.
    """

    def __init__(
        self, data: Array, scale: Array, scale_start_index: int = 0, original_shape: tuple[int, ...] | None = None
    ) -> None:
        for name, x, dtype in (("data", data, "uint8"), ("scale", scale, "float8_e4m3fn")):
            got = dtype_name(x.dtype)
            if got != dtype:
                raise ValueError(f"FP4Tensor: {name} has dtype {got}, expected {dtype}")
        self.data, self.scale = data, scale
        self.scale_start_index, self.original_shape = scale_start_index, original_shape
        self.dtype = "nvfp4"


def ceil_div(x: int, y: int) -> int:
    """x / y rounded up."""
    return -(-x // y)


def round_up(x: int, y: int) -> int:
    """The least multiple of y that is not below x."""
    return -(-x // y) * y


def next_positive_power_of_2(x: int) -> int:
    """The least power of two that is not below x; 1 for x < 1."""
    x = operator.index(x)
    return 1 if x < 1 else 1 << (x - 1).bit_length()


def last_positive_power_of_2(x: int) -> int:
    """The greatest power of two that is not above x; 1 for x < 1."""
    x = operator.index(x)
    return 1 if x < 1 else 1 << (x.bit_length() - 1)


def get_indptr(x: Array) -> Array:
    """[0, x0, x0 + x1, ...] of lengths x, x's integer type."""
    host = x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)
    out = np.zeros(host.shape[0] + 1, host.dtype)
    np.cumsum(host, out=out[1:])
    return from_numpy(x, out)


def alibi_slopes(n_heads: int) -> np.ndarray:
    """ALiBi's slope of each head, float32 [n_heads] (Press et al. 2022)."""
    n = last_positive_power_of_2(n_heads)
    h = np.arange(n_heads, dtype=np.float64)
    slopes = np.where(h < n, 2.0 ** (-8 * (h + 1) / n), 2.0 ** (-4 * (2 * (h - n) + 1) / n))
    return slopes.astype(np.float32)


def get_alibi_slopes(n_heads: int, device: Any = None) -> Array:
    """alibi_slopes as a tensor on device; NumPy where device is None."""
    slopes = alibi_slopes(n_heads)
    if device is None:
        return slopes
    import torch

    return torch.from_numpy(slopes).to(device)


def canonicalize_torch_dtype(dtype: Any) -> Any:
    """A torch.dtype of a dtype or its name."""
    import torch

    return dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype_name(dtype))


def is_float8(x: Any) -> bool:
    """Whether an array's elements are FP8."""
    return dtype_of(x) in FP8


def version_at_least(version: str, base_version: str) -> bool:
    """Whether version is base_version or later, by its numeric fields."""
    fields = [[int("".join(c for c in f if c.isdigit()) or 0) for f in v.split("+")[0].split(".")[:3]]
              for v in (version, base_version)]  # fmt: skip
    return fields[0] >= fields[1]


def check_shape_dtype_device(
    x: Array, expected_shape: Sequence[int] | None, expected_dtype: Any, expected_device: Any, name: str
) -> None:
    """ValueError unless x is as expected; None expects nothing."""
    if expected_shape is not None and tuple(x.shape) != tuple(expected_shape):
        raise ValueError(f"{name} has shape {tuple(x.shape)}, expected {tuple(expected_shape)}")
    if expected_dtype is not None and dtype_of(x) != dtype_name(expected_dtype):
        raise ValueError(f"{name} has dtype {dtype_of(x)}, expected {dtype_name(expected_dtype)}")
    device = getattr(x, "device", None)
    if expected_device is not None and device is not None and str(device) != str(expected_device):
        raise ValueError(f"{name} is on device {device}, expected {expected_device}")


def _cuda_device(device: Any) -> dict[str, Any] | None:
    """What the library knows of a CUDA device: "cuda", "cuda:1", a torch.device. None for any other."""
    kind, _, index = str("cpu" if device is None else device).partition(":")
    if kind != "cuda":
        return None
    import json

    from ._ffi import lib

    found = [d for d in json.loads(lib.list_devices()) if d["backend"] == "cuda" and d["device_id"] == int(index or 0)]
    return found[0] if found else None


def get_compute_capability(device: Any = None) -> tuple[int, int]:
    """(major, minor) of a CUDA device, (0, 0) of any other."""
    found = _cuda_device(device)
    return divmod(found["arch"], 10) if found else (0, 0)


def _needs(*capabilities: tuple[int, int]) -> Callable[..., bool]:
    def supported(device: Any = None, *args: Any, **kwargs: Any) -> bool:
        return get_compute_capability(device) in capabilities

    return supported


is_sm90a_supported, is_sm100a_supported, is_sm100f_supported = _needs((9, 0)), _needs((10, 0)), _needs((10, 0), (10, 3))
is_sm110a_supported, is_sm120a_supported, is_sm121a_supported = _needs((11, 0)), _needs((12, 0)), _needs((12, 1))
is_sm120f_supported = is_sm12x_supported = _needs((12, 0), (12, 1))


def device_support_pdl(device: Any = None) -> bool:
    """Whether the device can launch a kernel before its predecessor has ended (sm_90 and up)."""
    return get_compute_capability(device) >= (9, 0)


def _no(*args: Any, **kwargs: Any) -> bool:
    """False: no such backend here."""
    return False


is_fa3_backend_supported = is_cutlass_backend_supported = has_cuda_cudart = _no


def determine_attention_backend(device: Any = None, *args: Any, **kwargs: Any) -> str:
    """FlashInfer's name nearest to what runs: "fa2" on CUDA devices, else "cpu"."""
    return "fa2" if str(device).startswith("cuda") else "cpu"


determine_gemm_backend = determine_mla_backend = determine_attention_backend


def get_device_sm_count(device: Any = None) -> int:
    """Workers that a kernel fills: a GPU's multiprocessors, or threads of the CPU backend."""
    from ._ffi import lib

    found = _cuda_device(device)
    return int(found["num_workers"] if found else lib.num_threads())


def register_custom_op(name: str, fn: Callable | None = None, /, **options: Any) -> Callable:
    """Returns fn unchanged, or a decorator that does; no framework is told."""
    return fn if fn is not None else (lambda function: function)


def register_fake_op(name: str, fn: Callable | None = None) -> Callable:
    """As register_custom_op."""
    return register_custom_op(name, fn)


_cache_buf: dict[tuple[str, str], Any] = {}


def _get_cache_buf(name: str, num_bytes: int, device: Any) -> Any:
    """A uint8 PyTorch tensor kept per name and device, grown when it is too small."""
    import torch

    key = (name, str(device))
    buffer = _cache_buf.get(key)
    if buffer is None or buffer.numel() < num_bytes:
        _cache_buf[key] = buffer = torch.empty(num_bytes, dtype=torch.uint8, device=device)
    return buffer


def _get_range_buf(seq_len: int, device: Any) -> Any:
    """0, 1, ... seq_len - 1 as int32; NumPy where device is None."""
    if device is None:
        return np.arange(seq_len, dtype=np.int32)
    import torch

    return torch.arange(math.ceil(seq_len), dtype=torch.int32, device=device)
