# SPDX-License-Identifier: Apache-2.0
"""Importing, naming, describing: what holds before any operator runs."""

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fulmen
from fulmen._ffi import lib

ROOT = Path(__file__).resolve().parents[2]


def python(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_takes_less_than_100_ms_beyond_numpy():
    # CPU time, so that a busy machine changes little, and NumPy's own where that takes longer, on a slow machine; the
    # first run also writes the bytecode.
    code = "from time import process_time as t; a = t(); import numpy; b = t(); import fulmen; print(b - a, t() - b)"
    numpy_seconds, seconds = (min(times) for times in zip(*(map(float, python(code).split()) for _ in range(5))))
    assert seconds < max(0.1, numpy_seconds)


def test_import_loads_neither_torch_nor_the_library():
    loaded = python(
        "import sys, fulmen; print([m for m in sys.modules if m.split('.')[0] in ('torch', 'tvm_ffi', 'ml_dtypes')])"
    )
    assert loaded == "[]"


def test_works_without_torch_and_ml_dtypes():
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['ml_dtypes'] = None\n"
        "import numpy as np, fulmen\n"
        "x = np.ones((2, 8), np.float32)\n"
        "print(fulmen.rmsnorm(x, x[0]).sum().round())\n"
        "w = fulmen.BatchPrefillWithRaggedKVCacheWrapper(None)\n"
        "w.plan(np.array([0, 2]), np.array([0, 2]), 1, 1, 8, q_data_type='bfloat16')\n"
    )
    assert python(code) == "16.0"


def test_install_as_flashinfer():
    code = """
import fulmen
fulmen.install_as_flashinfer()
fulmen.install_as_flashinfer()
import flashinfer, flashinfer.norm, flashinfer.decode
from flashinfer.sampling import softmax
from flashinfer import BatchDecodeWithPagedKVCacheWrapper
from flashinfer.utils import PosEncodingMode
assert flashinfer is fulmen and flashinfer.norm is fulmen.norm and softmax is fulmen.softmax
assert BatchDecodeWithPagedKVCacheWrapper is fulmen.BatchDecodeWithPagedKVCacheWrapper
assert fulmen.norm.__spec__.name == 'fulmen.norm', fulmen.norm.__spec__
assert fulmen.__spec__.name == 'fulmen'
for name in ('flashinfer.comm', 'flashinfer.fused_moe'):
    try:
        __import__(name)
    except ModuleNotFoundError:
        pass
    else:
        raise SystemExit(name)
print(flashinfer.rmsnorm.__name__)
"""
    assert python(code) == "rmsnorm"


def test_install_as_flashinfer_refuses_to_replace_another():
    code = """
import sys, types
sys.modules['flashinfer'] = types.ModuleType('flashinfer')
import fulmen
try:
    fulmen.install_as_flashinfer()
except RuntimeError as error:
    print('loaded already' in str(error))
"""
    assert python(code) == "True"


def test_missing_library_is_a_clear_error(tmp_path):
    code = """
import numpy as np, fulmen
try:
    fulmen.rmsnorm(np.ones((1, 8), 'f4'), np.ones(8, 'f4'))
except ImportError as error:
    print(error)
"""
    assert "FULMEN_FFI_LIBRARY" in python(code, FULMEN_FFI_LIBRARY=str(tmp_path / "none.so"))


def test_versions_agree():
    assert str(lib.version()) == fulmen.__version__
    assert f"VERSION {fulmen.__version__} " in (ROOT / "CMakeLists.txt").read_text()


TOP_LEVEL = """
gelu_and_mul gelu_tanh_and_mul silu_and_mul BatchAttention BatchAttentionWithAttentionSinkWrapper
BatchDecodeWithSharedPrefixPagedKVCacheWrapper BatchPrefillWithSharedPrefixPagedKVCacheWrapper
MultiLevelCascadeAttentionWrapper merge_state merge_state_in_place merge_states BatchDecodeMlaWithPagedKVCacheWrapper
BatchDecodeWithPagedKVCacheWrapper CUDAGraphBatchDecodeWithPagedKVCacheWrapper fast_decode_plan
cudnn_batch_decode_with_kv_cache single_decode_with_kv_cache fused_add_rmsnorm layernorm gemma_fused_add_rmsnorm
gemma_rmsnorm rmsnorm append_paged_kv_cache append_paged_mla_kv_cache get_batch_indices_positions get_seq_lens
PODWithPagedKVCacheWrapper BatchPODWithPagedKVCacheWrapper BatchPrefillWithPagedKVCacheWrapper
BatchPrefillWithRaggedKVCacheWrapper single_prefill_with_kv_cache single_prefill_with_kv_cache_return_lse packbits
segment_packbits apply_rope apply_rope_inplace apply_rope_pos_ids apply_rope_pos_ids_inplace apply_llama31_rope
apply_llama31_rope_inplace apply_llama31_rope_pos_ids apply_llama31_rope_pos_ids_inplace apply_rope_with_cos_sin_cache
apply_rope_with_cos_sin_cache_inplace chain_speculative_sampling min_p_sampling_from_probs sampling_from_logits
sampling_from_probs softmax top_k_mask_logits top_k_renorm_probs top_k_sampling_from_probs
top_k_top_p_sampling_from_logits top_k_top_p_sampling_from_probs top_p_renorm_probs top_p_sampling_from_probs
BlockSparseAttentionWrapper VariableBlockSparseAttentionWrapper next_positive_power_of_2 __version__ __git_version__
""".split()


@pytest.mark.parametrize("name", TOP_LEVEL)
def test_top_level_names(name):
    assert hasattr(fulmen, name)


def test_names_that_are_not_there_say_so():
    with pytest.raises(AttributeError, match="mm_fp4"):
        fulmen.mm_fp4
    assert not hasattr(fulmen, "fused_moe")


def test_every_public_function_has_a_docstring():
    missing = [
        n for n in fulmen.__all__ if callable(getattr(fulmen, n)) and not (getattr(fulmen, n).__doc__ or "").strip()
    ]
    assert missing == []


def test_exports_match_their_documentation():
    """docs/ffi.md lists exactly what the module exports, with the arguments that it takes."""
    text = (ROOT / "docs" / "ffi.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+)\(([^)]*)\)` \|", text, re.M))
    functions = {f["name"]: f for f in json.loads(lib.list_functions())}
    assert {n: f["arguments"] for n, f in functions.items()} == documented
    for function in functions.values():
        names = [n for n in function["arguments"].split(", ") if n]
        assert len(names) == function["num_arguments"], function["name"]


def test_exported_symbols_are_the_listed_functions():
    import shutil

    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    from fulmen._ffi import library_path

    symbols = subprocess.run(["nm", "-D", "--defined-only", library_path()], capture_output=True, text=True, check=True)
    exported = set(re.findall(r"\bT __tvm_ffi_(\w+)$", symbols.stdout, re.M))
    assert exported == {f["name"] for f in json.loads(lib.list_functions())}


def test_schemas_and_kernels_cover_the_ops():
    schemas = {s["op"] for s in json.loads(lib.list_schemas())}
    assert {"rmsnorm", "rope", "sample", "batch_decode", "merge_state"} <= schemas
    kernels = json.loads(lib.list_kernels())
    assert any(k["op"] == "rmsnorm" and k["kernel"] == "cpu/scalar" and k["refusal"] == "" for k in kernels)


def test_threads_and_level():
    before = fulmen.get_num_threads()
    try:
        fulmen.set_num_threads(3)
        assert fulmen.get_num_threads() == 3
        x = np.ones((64, 64), np.float32)
        assert np.allclose(fulmen.rmsnorm(x, x[0]), 1)
        for bad in (0, -1, 10**6, 2**40):
            with pytest.raises(ValueError):
                fulmen.set_num_threads(bad)
    finally:
        fulmen.set_num_threads(before)
    assert fulmen.cpu_level() in ("scalar", "avx2", "avx512", "avx512_bf16", "amx_bf16")
    assert python("import fulmen; print(fulmen.cpu_level())", FULMEN_CPU_LEVEL="scalar") == "scalar"


def run_cli(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "fulmen", *args], capture_output=True, text=True, timeout=400, check=False
    )


def test_command_line():
    assert "show-config" in run_cli("--help").stdout and "why-not" in run_cli().stdout
    facts = json.loads(run_cli("show-config", "--json").stdout)
    assert facts["fulmen"] == fulmen.__version__ and "rmsnorm" in facts["kernels"]
    assert "rmsnorm" in run_cli("show-config").stdout
    assert run_cli("why-not", "rmsnorm").stdout.startswith("rmsnorm runs on cpu with cpu/")
    refused = run_cli("why-not", "rmsnorm", "--device", "cuda:99")
    assert refused.returncode == 1 and refused.stdout.startswith("rmsnorm does not run on cuda:99:\n  ")
    unknown = run_cli("why-not", "nonsense")
    assert unknown.returncode == 2 and "no op 'nonsense'" in unknown.stderr
    assert run_cli("why-not", "rmsnorm", "--device", "abacus").returncode == 2


@pytest.mark.parametrize(
    "call",
    [
        "rope q=bfloat16 head_dim=96 interleave=true",
        "rope q=float16 indptr=int32",
        "act_and_mul input=float16[4,100] activation=silu",
        "packbits x=uint8[100]",
        "packbits x=bool",
        "per_token_group_quant_fp8 input=bfloat16[3,512]",
        "per_token_group_quant_fp8 group_size=64 group_major_scales=true",
        "append_paged_kv_cache kv_indptr=int32[5]",
    ],
)
def test_command_line_why_not_makes_up_what_fits(call: str):
    done = run_cli("why-not", *call.split())
    assert done.returncode == 0 and "runs on cpu with cpu/" in done.stdout, done.stdout + done.stderr


def test_command_line_says_what_is_wrong_with_a_call():
    assert "eps is 'abc', expected a value of type float" in run_cli("why-not", "rmsnorm", "eps=abc").stderr
    assert "interleave is 'maybe', expected" in run_cli("why-not", "rope", "interleave=maybe").stderr
    assert "num_tokens is 'x', expected" in run_cli("why-not", "rmsnorm", "num_tokens=x").stderr


def test_command_line_ends_quietly_where_nobody_reads_on():
    python = shlex.quote(sys.executable)
    command = f"{python} -m fulmen show-config | true; {python} -m fulmen pack keys | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_command_line_without_a_library():
    environment = {**os.environ, "FULMEN_FFI_LIBRARY": "/no/such"}
    command = [sys.executable, "-m", "fulmen", "show-config"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("fulmen: /no/such does not exist"), done.stderr


def test_command_line_why_not_describes_a_call():
    served = run_cli("why-not", "rmsnorm", "--device", "cpu", "input=float16[3,100]", "eps=1e-5")
    assert served.stdout.startswith("rmsnorm runs on cpu with cpu/") and served.returncode == 0
    refused = run_cli("why-not", "rmsnorm", "input=float16[3,100]", "weight=int8")
    assert refused.returncode == 1 and "weight dtype is int8" in refused.stdout
    mismatch = run_cli("why-not", "rmsnorm", "input=float16[3,100]", "weight=float16[99]")
    assert "weight dim 0 (hidden_size) is 99, expected 100" in mismatch.stdout
    assert run_cli("why-not", "rope", "q=bfloat16", "pos_ids=int64", "head_dim=96").returncode == 0
    for bad in (["nonsense=3"], ["input"], ["input=float17"], ["input=float16[a]"], ["--nonsense"]):
        assert run_cli("why-not", "rmsnorm", *bad).returncode == 2, bad


def test_dry_runs_of_every_op_choose_a_kernel_and_run_nothing():
    from fulmen import _why_not

    for op in sorted({s["op"] for s in json.loads(lib.list_schemas())}):
        if _why_not.can_ask(op):
            kernel, why = _why_not.ask(op, {}, (1, 0))
            assert kernel.startswith("cpu/"), (op, why)


def test_command_line_jit_and_pack(tmp_path):
    environment = {"FULMEN_CACHE_DIR": str(tmp_path / "cache"), "FULMEN_PACK_PATH": ""}

    def cli(*args: str, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "fulmen", *args], capture_output=True, text=True, timeout=400, check=False,
            env={**os.environ, **environment, **env},
        )  # fmt: skip

    keys = cli("pack", "keys").stdout.splitlines()
    key = next(k for k in keys if k.startswith("rmsnorm "))
    missed = cli("jit", "explain", *key.split(), "--arch", "sm_90a")
    assert missed.returncode == 1 and "miss: " in missed.stdout
    unknown = cli("jit", "explain", "nonsense", "--arch", "sm_90a")
    assert unknown.returncode == 1 and "'nonsense' is of no kernel, expected one of rmsnorm, " in unknown.stderr
    impossible = cli("jit", "explain", key.replace("lanes=", "lanes=7"), "--arch", "sm_90a")
    assert impossible.returncode == 1 and "rmsnorm: lanes is 7" in impossible.stderr
    assert "0 kernels" in cli("jit", "list").stdout and "0 kernels removed" in cli("jit", "clear").stdout
    assert "FULMEN_PACK_PATH" in cli("pack", "list").stdout
    assert "build" in cli("pack", "--help").stdout and "explain" in cli("jit", "--help").stdout
    if not json.loads(lib.jit_config())["compiler"]:
        pytest.skip("NVRTC is not installed")
    (tmp_path / "few.keys").write_text(f"# two lines\n{key}\n")
    few = ("--keys", str(tmp_path / "few.keys"), "--out", str(tmp_path / "p"))
    built = cli("pack", "build", "--arch", "sm_80,sm_90a", *few)
    assert built.returncode == 0 and "2 compiled now" in built.stdout, built.stderr
    assert "0 compiled now" in cli("pack", "build", "--arch", "sm_80", *few).stdout
    assert cli("pack", "list", str(tmp_path / "p")).stdout.count(key) == 2
    found = cli("jit", "explain", *key.split(), "--arch", "sm_90a", FULMEN_PACK_PATH=str(tmp_path / "p"))
    assert found.returncode == 0 and "hit: " in found.stdout
    wrong = cli("pack", "build", "--arch", "sm_1", *few)
    assert wrong.returncode == 1 and wrong.stderr
    (tmp_path / "no-folder").write_text("")
    lost = cli("pack", "build", "--arch", "sm_80", *few[:3], str(tmp_path / "no-folder"))
    assert lost.returncode == 1 and "no-folder cannot be written" in lost.stderr and "1 failed" in lost.stdout
    (tmp_path / "few.keys").write_text(f"{key} more\n")
    assert "rmsnorm: key has the word 'more'" in cli("pack", "build", "--arch", "sm_80", *few).stderr
    assert "name no kernel" in cli("pack", "build", "--arch", ",", "--out", str(tmp_path / "p")).stderr


def test_type_hints_reach_users():
    assert (Path(fulmen.__file__).parent / "py.typed").exists()  # type checkers read annotations of such packages alone
    for name in fulmen.__all__:
        public = getattr(fulmen, name)
        if inspect.isroutine(public) or inspect.isclass(public):
            assert inspect.getdoc(public), name
        if inspect.isroutine(public):
            signature = inspect.signature(public)
            assert signature.return_annotation is not inspect.Signature.empty, name
            for p in signature.parameters.values():
                assert p.annotation is not inspect.Parameter.empty, f"{name}: {p.name}"


@pytest.mark.parametrize("words", ["--help", "show-config", "jit list", "pack list", "why-not rmsnorm"])
def test_the_command_line_leaves_pytorch_alone(words, tmp_path):
    program = f"""
import sys
from fulmen.__main__ import main
sys.argv = ["fulmen", *{words.split()!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
assert "torch" not in sys.modules
"""
    (tmp_path / "torch.py").write_text("raise SystemExit('PyTorch was imported')\n")  # also where there is none
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False,
                          env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_benchmark_tables_are_those_of_the_result_files():
    command = [sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
