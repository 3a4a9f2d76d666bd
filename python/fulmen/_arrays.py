# SPDX-License-Identifier: Apache-2.0
"""Arrays of the caller's framework, at the border to the library.

Two kinds are native: NumPy's and PyTorch's. They go into the library without a copy, and outputs are allocated with
their own framework. Any other array that speaks DLPack becomes a NumPy view of the same memory at the door, and results
go back through its array namespace's from_dlpack (`takes_dlpack`).

NumPy refuses to export bfloat16 and FP8 (types of ml_dtypes): their bytes travel as integers and the library's
`reinterpret` names the type. Read-only arrays are exported as inputs only.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, Callable, Sequence, TypeVar

import numpy as np

from ._dtypes import FP8, ML_DTYPES, dtype_name, numpy_dtype, torch_dtype
from ._explain import about, check_flags, flags_of, raise_explained
from ._ffi import dispatched_types, is_compiling, lib
from ._gpu_memory import new_on_gpu
from ._launch import as_asked, asks_pdl, default_of_pdl, place_of_pdl

F = TypeVar("F", bound=Callable[..., Any])
Array = Any  # np.ndarray, torch.Tensor, or anything with __dlpack__

_INTEGER_OF_SIZE = {1: np.uint8, 2: np.uint16}
_DIRECT_NAMES = "bool int8 int32 int64 uint8 uint32 uint64 float16 float32 float64".split()
_DIRECT = frozenset(np.dtype(name) for name in _DIRECT_NAMES)  # what NumPy's DLPack exports and the library knows


# Types that need no further question at the door. PyTorch's are added when the first tensor comes.
_native_types: set[type] = {np.ndarray}
# PyTorch's types whose every tensor the library takes as it is.
_torch_types: set[type] = set()
_torch_empty_like: Callable[..., Any] | None = None  # PyTorch's, once a tensor came


def is_torch(x: Any) -> bool:
    """Whether x is a PyTorch tensor; never imports PyTorch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_native(x: Any) -> bool:
    if type(x) in _native_types:
        return True
    if isinstance(x, np.ndarray):
        return True
    if not is_torch(x):
        return False
    if not is_compiling():
        _remember(type(x))
    return True


def _remember(tensor_type: type) -> None:
    torch = sys.modules["torch"]
    if tensor_type not in (torch.Tensor, torch.nn.Parameter):
        dispatched_types.add(tensor_type)
        return
    global _torch_empty_like
    _torch_empty_like = torch.empty_like
    _native_types.add(tensor_type)
    if hasattr(tensor_type, "__dlpack_c_exchange_api__"):  # PyTorch's older DLPack has no FP8
        _torch_types.add(tensor_type)


def dtype_of(x: Array) -> str:
    """The name of x's element type."""
    return dtype_name(x.dtype)


def empty(like: Array, shape: Sequence[int], dtype: str | None = None) -> Array:
    """An uninitialised contiguous array of like's framework and device; dtype is a name, None for like's."""
    if isinstance(like, np.ndarray):
        return np.empty(shape, like.dtype if dtype is None else numpy_dtype(dtype))
    kind = like.dtype if dtype is None else torch_dtype(dtype)
    if type(like) in _torch_types and like.is_cuda:
        made = new_on_gpu(like, shape, kind)
        if made is not None:
            return made
    if kind is like.dtype and len(shape) > 0:
        return like.new_empty(*shape)  # half the time of a tuple
    return like.new_empty(tuple(shape), dtype=kind)


def empty_like(x: Array) -> Array:
    """An uninitialised contiguous array of x's shape, dtype and framework."""
    if type(x) not in _torch_types and isinstance(x, np.ndarray):
        return np.empty(x.shape, x.dtype)
    if type(x) in _torch_types and x.is_cuda:
        made = new_on_gpu(x, x.shape, x.dtype)
        if made is not None:
            return made
    if _torch_empty_like is not None and x.is_contiguous():  # PyTorch's fastest way, but it keeps the order of strides
        return _torch_empty_like(x)
    return x.new_empty(x.shape)


def filled(like: Array, shape: Sequence[int], value: Any, dtype: str) -> Array:
    """As empty, filled with value. On a GPU a kernel writes it: nothing waits."""
    if isinstance(like, np.ndarray):
        return np.full(shape, value, numpy_dtype(dtype))
    return like.new_full(tuple(shape), value, dtype=torch_dtype(dtype))


def joined(x: Array, shape: Sequence[int]) -> Array:
    """The same memory in another shape. Raises ValueError where that would need a copy."""
    if isinstance(x, np.ndarray):
        y = x.reshape(shape)
        if x.size > 0 and y.ctypes.data != x.ctypes.data:
            raise ValueError(f"an array of shape {x.shape} cannot be seen as {tuple(shape)}")
        return y
    if x.is_contiguous():
        return x.view(shape)
    try:
        return x.view(shape)
    except RuntimeError as error:
        raise ValueError(str(error)) from None


def from_numpy(like: Array, x: np.ndarray) -> Array:
    """x in like's framework and on like's device."""
    if isinstance(like, np.ndarray):
        return x
    return sys.modules["torch"].from_numpy(np.ascontiguousarray(x)).to(like.device)


def cast(x: Array, dtype: str) -> Array:
    """x as dtype; x itself when it is. Raises TypeError for what is no real number."""
    dtype_of(x)
    if isinstance(x, np.ndarray):
        return x.astype(numpy_dtype(dtype), copy=False)
    return x.to(torch_dtype(dtype))


def arg(x: Array | None) -> Any:
    """x as the library takes it: no copy, None stays None."""
    if x is None or type(x) in _torch_types:
        return x
    if isinstance(x, np.ndarray):
        if x.dtype in _DIRECT and x.flags.writeable:
            return x
        return _numpy_arg(x)
    if is_torch(x):
        return _torch_arg(x)
    if hasattr(x, "__dlpack__"):
        return x
    return _numpy_arg(np.asarray(x))


def out_arg(x: Array, name: str = "out") -> Any:
    """As arg, for memory that the library writes. Raises ValueError when NumPy marked it read-only, TypeError when it
    is no array: the result would be lost.
    """
    if type(x) in _torch_types:
        return x
    if isinstance(x, np.ndarray):
        if not x.flags.writeable:
            raise ValueError(f"{name} is a read-only NumPy array")
    elif not hasattr(x, "__dlpack__"):
        raise TypeError(f"{name} is a {type(x).__name__}, expected an array")
    return arg(x)


def _numpy_arg(x: np.ndarray) -> Any:
    import tvm_ffi

    name = dtype_name(x.dtype)
    if not x.dtype.isnative:
        raise about(x, ValueError(f"an array of dtype {x.dtype}, expected this machine's order of bytes"))
    raw = x.view(_INTEGER_OF_SIZE[x.dtype.itemsize]) if name in ML_DTYPES else x
    if not raw.flags.writeable:  # the library reads inputs only; a versioned capsule is allowed to say so
        raw = tvm_ffi.from_dlpack(raw.__dlpack__(max_version=(1, 0)))
    return lib.reinterpret(raw, _ffi_dtype(name)) if name in ML_DTYPES else raw


def _torch_arg(x: Array) -> Any:
    if is_compiling():
        return x
    if type(x) not in _native_types:
        _remember(type(x))
    if type(x) in dispatched_types:
        return x
    if x.requires_grad:
        x = x.detach()
    name = _torch_name(x.dtype)
    if name in FP8 and not hasattr(type(x), "__dlpack_c_exchange_api__"):  # PyTorch's older DLPack has no FP8
        return lib.reinterpret(x.view(sys.modules["torch"].uint8), _ffi_dtype(name))
    return x


@functools.lru_cache(maxsize=64)
def _torch_name(dtype: Any) -> str:
    return str(dtype).rsplit(".", 1)[-1]


@functools.lru_cache(maxsize=64)
def _ffi_dtype(name: str) -> Any:
    import tvm_ffi

    return tvm_ffi.dtype(name)


def host_ints(x: Array | Sequence[int], dtype: str = "int32") -> np.ndarray:
    """Integers of any kind of array or list as a NumPy array: what plan() reads. A copy only where needed."""
    given = x
    if is_torch(x):
        x = x.detach().cpu().numpy()
    x = np.asarray(x)
    if x.dtype.kind not in "iub" and x.size > 0:
        raise about(given, TypeError(f"a table of {x.dtype}, expected integers"))
    if dtype == "int32" and x.dtype.itemsize >= 4 and x.dtype != np.int32 and x.size > 0:
        for value in (x.min(), x.max()):
            if not -(2**31) <= int(value) < 2**31:
                raise about(given, ValueError(f"a table with {value}, expected integers of 32 bits"))
    return np.ascontiguousarray(x, dtype=numpy_dtype(dtype))


def scalar(x: Any, name: str, default: float | None = None) -> float | None:
    """A Python float of a number or a one-element array; default for None. Raises NotImplementedError on longer
    arrays.
    """
    if x is None:
        return default
    if isinstance(x, (int, float)):
        return float(x)
    if not hasattr(x, "__float__"):
        raise TypeError(f"{name} is {x!r}, expected a number or an array of one")
    count = int(np.prod(x.shape)) if hasattr(x, "shape") else 1
    if count != 1:
        raise NotImplementedError(f"{name}: a tensor of {count} values; only one value per tensor is implemented")
    return float(x.reshape(-1)[0]) if hasattr(x, "reshape") else float(x)


def check_out(x: Array, shape: Sequence[int], dtype: str, name: str) -> Array:
    """x itself. Raises ValueError unless it has this shape and dtype, TypeError where it is no array."""
    if not hasattr(x, "shape"):
        raise TypeError(f"{name} is a {type(x).__name__}, expected an array")
    if tuple(x.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(x.shape)}, expected {tuple(shape)}")
    if dtype_of(x) != dtype:
        raise ValueError(f"{name} has dtype {dtype_of(x)}, expected {dtype}")
    return x


def _as_numpy(x: Any) -> np.ndarray:
    import tvm_ffi

    tensor = tvm_ffi.from_dlpack(x)
    name = str(tensor.dtype)
    if name in ML_DTYPES:
        integers = f"uint{numpy_dtype(name).itemsize * 8}"
        return np.from_dlpack(lib.reinterpret(tensor, _ffi_dtype(integers))).view(numpy_dtype(name))
    return np.from_dlpack(tensor)


def _back(x: Any, namespace: Any) -> Any:
    if isinstance(x, tuple):
        return tuple(_back(item, namespace) for item in x)
    return namespace.from_dlpack(x) if isinstance(x, np.ndarray) and namespace is not None else x


def _adopt(x: Any, seen: list[Any]) -> Any:
    """x with every foreign DLPack array replaced by a NumPy view."""
    if isinstance(x, (tuple, list)):
        return type(x)(_adopt(item, seen) for item in x)
    if x is None or is_native(x) or not hasattr(x, "__dlpack__"):
        return x
    if isinstance(x, np.generic):
        return x
    seen.append(x)
    return _as_numpy(x)


def is_plain(first: Any, enable_pdl: bool | None) -> bool:
    """Whether a call is the common one: a NumPy or PyTorch array comes first, and nothing is asked of its launches. A
    function whose first line asks this needs no takes_dlpack around it, which costs as much as half of its own work:

        if not is_plain(input, enable_pdl):
            return general(rmsnorm, input, weight, eps, out, enable_pdl)
    """
    return enable_pdl is None and (type(first) in _native_types or is_native(first))


def general(function: Callable[..., Any], *args: Any) -> Any:
    """A call that is not plain, enable_pdl the last of its arguments. Raises TypeError where no array comes first."""
    *given, enable_pdl = args
    if not is_native(args[0]) and not hasattr(args[0], "__dlpack__"):
        name = function.__code__.co_varnames[0]
        raise TypeError(f"{function.__name__}: {name} is a {type(args[0]).__name__}, expected an array")
    return _adopted(as_asked, [enable_pdl, function, *given, None], {})


def _adopted(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The function of the arguments with NumPy views of foreign arrays, its result in the first one's framework."""
    seen: list[Any] = []
    args = tuple(_adopt(x, seen) for x in args)
    kwargs = {name: _adopt(x, seen) for name, x in kwargs.items()}
    result = function(*args, **kwargs)
    if not seen:
        return result
    namespace = getattr(seen[0], "__array_namespace__", lambda: None)()
    return _back(result, namespace if hasattr(namespace, "from_dlpack") else None)


def takes_dlpack(function: F) -> F:
    """Lets a function written for NumPy and PyTorch arrays take any DLPack array and answer in its framework.

    The result stays NumPy where the foreign array has no __array_namespace__ with from_dlpack. An argument enable_pdl
    decides about the function's launches.
    """

    asking = asks_pdl(function)
    place = place_of_pdl(function)
    # as many positional arguments alone ask for nothing
    silent = 1 << 30 if place is None else place if default_of_pdl(function) is None else -1
    position = 1 if function.__code__.co_varnames[:1] == ("self",) else 0  # of the first array
    flags = flags_of(function)
    names, first_flag = frozenset(flags), min(flags.values(), default=1 << 30)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if len(args) > first_flag or (kwargs and not names.isdisjoint(kwargs)):
            check_flags(function, flags, args, kwargs)
        try:
            if len(args) > position and (type(args[position]) in _native_types or is_native(args[position])):
                if len(args) <= silent and (not kwargs or "enable_pdl" not in kwargs):
                    return function(*args, **kwargs)
                return asking(*args, **kwargs)
            return _adopted(asking, args, kwargs)
        except Exception as error:
            raise_explained(function, args, kwargs, error)

    return wrapped  # type: ignore[return-value]
