# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a call, by the name of the argument. Annotations say what is expected: an array, an integer ...

A call that has failed for a reason that names nothing ("'str' object has no attribute 'shape'") is looked at
afterwards, so that good calls pay nothing for it. Flags are looked at before, because any object is true or false.
"""

from __future__ import annotations

import functools
import inspect
import operator
import re
from typing import Any, Callable, Iterator, NoReturn, TypeVar

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

_EXPECTED = {"Array": "an array", "int": "an integer of 64 bits", "float": "a number", "bool": "True or False",
             "str": "a string", "None": "None"}  # fmt: skip
# Kinds of errors that callers are promised; any other says nothing to them.
_PROMISED = (ValueError, TypeError, KeyError, NotImplementedError, RuntimeError, ImportError)
_NOT_GIVEN = inspect.Parameter.empty
_EXACT = {"int": (int,), "float": (float, int), "bool": (bool,), "str": (str,), "None": (type(None),)}


def _is_integer(x: Any) -> bool:
    try:
        return -(2**63) <= operator.index(x) < 2**63
    except (TypeError, ValueError, RuntimeError):
        return False


def _is_number(x: Any) -> bool:
    if not hasattr(x, "__float__") or isinstance(x, str):
        return False
    return not hasattr(x, "shape") or len(x.shape) == 0 or all(n == 1 for n in x.shape)


def _is_array(x: Any) -> bool:
    return hasattr(x, "__dlpack__") or (hasattr(x, "dtype") and hasattr(x, "shape") and len(x.shape) > 0)


def _is_flag(x: Any) -> bool:
    return x is None or isinstance(x, (bool, np.bool_)) or (isinstance(x, int) and x in (0, 1))


_TESTS: dict[str, Callable[[Any], bool]] = {
    "Array": _is_array, "int": _is_integer, "float": _is_number, "bool": _is_flag,
    "str": lambda x: isinstance(x, str), "None": lambda x: x is None,
}  # fmt: skip


def shown(x: Any) -> str:
    """An argument in few words."""
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}"
    return repr(x)[:40] if isinstance(x, (int, float, complex, str, bytes, type(None))) else f"a {type(x).__name__}"


def _kinds(annotation: Any) -> list[str] | None:
    """The annotation's alternatives; None where one of them may be anything."""
    kinds = str(annotation).split(" | ")
    return kinds if all(kind in _TESTS for kind in kinds) else None


def _op_name(function: Callable[..., Any]) -> str:
    owner, _, name = function.__qualname__.rpartition(".")
    return owner.rpartition(".")[2] if name == "__init__" else f"{owner}.{name}" if owner else name


@functools.lru_cache(maxsize=256)
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(inspect.unwrap(function))


def _given(function: Callable[..., Any], args: Any, kwargs: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, annotation, value) of each argument. TypeError where they do not fit the signature."""
    signature = _signature(function)
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        yield name, signature.parameters[name].annotation, value


def _misfit(op: str, name: str, kinds: list[str], x: Any) -> Exception:
    expected = " or ".join(_EXPECTED[kind] for kind in kinds)
    is_large = isinstance(x, int) and "int" in kinds
    return (ValueError if is_large else TypeError)(f"{op}: {name} is {shown(x)}, expected {expected}")


def about(x: Any, error: Exception) -> Exception:
    """The error, which says what x is but not x's name: the call's explanation finds that."""
    error.about = x  # type: ignore[attr-defined]
    return error


def _named(op: str, given: list[tuple[str, Any, Any]], error: Exception) -> Exception:
    """error, if it names the call or is of a kind made elsewhere; else one of its kind that does."""
    text = str(error)
    if type(error) not in (ValueError, TypeError, NotImplementedError, RuntimeError):
        return error
    if hasattr(error, "about"):
        at_fault = error.about
        for name, _, x in given:
            if x is at_fault or (isinstance(x, (list, tuple)) and any(item is at_fault for item in x)):
                return type(error)(f"{op}: {name} is {text}")
        return type(error)(f"{op}: {text}")
    first = re.match(r"\w+", text)
    return type(error)(f"{op}: {text}") if first and first.group() in {name for name, _, _ in given} else error


def explained(function: Callable[..., Any], args: Any, kwargs: Any, error: Exception) -> Exception:
    """What a failed call should raise: error itself where that is good."""
    op = _op_name(function)
    try:
        given = list(_given(function, args, kwargs))
    except TypeError:  # Python's own words about missing and unknown arguments are good
        return error
    for name, annotation, x in given:
        kinds = _kinds(annotation)
        if kinds is None or any(_TESTS[kind](x) for kind in kinds):
            continue
        if "Array" in kinds and isinstance(x, (list, tuple)) and not isinstance(error, AttributeError):
            continue  # tables may be lists
        if isinstance(error, _PROMISED) and name in str(error):
            return error
        return _misfit(op, name, kinds, x)
    if isinstance(error, _PROMISED):
        return _named(op, given, error)
    arrays = ", ".join(f"{name} {shown(x)}" for name, _, x in given if name != "self")
    if isinstance(error, MemoryError):
        return MemoryError(f"{op}: {error or 'out of memory'}; the arguments: {arrays}")
    return ValueError(f"{op}: {type(error).__name__}: {error}; the arguments: {arrays}")


def raise_explained(function: Callable[..., Any], args: Any, kwargs: Any, error: Exception) -> NoReturn:
    """From the handler of a call that failed with error."""
    better = explained(function, args, kwargs, error)
    if better is error:
        raise
    raise better from error


def flags_of(function: Callable[..., Any]) -> dict[str, int]:
    """The places of a function's flags."""
    parameters = enumerate(_signature(function).parameters.values())
    return {p.name: place for place, p in parameters if p.annotation == "bool"}


def check_flags(function: Callable[..., Any], flags: dict[str, int], args: Any, kwargs: Any) -> None:
    """TypeError unless the flags are True, False, or what counts as them: 1, 0, None."""
    for name, place in flags.items():
        x = args[place] if place < len(args) else kwargs.get(name)
        if type(x) is not bool and not _is_flag(x):
            raise _misfit(_op_name(function), name, ["bool"], x)


def checked(function: F) -> F:
    """The function, its numbers, flags and strings looked at before it runs; what it raises is explained."""
    scalars = []
    for place, parameter in enumerate(_signature(function).parameters.values()):
        kinds = _kinds(parameter.annotation)
        if kinds is not None and "Array" not in kinds:
            exact = {t for kind in kinds for t in _EXACT[kind]} | {type(_NOT_GIVEN)}
            scalars.append((place, parameter.name, kinds, frozenset(exact)))

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        for place, name, kinds, exact in scalars:
            x = args[place] if place < len(args) else kwargs.get(name, _NOT_GIVEN)
            if type(x) not in exact or type(x) is int:
                if x is not _NOT_GIVEN and not any(_TESTS[kind](x) for kind in kinds):
                    raise _misfit(_op_name(function), name, kinds, x)
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise_explained(function, args, kwargs, error)

    return wrapped  # type: ignore[return-value]


def refused(op: str, arguments: list[str], args: Any, error: Exception) -> Exception:
    """What a call of the library's own function should raise: PyTorch tells of tensors without memory in words of its
    own.
    """
    text = str(error)
    if text.startswith(op):
        return error
    if isinstance(error, TypeError):
        return _mismatch(op, arguments, args, text) or error
    for name, x in zip(arguments, args):
        why = _no_memory(x)
        if why:
            return ValueError(f"{op}: {name} {why}, expected a tensor with memory of its own")
        dtype = str(getattr(x, "dtype", "")).removeprefix("torch.")
        if text.startswith("tensor: dtype is ") and dtype and f" {dtype}," in text:
            return ValueError(f"{op}: {name} {text.removeprefix('tensor: ')}")
        if text.startswith("tensor: rank is ") and len(getattr(x, "shape", ())) > 6:
            return ValueError(f"{op}: {name} {text.removeprefix('tensor: ')}")
    return error


_OF_FFI = {"DLTensor*": "an array", "float": "a number", "int": "an integer", "bool": "True or False",
           "str": "a string"}  # fmt: skip


def _mismatch(op: str, arguments: list[str], args: Any, text: str) -> Exception | None:
    """The library's own functions count their arguments: "Mismatched type on argument #4 when ... Expected `float`"."""
    found = re.match(r"Mismatched type on argument #(\d+) when .* Expected `(?:Optional<)?([\w*]+)>?` but", text)
    if found is None or int(found[1]) >= min(len(arguments), len(args)) or found[2] not in _OF_FFI:
        return None
    place = int(found[1])
    return TypeError(f"{op}: {arguments[place]} is {shown(args[place])}, expected {_OF_FFI[found[2]]}")


def _no_memory(x: Any) -> str | None:
    device, layout = getattr(x, "device", None), str(getattr(x, "layout", "torch.strided"))
    if getattr(device, "type", None) is None or not hasattr(x, "data_ptr"):
        return None
    if device.type == "meta":  # type: ignore[union-attr]
        return "is on device meta"
    if layout != "torch.strided":
        return f"has layout {layout.removeprefix('torch.')}"
    if getattr(x, "is_quantized", False):
        return f"has dtype {x.dtype}"
    try:
        x.data_ptr()
    except RuntimeError:
        return "is a wrapper (torch.vmap, torch.func.grad or the like)"
    return None
