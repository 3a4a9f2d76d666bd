# SPDX-License-Identifier: Apache-2.0
"""Who may include whom. The table below is the architecture; docs/architecture.md draws it. Run by ./dev check.

Also checks: the set of headers that the JIT compiles includes nothing but itself; nothing is included inside a kernel's
target region; headers do not include each other in a circle; and every op has its full set of files.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()

# A layer is a folder: of include/fulmen ("core") or of the repository ("src/plan").
ALLOWED = {
    "core": {"core"},
    "ops": {"core", "ops"},
    "attention": {"core", "ops", "attention"},
    "reference": {"core", "ops", "attention", "reference"},
    "cpu": {"core", "ops", "attention", "cpu"},
    "cuda": {"core", "ops", "attention", "cuda"},
    "runtime": {"core", "runtime"},
    "src/ops": {"core", "ops", "attention", "runtime", "src/ops"},
    "src/plan": {"core", "ops", "attention", "src/plan"},  # sees no device
    "src/runtime": {"core", "runtime", "src/runtime"},     # sees no op
    "src/jit": {"core", "runtime", "src/jit"},             # knows text and cubins, not attention
    "src/cpu": {"core", "ops", "attention", "runtime", "cpu", "src/jit", "src/cpu"},
    "src/cuda": {"core", "ops", "attention", "runtime", "cuda", "src/jit", "src/cuda"},
    "src/ffi": {"core", "ops", "attention", "runtime", "src/jit", "src/cuda", "src/ffi"},  # the last two: packs.cc
    "examples": {"core", "ops", "attention", "runtime", "cpu", "examples"},  # what users may do: no src/, no reference
}
FREE = ("tests", "benchmarks", "fuzz", "tools")  # may include anything

# Printed into device code: these include only each other, CUDA's type headers and what is named here.
JIT_CLEAN = [
    *(f"include/fulmen/core/{name}.h"
      for name in ("portable", "dtype", "bf16", "f16", "fp8", "fp4", "math", "loop_math", "philox")),
    *(f"include/fulmen/attention/{name}.h"
      for name in ("key", "cascade_model", "variant", "variants", "flashinfer_variant", "variant_table", "tile_mask",
                   "state", "plan_records")),
]
CUDA_TYPES = {"cuda_fp16.h", "cuda_bf16.h", "cuda_fp8.h", "cuda_fp4.h"}
JIT_HOST = {"include/fulmen/core/portable.h": {"cstdint"}, "include/fulmen/core/math.h": {"cmath"}}

# System headers besides the C++ standard library, by the layer that may use them.
SYSTEM = {
    "core": set(),
    "cpu": {"immintrin.h", "math.h"},
    "src/runtime": {"sched.h", "pthread.h", "cpuid.h", "unistd.h", "sys/syscall.h", "sys/mman.h"},
    "src/jit": {"dlfcn.h", "fcntl.h", "pthread.h", "signal.h", "spawn.h", "sys/mman.h", "sys/resource.h", "sys/stat.h",
                "sys/wait.h", "unistd.h"},
    "src/cuda": {"sched.h"},
    "runtime": {"omp.h"},
    "examples": {"dlfcn.h"},  # 03 opens the CUDA driver
}

# The files of an op; {} is the op's name. Related ops may share a file of the same folder that includes each one's
# contract. Where one is missing for another reason, say so in MISSING_FILES.
OP_FILES = ["src/ops/{}.cc", "include/fulmen/reference/{}.h", "include/fulmen/cpu/{}.h", "src/cpu/levels/{}.cc",
            "tests/{}_test.cc", "benchmarks/{}_bench.cc", "docs/ops/{}.md"]
MISSING_FILES: dict[str, str] = {
    "include/fulmen/reference/elementwise.h": "the formula is the caller's",
    "benchmarks/elementwise_bench.cc": "CPU benchmarks; tools/gpu measures its kernel as act_and_mul's",
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


def layer_of(path: str) -> str:
    parts = path.split("/")
    if parts[:2] == ["include", "fulmen"]:
        return parts[2] if len(parts) > 3 else "fulmen.h"
    return "/".join(parts[:2]) if parts[0] == "src" and len(parts) > 2 else parts[0]


def target_of(bracket: str, name: str) -> str | None:
    """Repository path of an include of ours; None for others' headers."""
    if name.startswith("fulmen/"):
        return "include/" + name
    return name if bracket == '"' else None


def check_edge(path: str, bracket: str, name: str) -> str | None:
    layer, target = layer_of(path), target_of(bracket, name)
    if path in JIT_CLEAN or layer == "cuda":
        ok = target in JIT_CLEAN or (target and layer_of(target) == "cuda" == layer)
        ok = ok or name in CUDA_TYPES or name in JIT_HOST.get(path, set())
        return None if ok else f"{path}: is compiled by the JIT and may not include {name}"
    if layer.startswith(FREE) or layer == "fulmen.h":
        return None
    if layer not in ALLOWED:
        return f"{path}: its folder is not in tools/check_layers.py"
    if target is None:
        is_standard = re.fullmatch(r"[a-z_0-9]+", name) is not None
        is_tvm = layer in ("src/ffi", "examples") and name.startswith(("tvm/", "dlpack/"))
        if is_standard or is_tvm or name in SYSTEM.get(layer, set()):
            return None
        return f"{path}: may not include the system header <{name}>"
    if layer_of(target) in ALLOWED[layer]:
        return None
    return f"{path}: {layer} may not include {layer_of(target)} ({name})"


def check_regions(path: str, text: str) -> list[str]:
    if path.endswith("cpu/level.h") or "FULMEN_CPU_BEGIN" not in text:
        return []
    inside = text.split("\nFULMEN_CPU_BEGIN", 1)[-1].rsplit("\nFULMEN_CPU_END", 1)[0]
    return [f"{path}: includes {name} after FULMEN_CPU_BEGIN: it would be compiled for that instruction set"
            for _, name in INCLUDE.findall(inside)]


def check_circles(graph: dict[str, list[str]]) -> list[str]:
    errors, done = [], set()

    def visit(path: str, chain: list[str]) -> None:
        if path in chain:
            errors.append("circle: " + " -> ".join(chain[chain.index(path):] + [path]))
        elif path not in done:
            for target in graph.get(path, []):
                visit(target, chain + [path])
            done.add(path)

    for path in graph:
        visit(path, [])
    return errors


def is_shared(path: str, op: str) -> bool:
    """Is there another file of that folder and kind that includes the op's header?"""
    folder, suffix = (ROOT / path).parent, path.rsplit(op, 1)[1]
    return any(f.name.endswith(suffix) and f"fulmen/ops/{op}.h" in f.read_text() for f in folder.glob("*" + suffix))


def check_op_files() -> list[str]:
    errors = []
    for header in sorted((ROOT / "include/fulmen/ops").glob("*.h")):
        op, missing = header.stem, []
        for path in (pattern.format(op) for pattern in OP_FILES):
            is_there = (ROOT / path).exists() or (path.startswith("include") and (ROOT / path[:-2]).is_dir())
            if not is_there and path not in MISSING_FILES and not is_shared(path, op):
                missing.append(path)
        if missing:
            errors.append(f"op {op}: no {', '.join(missing)} (tools/new_op.py makes the set)")
    text = "".join(h.read_text() for h in (ROOT / "include/fulmen/ops").glob("*.h"))
    for table in (ROOT / "src/cpu").rglob("table*.cc"):
        for op in re.findall(r'row<\w+>\("(\w+)"', table.read_text()):
            if f'"{op}"' not in text:
                errors.append(f"{table.relative_to(ROOT)}: no header of include/fulmen/ops has a schema named {op}")
    return errors


def main() -> int:
    errors, graph = [], {}
    for top in ("include", "src", "examples"):
        for file in sorted((ROOT / top).rglob("*")):
            if file.suffix not in (".h", ".cuh", ".cc"):
                continue
            path, text = str(file.relative_to(ROOT)), file.read_text()
            includes = INCLUDE.findall(text)
            errors += filter(None, (check_edge(path, bracket, name) for bracket, name in includes))
            errors += check_regions(path, text)
            graph[path] = [t for t in (target_of(*i) for i in includes) if t]
    errors += check_circles(graph) + check_op_files()
    print("\n".join(errors) if errors else f"layers: {len(graph)} files, all edges allowed")
    return bool(errors)


if __name__ == "__main__":
    sys.exit(main())
