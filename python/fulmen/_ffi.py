# SPDX-License-Identifier: Apache-2.0
"""The compiled library, loaded at the first call: `lib.rmsnorm(...)` is the module's function of that name.

Loading late keeps `import fulmen` free of tvm_ffi, which itself imports PyTorch where that is installed. The functions
and their arguments are listed in docs/ffi.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from typing import Any, Callable, Iterator

# Subclasses of torch.Tensor that were met (FakeTensor, DTensor, ...): calls with them go through PyTorch's dispatcher.
dispatched_types: set[type] = set()


def is_compiling() -> bool:
    """Whether PyTorch is tracing the caller (torch.compile, torch.export)."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()


def is_recording() -> bool:
    """Whether PyTorch traces the caller, or records what it does (make_fx, torch.jit.trace)."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0 or torch._C._is_tracing()


def _operator(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, or its twin in torch.ops.fulmen while PyTorch traces or for tensors of a kind of their own."""
    torch = sys.modules["torch"]
    compiling = torch.compiler.is_dynamo_compiling  # torch.export without Dynamo has fake tensors
    num_modes, is_tracing = torch._C._len_torch_dispatch_stack, torch._C._is_tracing  # make_fx; torch.jit.trace

    def call(*args: Any) -> Any:
        try:
            if (
                compiling()
                or num_modes()
                or is_tracing()
                or (dispatched_types and not dispatched_types.isdisjoint(map(type, args)))
            ):
                from ._torch import call_traced, is_registered

                if compiling() or is_registered(name):  # others, of plans and settings, take no part in a recording
                    return call_traced(name, *args)
            return function(*args)
        except (RuntimeError, ValueError, TypeError) as error:
            from ._explain import refused

            better = refused(name, lib.arguments_of(name), args, error)
            if better is error:
                raise
            raise better from error

    return call


def library_path() -> str:
    """libfulmen_ffi.so: FULMEN_FFI_LIBRARY, else the one inside this package."""
    given = os.environ.get("FULMEN_FFI_LIBRARY")
    return given or os.path.join(os.path.dirname(os.path.realpath(__file__)), "_lib", "libfulmen_ffi.so")


def _nvrtc_folders() -> list[str]:
    """Where `pip install nvidia-cuda-nvrtc` and PyTorch's wheels put NVRTC, in any folder of sys.path."""
    import importlib.util

    spec = importlib.util.find_spec("nvidia")
    roots = [] if spec is None or spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    folders = [os.path.join(root, *sub) for root in roots for sub in (("cu13", "lib"), ("cuda_nvrtc", "lib"))]
    return [folder for folder in folders if os.path.isdir(folder)]


@contextlib.contextmanager
def without_torch() -> Iterator[None]:
    """Inside, importing tvm_ffi does not import PyTorch, which takes seconds. For programs that meet no tensor: who
    has imported PyTorch already keeps it.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # "import torch" raises ImportError
    try:
        yield
    finally:
        del sys.modules["torch"]


class Library:
    """Functions of the FFI module as attributes; each is looked up once."""

    def __init__(self) -> None:
        self._module: Any = None
        self._lock = threading.Lock()

    def _load(self) -> Any:
        with self._lock:
            if self._module is None:
                import tvm_ffi

                path = library_path()
                if not os.path.exists(path):
                    raise ImportError(
                        f"fulmen: {path} does not exist; install the package, or point FULMEN_FFI_LIBRARY at the "
                        "libfulmen_ffi.so of a build with FULMEN_BUILD_FFI=ON"
                    )
                # An error kind that tvm_ffi does not know would arrive as RuntimeError.
                tvm_ffi.register_error("NotImplementedError", NotImplementedError)
                tvm_ffi.register_error("MemoryError", MemoryError)
                module = tvm_ffi.load_module(path)
                for folder in _nvrtc_folders():
                    module.get_function("add_library_folder")(folder)
                self._module = module
        return self._module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        if is_compiling():
            from ._torch import traced

            return traced(name)
        function = self.function(name)
        # Importing tvm_ffi imported PyTorch where that is installed: elsewhere nobody pays for it.
        if sys.modules.get("torch") is not None:
            function = _operator(name, function)
        setattr(self, name, function)
        return function

    def arguments_of(self, name: str) -> list[str]:
        """The names of a function's arguments."""
        listed = json.loads(self.function("list_functions")())
        return next((f["arguments"].split(", ") for f in listed if f["name"] == name), [])

    def function(self, name: str) -> Callable[..., Any]:
        """The module's function itself."""
        return self._load().get_function(name)


lib = Library()
