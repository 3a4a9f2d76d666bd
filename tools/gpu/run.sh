#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On a machine with a GPU: runs what tools/gpu/stage.sh staged. Needs the driver; NVRTC where kernels are not in the pack.
#   tools/gpu/run.sh [STAGED FOLDER] [RESULTS FOLDER] [all | test | bench] [ROWS]
# Writes logs and JSON to the results folder ($OUT or gpu-results), prints short tables last. The most important steps
# come first; what does not fit into FULMEN_GPU_SECONDS (450) is cut short or skipped, and the summary says so.
# ROWS: of the benchmarks, those whose ids start so, or "attention", or "attention D1,D5". Exit code 1: a step failed.
set -uo pipefail
staged=$(realpath "${1:-build/gpu}")
out=$(realpath -m "${2:-${OUT:-gpu-results}}")
what=${3:-all}
read -r -a rows <<<"${4:-}"
case $what in all|test|bench) ;; *) echo "tools/gpu/run.sh: '$what' is none of all, test, bench" >&2; exit 2 ;; esac
mkdir -p "$out"
export LD_LIBRARY_PATH="$staged/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
FULMEN_COMMIT=$(cat "$staged/commit")
export FULMEN_COMMIT
if [ -z "${CUDA_HOME:-}" ] && command -v nvcc >/dev/null; then
  CUDA_HOME=$(dirname "$(dirname "$(realpath "$(command -v nvcc)")")")
  export CUDA_HOME
fi
if [ -z "${CUDA_HOME:-}" ]; then  # the compiler of PyTorch's wheels
  lib=$(find / -name 'libnvrtc.so.1[23]' -not -path '/proc/*' 2>/dev/null | head -1)
  if [ -n "$lib" ]; then export FULMEN_NVRTC=$lib; fi
fi
"$staged/bin/fulmen_pack" keys >/dev/null 2>&1 || export LD_LIBRARY_PATH="$staged/compat:$LD_LIBRARY_PATH"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
summary="$out/summary.txt"
: >"$summary"
note() { printf '%s\n' "$*" | tee -a "$summary"; }

deadline=$((SECONDS + ${FULMEN_GPU_SECONDS:-450}))
failed=0

# step NAME SECONDS LOG COMMAND...: runs, logs, notes the outcome and gtest's counts.
step() {
  local name=$1 limit=$2 log=$3 start=$SECONDS rc
  shift 3
  if [ $((deadline - SECONDS)) -lt 5 ]; then note "$(printf '%-34s not run: out of time' "$name")"; return; fi
  [ "$limit" -gt $((deadline - SECONDS)) ] && limit=$((deadline - SECONDS))
  printf '\n=== %s\n' "$name" >>"$out/$log"
  timeout "$limit" "$@" >>"$out/$log" 2>&1
  rc=$?
  [ $rc -eq 0 ] || failed=1
  local counts
  counts=$(tail -40 "$out/$log" | grep -aE '^\[  (PASSED|FAILED)  \] [0-9]+|ERROR SUMMARY' | tr '\n' ' ')
  note "$(printf '%-34s rc %3d  %4d s  %s' "$name" "$rc" $((SECONDS - start)) "$counts")"
}

{ nvidia-smi -L; nvidia-smi --query-gpu=driver_version,clocks.sm,clocks.mem,power.draw --format=csv; ldd --version | head -1
  echo "CUDA_HOME=${CUDA_HOME:-} FULMEN_NVRTC=${FULMEN_NVRTC:-}"; } >"$out/machine.txt" 2>&1
export FULMEN_CACHE_DIR="$work/cache"

# bench NAME JSON SECONDS ARGS...
bench() {
  local name=$1 json=$2 limit=$3
  shift 3
  step "$name" "$limit" "${json%.json}.log" "$staged/bin/fulmen_gpu_bench" "$out/$json" "$@"
}
benchmarks() {
  export FULMEN_PACK_PATH="$staged/pack"
  if [ ${#rows[@]} -gt 0 ]; then
    bench "benchmark, ${rows[*]}" "gpu-${rows[0]}.json" 240 "${rows[@]}"
  else
    FULMEN_JIT=off FULMEN_CACHE_DIR='' bench "benchmark, pack alone" gpu-memory.json 120
    bench "benchmark, attention" gpu-attention.json 180 attention
  fi
  unset FULMEN_PACK_PATH
}
tests() {
  step "ops, compiled here" 150 tests.log "$staged/bin/cuda_ops_test"
  step "runtime: graphs, streams, errors" 60 tests.log "$staged/bin/cuda_runtime_test"
  # The first step filled the cache: it is a pack of what the tests need.
  step "ops from a pack, no compiler, no PATH" 90 tests.log env -i LD_LIBRARY_PATH="$LD_LIBRARY_PATH" PATH=/nowhere \
    FULMEN_PACK_PATH="$FULMEN_CACHE_DIR" FULMEN_JIT=off FULMEN_CACHE_DIR= "$staged/bin/cuda_ops_test"
  step "jit" 60 tests.log "$staged/bin/jit_test"
  step "jit under kill -9, 5 x 32" 60 tests.log env FULMEN_JIT_ROUNDS=5 FULMEN_JIT_PROCESSES=32 "$staged/bin/jit_crash_test"
  step "compile all kernels, 2 at a time" 90 compile.log "$staged/bin/fulmen_pack" build --arch sm_90a --jobs 2 --out "$work/pack" --report "$out/compile.tsv"
  local sanitizer target
  sanitizer=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/nowhere}"/bin/compute-sanitizer 2>/dev/null)
  if [ -n "$sanitizer" ]; then
    step "memcheck" 90 sanitizer.log "$sanitizer" --tool memcheck --error-exitcode 9 "$staged/bin/cuda_ops_test"
    step "racecheck, norms" 60 sanitizer.log "$sanitizer" --tool racecheck --error-exitcode 9 "$staged/bin/cuda_ops_test" --gtest_filter='CudaNorm.Rms*'
  else
    note "compute-sanitizer: not found"
  fi
  for target in compute_75 compute_80 compute_89; do
    step "ops as PTX of $target" 120 tests.log env FULMEN_CUDA_TARGET=$target FULMEN_CACHE_DIR="$work/$target" "$staged/bin/cuda_ops_test"
  done
}
[ "$what" = test ] || benchmarks
[ "$what" = bench ] || tests
for log in "$out"/gpu-*.log; do [ -f "$log" ] && sed -n '/copy .* TB\/s/,$p' "$log"; done
grep -aE '^\[  FAILED  \]|ERROR SUMMARY: [1-9]' "$out"/*.log | sort | uniq -c | head -20
cat "$summary"
exit $failed
