# SPDX-License-Identifier: Apache-2.0
"""Arrays of each framework for tests, and comparison with float64.

`xp` runs a test on NumPy always, on PyTorch where it can be imported, and on PyTorch's CUDA tensors where there is a
GPU; a call there that no kernel serves skips the test with the refusals. `xp.array(values, "bfloat16")` makes an array
of float64 values rounded to a dtype; `f64(x)` reads any of them back. Oracles are NumPy in float64, from the formula.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

ml_dtypes = pytest.importorskip("ml_dtypes")

try:
    import torch
except ImportError:
    torch = None

NUMPY_DTYPES = {
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}
EPS = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7, "float8_e4m3fn": 2.0**-3, "float8_e5m2": 2.0**-2}
FLOATS = ("float32", "float16", "bfloat16")


def numpy_dtype(name: str) -> np.dtype:
    return np.dtype(NUMPY_DTYPES.get(name, name))


class NumPy:
    name = "numpy"

    def array(self, values: Any, dtype: str) -> np.ndarray:
        return np.array(np.asarray(values).astype(numpy_dtype(dtype)))

    def empty(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return np.full(shape, 0, numpy_dtype(dtype))

    def owns(self, x: Any) -> bool:
        return isinstance(x, np.ndarray)


class Torch:
    name = "torch"

    def array(self, values: Any, dtype: str) -> Any:
        rounded = np.asarray(values).astype(numpy_dtype(dtype))
        if dtype in NUMPY_DTYPES:
            raw = torch.from_numpy(rounded.view(f"uint{rounded.dtype.itemsize * 8}").copy())
            return raw.view(getattr(torch, dtype))
        return torch.from_numpy(rounded.copy())

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return torch.zeros(shape, dtype=getattr(torch, dtype))

    def owns(self, x: Any) -> bool:
        return isinstance(x, torch.Tensor)


class TorchCuda(Torch):
    name = "torch_cuda"

    def array(self, values: Any, dtype: str) -> Any:
        return super().array(values, dtype).cuda()

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return super().empty(shape, dtype).cuda()

    def owns(self, x: Any) -> bool:
        return isinstance(x, torch.Tensor) and x.is_cuda


needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
needs_cuda = pytest.mark.skipif(
    torch is None or not torch.cuda.is_available(), reason="PyTorch finds no CUDA device"
)
FRAMEWORKS = [NumPy(), pytest.param(Torch(), marks=needs_torch), pytest.param(TorchCuda(), marks=needs_cuda)]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """A CUDA test of an op that has no kernel there is skipped and says why."""
    outcome = yield
    framework = getattr(item, "callspec", None) and item.callspec.params.get("xp")
    if isinstance(framework, TorchCuda) and outcome.excinfo is not None:
        reason = why_unserved(outcome.excinfo[1])
        if reason:
            outcome.force_exception(pytest.skip.Exception(reason))


def why_unserved(error: BaseException) -> str:
    """The refusals behind an error of a call on CUDA tensors; empty where the error means something else."""
    if isinstance(error, NotImplementedError) and "no kernel serves this call" in str(error):
        return str(error).replace("\n", ";")
    if isinstance(error, ValueError) and "is on another device than" in str(error):
        # Without CUDA kernels attention plans for the CPU: its tables lie there, and q does not.
        from fulmen._ffi import lib

        return str(lib.why_not("batch_attention", 2, 0)).replace("\n", ";")
    return ""


@pytest.fixture(params=FRAMEWORKS, ids=["numpy", "torch", "torch_cuda"])
def xp(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def dtype_name(x: Any) -> str:
    return str(x.dtype).rsplit(".", 1)[-1]


def f64(x: Any) -> np.ndarray:
    """Values of an array of any framework as float64."""
    if torch is not None and isinstance(x, torch.Tensor):
        return x.to(torch.float64).cpu().numpy()
    return np.asarray(x).astype(np.float64)


def assert_near(got: Any, expected: np.ndarray, ulps: float = 2.0, scale: float | None = None) -> None:
    """Within ulps of got's dtype, of the element or of `scale` where that is larger (sums that cancel)."""
    eps = EPS[dtype_name(got)]
    values = f64(got)
    assert values.shape == expected.shape
    room = (
        ulps * eps * np.maximum(np.abs(expected), (np.abs(expected).max(initial=0) * 1e-2 if scale is None else scale))
    )
    with np.errstate(invalid="ignore"):
        distance = np.abs(values - expected)
    same = (values == expected) | (np.isnan(values) & np.isnan(expected))
    bad = ~(distance <= room + 1e-30) & ~same
    assert not bad.any(), f"{bad.sum()} of {bad.size} differ; worst {np.nanmax(distance):.3g}"
