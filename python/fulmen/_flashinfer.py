# SPDX-License-Identifier: Apache-2.0
"""`import flashinfer` served by this package: for programs that are written for FlashInfer."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, Sequence

ALIAS = "flashinfer"
PACKAGE = __name__.rsplit(".", 1)[0]


class _Finder:
    """Maps flashinfer and flashinfer.x to the modules fulmen and fulmen.x themselves, so that state is shared."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        if fullname != ALIAS and not fullname.startswith(ALIAS + "."):
            return None
        try:
            module = importlib.import_module(PACKAGE + fullname[len(ALIAS) :])
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith(PACKAGE):
                raise
            return None
        from importlib import machinery

        is_package = hasattr(module, "__path__")
        return machinery.ModuleSpec(fullname, self, origin=module.__file__, is_package=is_package)

    def create_module(self, spec: Any) -> ModuleType:
        self._own_spec = importlib.import_module(PACKAGE + spec.name[len(ALIAS) :]).__spec__
        return importlib.import_module(PACKAGE + spec.name[len(ALIAS) :])

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own_spec  # the import machinery put flashinfer's there


def install_as_flashinfer() -> None:
    """Makes `import flashinfer` and `import flashinfer.x` give this package, in this process.

    Call it before anything imports flashinfer. RuntimeError when another flashinfer is loaded already. A module that
    this package does not have raises ModuleNotFoundError. Calling it again changes nothing.
    """
    loaded = sys.modules.get(ALIAS)
    if loaded is not None and loaded is not sys.modules[PACKAGE]:
        raise RuntimeError(f"{ALIAS} is loaded already from {getattr(loaded, '__file__', '?')}; call this earlier")
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
