# SPDX-License-Identifier: Apache-2.0
"""Drawing tokens, and the filters before it.

Filters keep tokens in one order: value descending, then index ascending. A row's token depends on its seed and offset,
never on the number of threads. Randomness comes from `seed` and `offset` (numbers, or integer arrays [batch_size] or
[1]), else from `generator` (numpy.random.Generator or torch.Generator, which advances), else from the framework's
global state (torch.manual_seed or numpy.random.seed). `deterministic` is accepted: every call is.

probs, logits: [num_rows, vocab_size] float32, float16 or bfloat16; float64 is rounded to float32 first. indices: int32
or int64 [batch_size], the row that each output row draws from; None: each its own. top_k, top_p, min_p: a number, or
an array [batch_size]. Tokens are int32, or indices' dtype. A row without positive mass or with NaN yields token 0 and
valid False; other rows do not notice.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ._arrays import Array, arg, cast, dtype_of, empty, empty_like, filled, is_torch, out_arg, takes_dlpack
from ._ffi import is_compiling, lib

_ALL = 2**63 - 1  # top_k that keeps every token


def get_seed_and_offset(increment: int, generator: Any = None, device: Any = None) -> tuple[int, int]:
    """A (seed, offset) of the generator, which advances: two calls give different streams.

    increment is what FlashInfer adds to a CUDA generator's offset; a CPU generator has none and draws a new seed.
    device: a PyTorch device, to say that None means PyTorch's global generator; else it means NumPy's.
    """
    if isinstance(generator, np.random.Generator):
        return int(generator.integers(0, _ALL)), 0
    if generator is None and device is None:
        return int(np.random.randint(0, _ALL, dtype=np.int64)), 0
    _check_generator(generator)
    torch = sys.modules["torch"]
    if generator is not None and generator.device.type == "cuda":
        state = generator.get_state().view(torch.int64)
        seed, offset = int(state[0]), int(state[1])
        state[1] = offset + -(-increment // 4) * 4
        generator.set_state(state.view(torch.uint8))
        return seed, offset
    return int(torch.randint(0, _ALL, (1,), generator=generator)), 0


def _check_generator(generator: Any) -> None:
    torch = sys.modules.get("torch")
    if generator is None or isinstance(generator, np.random.Generator):
        return
    if torch is None or not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is {type(generator)}, expected numpy.random.Generator, torch.Generator or None")


def _signed(x: int) -> int:
    x &= 2**64 - 1
    return x - 2**64 if x >= 2**63 else x


def _random(like: Array, increment: int, generator: Any, seed: Any, offset: Any) -> tuple[int, int, Any, Any]:
    """(seed, offset, seed_arr, offset_arr) of the library's RandomSource."""
    _check_generator(generator)
    if seed is None:
        if offset is not None:
            raise ValueError("offset is given without seed")
        if is_torch(like) and _draws_on_device(like, generator):
            return 0, 0, _device_seed(like, generator), None
        seed, offset = get_seed_and_offset(increment, generator, like.device if is_torch(like) else None)
    numbers: list[int] = []
    arrays: list[Any] = []
    for name, value in (("seed", seed), ("offset", 0 if offset is None else offset)):
        if is_torch(value) and value.ndim == 0:  # its number may be on a GPU
            value = value.reshape(1)
        is_array = hasattr(value, "shape") and value.ndim > 0
        kind = dtype_of(value) if hasattr(value, "dtype") else "int" if hasattr(value, "__index__") else "no number"
        if "int" not in kind:
            raise TypeError(f"{name} is {str(value)[:40]!r}, expected an integer or an array of integers")
        numbers.append(0 if is_array else _signed(int(value)))
        arrays.append(arg(value if kind in ("int64", "uint64") else cast(value, "int64")) if is_array else None)
    return numbers[0], numbers[1], arrays[0], arrays[1]


def _draws_on_device(like: Array, generator: Any) -> bool:
    if generator is not None:  # torch.Generator("cuda") names no device in particular
        device = getattr(generator, "device", None)
        on_cuda = like.is_cuda and device is not None and device.type == "cuda"
        return on_cuda and device.index in (None, like.device.index)
    return like.is_cuda or is_compiling()


def _device_seed(like: Array, generator: Any) -> Any:
    """A seed that never visits the host: nothing waits, and every replay of a CUDA graph draws a new one."""
    torch = sys.modules["torch"]
    if generator is None:
        return torch.randint(0, _ALL, (1,), dtype=torch.int64, device=like.device)
    return torch.randint(0, _ALL, (1,), dtype=torch.int64, device=like.device, generator=generator)


def _per_row(x: Any, default: float | int, dtype: str) -> tuple[Any, Any]:
    """(number, array) of a filter's parameter."""
    if x is None:
        return default, None
    if not hasattr(x, "__index__" if dtype == "int32" else "__float__"):
        expected = "an integer" if dtype == "int32" else "a number"
        raise TypeError(f"a filter's parameter is {x!r}, expected {expected} or an array")
    if hasattr(x, "shape") and x.ndim > 0:
        wanted = ("int32", "int64") if dtype == "int32" else (dtype,)
        return default, arg(x if dtype_of(x) in wanted else cast(x, dtype))
    return (int(x) if dtype == "int32" else float(x)), None


def _filter(top_k: Any, top_p: Any, min_p: Any) -> tuple[Any, ...]:
    (k, k_arr), (p, p_arr) = _per_row(top_k, _ALL, "int32"), _per_row(top_p, 1.0, "float32")
    m, m_arr = _per_row(min_p, 0.0, "float32")
    return k, p, m, k_arr, p_arr, m_arr


def _narrowed(x: Array) -> Array:
    return cast(x, "float32") if dtype_of(x) == "float64" else x


def _check_nan(x: Array, name: str) -> None:
    has_nan = bool((x != x).any())
    if has_nan:
        raise ValueError(f"Input {name} contains NaN.")


def _sample(
    input: Array,
    values: str,
    indices: Array | None,
    increment: int,
    generator: Any,
    check_nan: bool,
    seed: Any,
    offset: Any,
    return_valid: bool = False,
    top_k: Any = None,
    top_p: Any = None,
    min_p: Any = None,
    order: str = "top_k_first",
) -> Array | tuple[Array, Array]:
    if order not in ("top_k_first", "joint"):
        raise ValueError(f"Invalid filter_apply_order: {order!r}, expected top_k_first or joint")
    if check_nan:
        _check_nan(input, values)
    input = _narrowed(input)
    batch_size = input.shape[0] if indices is None else indices.shape[0]
    out = empty(input, (batch_size,), "int32" if indices is None else dtype_of(indices))
    valid = empty(input, (batch_size,), "bool") if return_valid else None
    seed, offset, seed_arr, offset_arr = _random(input, batch_size * increment, generator, seed, offset)
    lib.sample(
        arg(input), arg(indices), arg(out), arg(valid), None, *_filter(top_k, top_p, min_p), order == "joint", False,
        seed, offset, seed_arr, offset_arr, values, 1.0, None,
    )  # fmt: skip
    return (out, valid) if return_valid else out


@takes_dlpack
def softmax(logits: Array, temperature: Any = None, enable_pdl: bool | None = None) -> Array:
    """Probabilities of each row, float32: softmax(logits / temperature).

    temperature: None (1), a number, or float32 [num_rows]. 0 is the limit: 1 at the first largest logit (FlashInfer
    gives a uniform row).
    """
    out = empty(logits, logits.shape, "float32")
    number, array = _per_row(temperature, 1.0, "float32")
    lib.softmax(arg(_narrowed(logits)), arg(out), None, number, array)
    return out


@takes_dlpack
def sampling_from_logits(
    logits: Array,
    indices: Array | None = None,
    deterministic: bool = True,
    generator: Any = None,
    check_nan: bool = False,
    seed: Any = None,
    offset: Any = None,
) -> Array:
    """One token per row, with the probabilities of softmax(logits)."""
    return _sample(logits, "logits", indices, logits.shape[-1], generator, check_nan, seed, offset)


@takes_dlpack
def sampling_from_probs(
    probs: Array,
    indices: Array | None = None,
    deterministic: bool = True,
    generator: Any = None,
    check_nan: bool = False,
    seed: Any = None,
    offset: Any = None,
    return_valid: bool = False,
) -> Array | tuple[Array, Array]:
    """One token per row. Rows need not sum to 1. return_valid adds bool [batch_size]."""
    return _sample(probs, "probs", indices, 1, generator, check_nan, seed, offset, return_valid)


@takes_dlpack
def top_p_sampling_from_probs(
    probs: Array,
    top_p: Any,
    indices: Array | None = None,
    deterministic: bool = True,
    generator: Any = None,
    check_nan: bool = False,
    seed: Any = None,
    offset: Any = None,
    return_valid: bool = False,
) -> Array | tuple[Array, Array]:
    """One token per row, of the shortest prefix of likeliest tokens whose mass reaches top_p."""
    return _sample(probs, "probs", indices, 32, generator, check_nan, seed, offset, return_valid, top_p=top_p)


@takes_dlpack
def top_k_sampling_from_probs(
    probs: Array,
    top_k: Any,
    indices: Array | None = None,
    deterministic: bool = True,
    generator: Any = None,
    check_nan: bool = False,
    seed: Any = None,
    offset: Any = None,
    return_valid: bool = False,
) -> Array | tuple[Array, Array]:
    """One token per row, of the top_k likeliest."""
    return _sample(probs, "probs", indices, 32, generator, check_nan, seed, offset, return_valid, top_k=top_k)


@takes_dlpack
def min_p_sampling_from_probs(
    probs: Array,
    min_p: Any,
    indices: Array | None = None,
    deterministic: bool = True,
    generator: Any = None,
    check_nan: bool = False,
    seed: Any = None,
    offset: Any = None,
    return_valid: bool = False,
) -> Array | tuple[Array, Array]:
    """One token per row, of those at least min_p times as likely as the likeliest."""
    return _sample(probs, "probs", indices, 1, generator, check_nan, seed, offset, return_valid, min_p=min_p)


@takes_dlpack
def top_k_top_p_sampling_from_logits(
    logits: Array,
    top_k: Any,
    top_p: Any,
    indices: Array | None = None,
    filter_apply_order: str = "top_k_first",
    deterministic: bool = True,
    generator: Any = None,
    check_nan: bool = False,
    seed: Any = None,
    offset: Any = None,
) -> Array:
    """One token per row of logits; top_p is a share of what top_k left ("top_k_first") or of the whole row
    ("joint").
    """
    return _sample(
        logits, "logits", indices, 32, generator, check_nan, seed, offset, False, top_k, top_p, None, filter_apply_order
    )


@takes_dlpack
def top_k_top_p_sampling_from_probs(
    probs: Array,
    top_k: Any,
    top_p: Any,
    indices: Array | None = None,
    filter_apply_order: str = "top_k_first",
    deterministic: bool = True,
    generator: Any = None,
    check_nan: bool = False,
    seed: Any = None,
    offset: Any = None,
    return_valid: bool = False,
) -> Array | tuple[Array, Array]:
    """One token per row of probabilities; filter_apply_order as for logits."""
    return _sample(
        probs, "probs", indices, 32, generator, check_nan, seed, offset, return_valid, top_k, top_p, None,
        filter_apply_order,
    )  # fmt: skip


def _token_filter(input: Array, values: str, top_k: Any = None, top_p: Any = None) -> Array:
    input = _narrowed(input)
    out = empty_like(input)
    # FlashInfer keeps every token that equals the last one kept.
    lib.token_filter(arg(input), arg(out), None, *_filter(top_k, top_p, None), False, True, values)
    return out


@takes_dlpack
def top_p_renorm_probs(probs: Array, top_p: Any, is_deterministic: bool = False) -> Array:
    """probs, where all but the shortest prefix of mass top_p is 0 (ties stay) and the rest sums to 1; probs' dtype."""
    return _token_filter(probs, "probs", top_p=top_p)


@takes_dlpack
def top_k_renorm_probs(probs: Array, top_k: Any, is_deterministic: bool = False) -> Array:
    """probs, where all but the top_k largest are 0 (ties stay) and the rest sums to 1; probs' dtype."""
    return _token_filter(probs, "probs", top_k=top_k)


@takes_dlpack
def top_k_mask_logits(logits: Array, top_k: Any) -> Array:
    """logits, where all but the top_k largest are -inf (ties stay); logits' dtype."""
    return _token_filter(logits, "logits", top_k=top_k)


top_p_renorm_prob = top_p_renorm_probs
top_k_renorm_prob = top_k_renorm_probs


@takes_dlpack
def chain_speculative_sampling(
    draft_probs: Array,
    draft_token_ids: Array,
    target_probs: Array,
    maybe_output_accepted_token_num: Array | None = None,
    maybe_output_emitted_draft_token_num: Array | None = None,
    deterministic: bool = True,
    generator: Any = None,
    seed: Any = None,
    offset: Any = None,
) -> tuple[Array, Array, Array]:
    """Verifies drafted tokens: (tokens [batch_size, n + 1], accepted [batch_size], emitted [batch_size]), all int32.

    draft_probs: [batch_size, n, vocab_size] float32; draft_token_ids: [batch_size, n]; target_probs: [batch_size, n +
    1, vocab_size] float32. tokens: the accepted prefix, one token of the target's own, then -1. emitted counts the
    prefix; accepted counts drafted tokens that pass on their own. The two arrays, where given, are added to and
    returned.
    """
    batch_size, n = draft_token_ids.shape
    out = empty(draft_token_ids, (batch_size, n + 1))
    counts = [filled(draft_token_ids, (batch_size,), 0, "int32") if c is None else c
              for c in (maybe_output_accepted_token_num, maybe_output_emitted_draft_token_num)]  # fmt: skip
    seed, offset, seed_arr, offset_arr = _random(target_probs, batch_size * (n + 1), generator, seed, offset)
    lib.chain_speculative_sampling(
        arg(cast(draft_probs, "float32")), arg(draft_token_ids), arg(cast(target_probs, "float32")), arg(out),
        out_arg(counts[0], "accepted"), out_arg(counts[1], "emitted"), None, seed, offset, seed_arr, offset_arr,
    )  # fmt: skip
    return out, counts[0], counts[1]
