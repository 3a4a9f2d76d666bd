# SPDX-License-Identifier: Apache-2.0
"""PyTorch beyond eager calls: torch.compile, torch.library's own checks, streams and CUDA graphs.

Eager results on CPU tensors are the reference here; test_norm, test_elementwise and the others hold those to float64.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import pytest
from conftest import EPS, Torch, TorchCuda, dtype_name, needs_cuda, why_unserved
from torch_cases import CASES, Make

import fulmen
from fulmen._ffi import lib

torch = pytest.importorskip("torch")

DEVICES = pytest.mark.parametrize(
    "xp", [Torch(), pytest.param(TorchCuda(), marks=needs_cuda)], ids=["torch", "torch_cuda"]
)
NAMES = pytest.mark.parametrize("name", CASES)


def as_tuple(result):
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def copied(args):
    return [x.clone() if isinstance(x, torch.Tensor) else x for x in args]


def same_bits(got, expected):
    got, expected = as_tuple(got), as_tuple(expected)
    assert len(got) == len(expected)
    for g, e in zip(got, expected):
        assert g.dtype == e.dtype and g.shape == e.shape and g.device == e.device
        raw = [x.contiguous().view(torch.uint8) if x.is_floating_point() else x for x in (g, e)]
        assert torch.equal(*raw), (g.double() - e.double()).abs().max()


@needs_cuda
@NAMES
def test_cuda_agrees_with_the_cpu(name, request):
    function, args = CASES[name](Make(Torch()))
    cuda_function, cuda_args = CASES[name](Make(TorchCuda()))
    expected = as_tuple(function(*args))
    with skips_without_kernel():
        got = as_tuple(cuda_function(*cuda_args))
    assert all(g.is_cuda for g in got)
    for g, e in zip(got, expected):
        assert g.shape == e.shape and g.dtype == e.dtype
        unit = 2 * EPS.get(dtype_name(e), 0) if e.dtype != torch.float32 else 1e-4
        g, e = g.double().cpu(), e.double()
        small = 0.3 if "prefill" in name or "decode" in name else 0.1  # weights are rounded, and sums of them cancel
        good = (g == e) | ((g - e).abs() <= unit * e.abs().clamp(min=small))  # -inf equals itself
        assert good.all(), (g - e)[~good].abs().max()


@contextlib.contextmanager
def skips_without_kernel():
    try:
        yield
    except NotImplementedError as error:
        if not why_unserved(error):
            raise
        pytest.skip(why_unserved(error))


@DEVICES
@NAMES
def test_compiles_to_one_graph(xp, name):
    function, args = CASES[name](Make(xp))
    expected = function(*copied(args))
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    same_bits(compiled(*copied(args)), expected)


@DEVICES
def test_compiles_with_inductor_and_dynamic_shapes(xp):
    def layer(x, residual, weight):
        fulmen.fused_add_rmsnorm(x, residual, weight)
        return fulmen.silu_and_mul(x * 2) + 1, residual

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    make = Make(xp)
    weight = torch.nn.Parameter(make.normal((64,), "float32"))
    for tokens in (3, 5, 8):
        x, residual = make.normal((tokens, 64), "float32"), make.normal((tokens, 64), "float32")
        for got, expected in zip(compiled(x.clone(), residual.clone(), weight), layer(x, residual, weight)):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def calls_of(name, xp):
    """(operator, arguments) of what a case calls, each tensor with memory of its own."""
    seen, functions = [], dict(vars(lib))

    def recorder(op, function):
        def call(*args):
            seen.append((op, args))
            return function(*args)

        return call

    function, args = CASES[name](Make(xp))
    function(*copied(args))  # every operator that it uses is an attribute of lib from now on
    functions = {op: f for op, f in vars(lib).items() if not op.startswith("_")}
    try:
        for op, f in functions.items():
            setattr(lib, op, recorder(op, f))
        function(*copied(args))
    finally:
        for op, f in functions.items():
            setattr(lib, op, f)
    return [(op, tuple(copied(given))) for op, given in seen]


ALL_CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


@DEVICES
@NAMES
def test_opcheck(xp, name):
    calls = calls_of(name, xp)
    assert calls
    import fulmen._torch  # noqa: F401  registers torch.ops.fulmen

    for op, args in calls:
        if not hasattr(torch.ops.fulmen, op):  # of a plan, which is an object; its operator holds a number instead
            continue
        checks = list(ALL_CHECKS)
        if any(isinstance(x, torch.Tensor) and "float8" in str(x.dtype) for x in args):
            checks.remove("test_schema")  # compares tensors with arithmetic that PyTorch has not for FP8
        torch.library.opcheck(getattr(torch.ops.fulmen, op).default, args, test_utils=checks)


def test_registration_covers_every_function_of_tensors():
    import fulmen._torch  # noqa: F401

    names = {f["name"] for f in json.loads(lib.list_functions())
             if any(t.startswith("Tensor") for t in f["types"]) and "object" not in f["types"]}  # fmt: skip
    assert {"rmsnorm", "rope", "sample", "merge_state"} <= names
    for name in names:
        assert hasattr(torch.ops.fulmen, name), name


def test_first_call_may_be_inside_a_compiled_function():
    code = """
import fulmen, torch
f = torch.compile(lambda x, w: fulmen.rmsnorm(x, w), fullgraph=True, backend="aot_eager")
x, w = torch.randn(3, 64), torch.nn.Parameter(torch.ones(64))
first = f(x, w)
assert torch.equal(first, fulmen.rmsnorm(x, w)) and not first.requires_grad
assert torch.equal(f(x, w), first)
print("ok")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=400, check=False)
    assert done.stdout.strip() == "ok", done.stderr


def test_fake_tensors_go_through_the_dispatcher():
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        x, w = torch.empty(3, 64), torch.empty(64)
        assert tuple(fulmen.rmsnorm(x, w).shape) == (3, 64)


def test_recording_modes_record_the_operator():
    from torch.fx.experimental.proxy_tensor import make_fx

    w, x, y = torch.ones(64), torch.randn(3, 64), torch.randn(3, 64)
    for record in (lambda f: make_fx(f)(x), lambda f: torch.jit.trace(f, x)):
        graph = record(lambda a: fulmen.rmsnorm(a, w) * 2)
        assert torch.equal(graph(y), fulmen.rmsnorm(y, w) * 2)
    wrapper = fulmen.BatchPrefillWithRaggedKVCacheWrapper(None)
    wrapper.plan(*[torch.tensor([0, 3], dtype=torch.int32)] * 2, 1, 1, 64, q_data_type="float32")
    graph = make_fx(lambda q: wrapper.run(q, q, q))(x[:, None])
    assert torch.equal(graph(y[:, None]), wrapper.run(*[y[:, None]] * 3))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda x: x.to("meta"), "rmsnorm: input is on device meta"),
        (lambda x: x.to_sparse(), "rmsnorm: input has layout sparse_coo"),
        (lambda x: x.to(torch.complex64), "rmsnorm: input dtype is complex64, which no operator knows"),
        (lambda x: x[(None,) * 6], "rmsnorm: input rank is 8, expected at most 6"),
    ],
)
def test_tensors_without_memory_are_refused_by_name(make, text):
    with pytest.raises(ValueError, match=text):
        fulmen.rmsnorm(make(torch.ones(3, 64)), torch.ones(64))


def test_transforms_of_torch_func_are_refused_by_name():
    with pytest.raises(ValueError, match="rmsnorm: input is a wrapper"):
        torch.vmap(lambda a: fulmen.rmsnorm(a, torch.ones(64)))(torch.ones(2, 3, 64))


@needs_cuda
@NAMES
def test_cuda_graph_replays_with_changed_inputs(name):
    function, args = CASES[name](Make(TorchCuda()))
    static = copied(args)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with skips_without_kernel(), torch.cuda.stream(side):
        function(*copied(args))  # compiles and loads
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(*static)
    for seed in (1, 2, 3):
        _, changed = CASES[name](Make(TorchCuda(), seed))
        for to, value in zip(static, changed):
            to.copy_(value)
        graph.replay()
        same_bits(result, function(*copied(changed)))


def sampled(probs, seed, offset):
    return fulmen.top_k_top_p_sampling_from_probs(probs, 40, 0.95, seed=seed, offset=offset)


@needs_cuda
@pytest.mark.parametrize("num_seeds", [1, 6])
def test_graph_replay_advances_with_seeds_and_offsets_on_the_device(num_seeds):
    """Replays draw what eager calls with the tensors' numbers draw, and new numbers give new tokens."""
    probs = torch.softmax(torch.randn(6, 5000, device="cuda"), -1)
    seed = torch.arange(num_seeds, device="cuda")
    offset = torch.zeros(num_seeds, dtype=torch.int64, device="cuda")
    with skips_without_kernel():
        first = sampled(probs, seed, offset)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        tokens = sampled(probs, seed, offset)
        offset += 1  # the graph itself says where the next replay draws
    seen = []
    for step in range(5):
        graph.replay()
        assert (tokens == sampled(probs, seed, torch.full_like(offset, step))).all()
        seen.append(tokens.cpu())
    assert (seen[0] == first.cpu()).all()
    assert all((a != b).any() for a, b in zip(seen, seen[1:]))
    seed += 100
    offset.zero_()
    graph.replay()
    assert (tokens.cpu() != seen[0]).any()
    assert (tokens == sampled(probs, seed, torch.zeros_like(offset))).all()


@needs_cuda
@NAMES
def test_calls_do_not_wait_for_the_gpu(name):
    function, args = CASES[name](Make(TorchCuda()))
    with skips_without_kernel():
        function(*copied(args))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        function(*copied(args))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
def test_runs_on_the_current_stream():
    x, w = torch.randn(4096, 4096, device="cuda"), torch.ones(4096, device="cuda")
    expected = fulmen.rmsnorm(x * 3 + 1, w)
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(20_000_000)  # the input is late: another stream would read it too early
        y = x * 3 + 1
        got = fulmen.rmsnorm(y, w)
    assert not side.query()
    side.synchronize()
    assert torch.equal(got, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_runs_on_the_device_of_its_tensors():
    with torch.cuda.device(0):
        x, w = torch.randn(4, 64, device="cuda:1"), torch.ones(64, device="cuda:1")
        got = fulmen.rmsnorm(x, w)
        assert got.device == x.device and torch.cuda.current_device() == 0
        torch.testing.assert_close(got.cpu(), fulmen.rmsnorm(x.cpu(), w.cpu()))


@needs_cuda
def test_devices_may_not_be_mixed():
    with pytest.raises(ValueError, match="device"):
        fulmen.rmsnorm(torch.randn(4, 64, device="cuda"), torch.ones(64))


@pytest.mark.parametrize("kv_layout", ["NHD", "HND"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_cache_of_one_array_is_its_two_halves(kv_layout, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    torch.manual_seed(1)
    inner = (16, 2) if kv_layout == "NHD" else (2, 16)
    whole = torch.randn(9, 3, 2, *inner, 80, device=device).half()[:, 1, :, :, :, :64]  # strides of its own
    table = [torch.tensor(x, dtype=torch.int32, device=device) for x in ([0, 2, 3, 5], [8, 0, 3, 7, 1], [5, 16, 1])]
    q = torch.randn(3, 8, 64, device=device).half()
    qo_indptr = torch.arange(4, dtype=torch.int32, device=device)
    decode = fulmen.BatchDecodeWithPagedKVCacheWrapper(None, kv_layout)
    decode.plan(*table, 8, 2, 64, 16, q_data_type=torch.float16)
    prefill = fulmen.BatchPrefillWithPagedKVCacheWrapper(None, kv_layout)
    prefill.plan(qo_indptr, *table, 8, 2, 64, 16, q_data_type=torch.float16)
    for wrapper in (decode, prefill):
        want = wrapper.run(q, (whole[:, 0], whole[:, 1]))
        assert torch.equal(wrapper.run(q, whole), want)
        assert torch.equal(wrapper.run(q, torch.nn.Parameter(whole, requires_grad=False)), want)
        with pytest.raises(ValueError, match="expected"):
            wrapper.run(q, whole[:, :1])


def test_arguments_of_another_kind_are_named():
    """PyTorch's tensors where numbers are expected, and the other way round."""
    x = torch.ones(3, 64)
    for text, call in {
        r"rmsnorm: eps is float32\[\], expected a number": lambda: fulmen.rmsnorm(x, x[0], torch.tensor(1e-6)),
        "rmsnorm: weight is None, expected an array": lambda: fulmen.rmsnorm(x, None),
        "rmsnorm: eps is 'a', expected a number": lambda: fulmen.rmsnorm(x, x[0], "a"),
    }.items():
        with pytest.raises(TypeError, match=text):
            call()
