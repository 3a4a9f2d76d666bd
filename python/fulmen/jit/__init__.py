# SPDX-License-Identifier: Apache-2.0
"""Attention variants of the caller's, as C++ text in FlashInfer's form, and FlashInfer's factories of modules.

    names = ["sink"], ["float"], ["sm_scale"], ["double"]
    jit_args = ["my_sink", *three_dtypes, torch.int32, 128, 128, *names, "MySink", text]
    wrapper = BatchPrefillWithPagedKVCacheWrapper(workspace, backend="fa2", jit_args=jit_args)
    wrapper.run(q, kv_cache, sink, sm_scale)

A variant is compiled at its first run for the device of its tensors, by NVRTC for a GPU, by the host's C++ compiler
(FULMEN_CXX, CXX, c++, g++ or clang++) for the CPU; the cache of `fulmen jit list` keeps it.
All other factories give modules without work to do: kernels are compiled at their first call, or come from a pack.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

from .._arrays import Array, arg, dtype_of, out_arg
from .._ffi import lib


class Variant:
    """A variant's text with the names of what it gets besides q, k and v; compiled at its first run."""

    def __init__(
        self, uri: str, name: str, text: str, tensors: Sequence[tuple[str, str]], scalars: Sequence[tuple[str, str]]
    ) -> None:
        self.uri, self.name, self.text = uri, name, text
        self._tensors, self._scalars = list(tensors), list(scalars)
        self._native: Any = None

    @property
    def num_extras(self) -> int:
        """Tensors and scalars that a run takes besides q, k and v."""
        return len(self._tensors) + len(self._scalars)

    def _native_args(self, extras: Sequence[Any]) -> list[Any]:
        expected = [name for name, _ in (*self._tensors, *self._scalars)]
        if len(extras) != len(expected):
            raise TypeError(f"{self.uri}: {len(extras)} extra arguments, expected {', '.join(expected) or 'none'}")
        tensors, scalars = extras[: len(self._tensors)], extras[len(self._tensors) :]
        for (name, _), x in zip(self._tensors, tensors):
            if x is None and not name.startswith("maybe"):
                raise TypeError(f"{self.uri}: {name} is None")
            if x is not None and not hasattr(x, "__dlpack__"):
                raise TypeError(f"{self.uri}: {name} is a {type(x).__name__}, expected an array")
        return [None if x is None else arg(x) for x in tensors] + [
            self._number(name, x) for (name, _), x in zip(self._scalars, scalars)
        ]

    def _number(self, name: str, x: Any) -> float:
        try:
            return float(x)
        except (TypeError, ValueError):
            raise TypeError(f"{self.uri}: {name} is {str(x)[:40]!r}, expected a number") from None

    def run(
        self, plan: Any, q: Array, k: Array, v: Array, out: Array, lse: Array | None, workspace: Any, extras: Any
    ) -> None:
        """Runs a plan of the library's with this variant."""
        native, *filled = self.native(extras)
        lib.attention_run_variant(
            plan, native, arg(q), arg(k), arg(v), out_arg(out), None if lse is None else out_arg(lse, "lse"),
            workspace, *filled,
        )  # fmt: skip

    def native(self, extras: Sequence[Any]) -> list[Any]:
        """The library's variant, and what it gets besides q, k and v."""
        filled = self._native_args(extras)
        if self._native is None:
            lists = [", ".join(f"{n} {t}" for n, t in items) for items in (self._tensors, self._scalars)]
            self._native = lib.flashinfer_variant(self.name, self.text, *lists)
        return [self._native, *filled]

    def run_single(
        self, entry: str, q: Array, k: Array, v: Array, shape: tuple[int, ...], extras: Any, kv_layout: str,
        causal: bool, window_left: int, return_lse: bool,
    ) -> Array | tuple[Array, Array]:  # fmt: skip
        """One request over contiguous keys."""
        from .. import _attention as core

        out, lse = core.outputs(q, shape, core.output_dtype(dtype_of(q)), None, None, return_lse)
        plan = lib.attention_plan(
            entry, arg(q), arg(k), arg(v), *[None] * 6, out_arg(out), *[None] * 6,
            *core.options(kv_layout, causal, window_left, None, None),
        )  # fmt: skip
        self.run(plan, q, k, v, out, lse, None, extras)
        return (out, lse) if return_lse else out


class JitSpec:
    """What FlashInfer's factories return."""

    def __init__(self, name: str, module: Any = None) -> None:
        self.name, self._module = name, module

    @property
    def is_compiled(self) -> bool:
        """True: nothing is to be built before the first call."""
        return True

    def build(self, verbose: bool = False, need_lock: bool = True) -> None:
        """Does nothing: compiling happens at the first call."""

    def load(self, *args: Any) -> Any:
        """The module: of a customised spec the variant."""
        return self._module

    def build_and_load(self, *args: Any) -> Any:
        """load."""
        return self._module


def build_jit_specs(specs: Sequence[JitSpec], verbose: bool = False, skip_prebuilt: bool = True) -> None:
    """Does nothing: compiling happens at the first call."""


def _words(uri: str, **lists: Any) -> list[Sequence[str]]:
    """The lists; raises TypeError unless each holds strings, ValueError where names and types differ in number."""
    for name, words in lists.items():
        if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
            raise TypeError(f"{uri}: {name} is {words!r}, expected a list of strings")
    (name, names), (other, types) = lists.items()
    if len(names) != len(types):
        raise ValueError(f"{uri}: {name} has {len(names)} entries, {other} has {len(types)}")
    return [names, types]


def _spec(
    uri: str, tensor_names: Any, tensor_dtypes: Any, scalar_names: Any, scalar_dtypes: Any, variant_name: Any,
    variant_decl: Any, options: dict[str, Any],
) -> JitSpec:  # fmt: skip
    """options: what FlashInfer compiles into a kernel. Those that change a result must be off."""
    for name, value in options.items():
        if name.startswith("pos_encoding_mode") and value != 0:
            raise NotImplementedError(f"{uri}: {name}={value!r} is not implemented for variants; leave it at 0")
    for name, text in (("variant_name", variant_name), ("variant_decl", variant_decl)):
        if not isinstance(text, str):
            raise TypeError(f"{uri}: {name} is a {type(text).__name__}, expected a string")
    tensors = _words(uri, additional_tensor_names=tensor_names, additional_tensor_dtypes=tensor_dtypes)
    scalars = _words(uri, additional_scalar_names=scalar_names, additional_scalar_dtypes=scalar_dtypes)
    return JitSpec(uri, Variant(uri, variant_name, variant_decl, list(zip(*tensors)), list(zip(*scalars))))


# dtypes, head dims and most options are the call's own; FlashInfer compiles them in.


def gen_customize_single_decode_module(
    uri: str, dtype_q: Any, dtype_kv: Any, dtype_o: Any, head_dim_qk: int, head_dim_vo: int,
    additional_tensor_names: Sequence[str], additional_tensor_dtypes: Sequence[str],
    additional_scalar_names: Sequence[str], additional_scalar_dtypes: Sequence[str], variant_name: str,
    variant_decl: str, pos_encoding_mode: int = 0, use_sliding_window: bool = False, use_logits_soft_cap: bool = False,
    use_fp16_qk_reduction: bool = False, fp8_enabled: bool = False,
) -> JitSpec:  # fmt: skip
    """Names and C++ types of extra tensors, the same of scalars, name and text of the variant."""
    return _spec(
        uri, additional_tensor_names, additional_tensor_dtypes, additional_scalar_names, additional_scalar_dtypes,
        variant_name, variant_decl, {"pos_encoding_mode": pos_encoding_mode},
    )  # fmt: skip


def gen_customize_single_prefill_module(backend: str, *args: Any, **kwargs: Any) -> JitSpec:
    """As gen_customize_single_decode_module. backend: the one that the text is written for, fa2 or fa3."""
    return _written_for(backend, gen_customize_single_decode_module(*args, **kwargs))


def gen_customize_batch_decode_module(
    uri: str, dtype_q: Any, dtype_kv: Any, dtype_o: Any, idtype: Any, *args: Any, **kwargs: Any
) -> JitSpec:
    """As gen_customize_single_decode_module, with the dtype of indices before the head dims."""
    return gen_customize_single_decode_module(uri, dtype_q, dtype_kv, dtype_o, *args, **kwargs)


def gen_customize_batch_prefill_module(backend: str, *args: Any, **kwargs: Any) -> JitSpec:
    """As gen_customize_batch_decode_module, with a backend."""
    return _written_for(backend, gen_customize_batch_decode_module(*args, **kwargs))


def gen_customize_batch_attention_module(*args: Any, use_profiler: bool = False, **kwargs: Any) -> JitSpec:
    """As gen_customize_batch_decode_module."""
    return gen_customize_batch_decode_module(*args, **kwargs)


def gen_customize_pod_module(
    uri: str, dtype_q: Any, dtype_kv: Any, dtype_o: Any, dtype_idx: Any, head_dim: int,
    additional_tensor_names: Sequence[str], additional_tensor_dtypes: Sequence[str],
    additional_scalar_names: Sequence[str], additional_scalar_dtypes: Sequence[str], variant_name_p: str,
    variant_name_d: str, variant_decl: str, pos_encoding_mode_p: int = 0, use_sliding_window_p: bool = False,
    use_logits_soft_cap_p: bool = False, pos_encoding_mode_d: int = 0, use_sliding_window_d: bool = False,
    use_logits_soft_cap_d: bool = False, use_fp16_qk_reduction: bool = False,
) -> JitSpec:  # fmt: skip
    """Two variants of one text, for the prefill and for the decodes; the module is the pair."""
    extras = (additional_tensor_names, additional_tensor_dtypes, additional_scalar_names, additional_scalar_dtypes)
    options = {"pos_encoding_mode_p": pos_encoding_mode_p, "pos_encoding_mode_d": pos_encoding_mode_d}
    pair = [
        _spec(f"{uri}_{name}", *extras, name, variant_decl, options).load() for name in (variant_name_p, variant_name_d)
    ]
    return JitSpec(uri, tuple(pair))


gen_customize_batch_pod_module = gen_customize_pod_module


def _written_for(backend: str, spec: JitSpec) -> JitSpec:
    if backend == "auto":
        raise ValueError("backend should not be auto when jit_args is provided")
    text = spec.load().text
    if backend == "fa3" and not any(updater + "<" in text for updater in ("OnlineSoftmax", "DefaultUpdater")):
        raise NotImplementedError(
            "a variant for backend 'fa3' whose GetAttentionUpdater returns neither OnlineSoftmax nor DefaultUpdater: "
            "an updater of its own has no place here; write the variant for fa2, with REGISTER_M_D_UPDATE"
        )
    if backend not in ("fa2", "fa3"):
        raise NotImplementedError(f"variants for backend {backend!r} have another form; write them for fa2 or fa3")
    return spec


def __getattr__(name: str) -> Callable[..., JitSpec]:
    """FlashInfer's other factories, gen_*_module: what they would build is compiled at its first call here."""
    if not (name.startswith("gen_") and name.endswith("_module")):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def factory(*args: Any, **kwargs: Any) -> JitSpec:
        return JitSpec(name)

    factory.__name__ = name
    return factory
