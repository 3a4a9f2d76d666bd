# SPDX-License-Identifier: Apache-2.0
"""The compiled library, loaded at the first call: `lib.rmsnorm(...)` is the module's function of that name.

Loading late keeps `import fulmen` free of tvm_ffi, which itself imports PyTorch where that is installed. The functions
and their arguments are listed in docs/ffi.md.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Callable


def library_path() -> str:
    """libfulmen_ffi.so: FULMEN_FFI_LIBRARY, else the one inside this package."""
    given = os.environ.get("FULMEN_FFI_LIBRARY")
    return given or os.path.join(os.path.dirname(os.path.realpath(__file__)), "_lib", "libfulmen_ffi.so")


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
                self._module = tvm_ffi.load_module(path)
        return self._module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        function = self._load().get_function(name)
        setattr(self, name, function)
        return function


lib = Library()
