#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# NVIDIA's sanitizers over every CUDA test of operators: memory accesses, shared-memory races, uninitialized reads, barriers.
#   tools/gpu/sanitize.sh [STAGED FOLDER] [RESULTS FOLDER] [TOOLS] [TESTS]   what was staged by tools/gpu/stage.sh; minutes
# TOOLS: of "plain memcheck racecheck initcheck synccheck" (default: all); plain: without a sanitizer, which fills the
# cache. TESTS: gtest's pattern (default: *). Left out are three tests whose size is their point and which run the
# kernels that other tests run on less: they would take hours. Under the two slow tools, racecheck and initcheck, tests
# that repeat themselves do so six times. initcheck has at most FULMEN_INITCHECK_SHARDS (6) processes at once: with 24 it
# loses track of the driver's memory pools (docs/cuda.md). Exit code 1: an error, or a test that did not end.
set -uo pipefail
staged=$(realpath "${1:-build/gpu}")
out=$(realpath -m "${2:-${OUT:-gpu-results}}")
read -r -a tools <<<"${3:-plain memcheck racecheck initcheck synccheck}"
mkdir -p "$out"
export LD_LIBRARY_PATH="$staged/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" FULMEN_PACK_PATH="$staged/pack"
if [ -z "${CUDA_HOME:-}" ] && command -v nvcc >/dev/null; then
  CUDA_HOME=$(dirname "$(dirname "$(realpath "$(command -v nvcc)")")")
  export CUDA_HOME
fi
sanitizer=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/nowhere}"/bin/compute-sanitizer 2>/dev/null) ||
  { echo "tools/gpu/sanitize.sh: compute-sanitizer not found; it comes with the CUDA toolkit" >&2; exit 2; }
cache=${FULMEN_CACHE_DIR:-$(mktemp -d)}
shards=${FULMEN_SHARDS:-24}
limit=${FULMEN_GPU_SECONDS:-300}
too_large=CudaAttentionReplay.APoolOfMoreThanFourBillionElements:CudaSample.FollowsTheExactDistribution:CudaAttentionPrepare.MakesPlansThatCoverEverythingOnce
tests="${4:-*}-$too_large"

# run NAME COMMAND...: all shards at once.
run() {
  local name=$1 i
  shift
  for ((i = 0; i < shards; ++i)); do
    env FULMEN_CACHE_DIR="$cache" GTEST_TOTAL_SHARDS="$shards" GTEST_SHARD_INDEX=$i timeout "$limit" "$@" \
      "$staged/bin/cuda_ops_test" --gtest_filter="$tests" >"$out/$name-$i.log" 2>&1 &
  done
  wait
}

# report NAME: a line; what failed, what did not end and the sanitizer's first errors.
report() {
  local name=$1 passed failed unfinished errors
  passed=$(grep -ahE '^\[       OK' "$out/$name"-[0-9]*.log | wc -l)
  failed=$(grep -ahE '^\[  FAILED  \] Cuda.*ms\)' "$out/$name"-[0-9]*.log)
  unfinished=$(for log in "$out/$name"-[0-9]*.log; do grep -qaE '^\[==========\] .* ran\.' "$log" || grep -aE '^\[ RUN' "$log" | tail -1; done)
  errors=$(grep -ahE 'ERROR SUMMARY: [1-9]|RACECHECK SUMMARY: [1-9]' "$out/$name"-[0-9]*.log | wc -l)
  echo "$name: $passed tests passed, $(grep -c . <<<"$failed") failed, $(grep -c . <<<"$unfinished") did not end, $errors processes with errors"
  [ -z "$failed$unfinished" ] || printf '%s\n%s\n' "$failed" "$unfinished"
  [ "$errors" = 0 ] || grep -ahE -A6 '^========= (Invalid|Error|Uninit|Barrier|Program|Warning)' "$out/$name"-[0-9]*.log | head -40
  [ -z "$failed$unfinished" ] && [ "$errors" = 0 ]
}

status=0
for tool in "${tools[@]}"; do
  start=$SECONDS command=("$sanitizer" --tool "$tool" --error-exitcode 9)
  [ "$tool" != plain ] || command=(env)
  case $tool in racecheck|initcheck) export FULMEN_TEST_ROUNDS=6 ;; *) unset FULMEN_TEST_ROUNDS ;; esac
  most=$shards
  [ "$tool" != initcheck ] || shards=$((shards < ${FULMEN_INITCHECK_SHARDS:-6} ? shards : ${FULMEN_INITCHECK_SHARDS:-6}))
  run "$tool" "${command[@]}"
  shards=$most
  report "$tool" || status=1
  echo "  in $((SECONDS - start)) s"
done
exit $status
