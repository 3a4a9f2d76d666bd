#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Whether attention is right on this GPU: every option pairwise against the double reference, for the GPU's own target and
# as PTX of older ones, replays, streams, large batches and pools, and NVIDIA's sanitizers.
#   tools/gpu/attention.sh [STAGED FOLDER] [RESULTS FOLDER]      a few minutes; what was staged by tools/gpu/stage.sh
set -uo pipefail
staged=$(realpath "${1:-build/gpu}")
out=$(realpath -m "${2:-${OUT:-gpu-results}}")
mkdir -p "$out"
export LD_LIBRARY_PATH="$staged/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" FULMEN_PACK_PATH="$staged/pack"
if [ -z "${CUDA_HOME:-}" ] && command -v nvcc >/dev/null; then
  CUDA_HOME=$(dirname "$(dirname "$(realpath "$(command -v nvcc)")")")
  export CUDA_HOME
fi
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
shards=${FULMEN_SHARDS:-8}
limit=${FULMEN_GPU_SECONDS:-300}

# run TARGET FILTER: all shards at once; the device's own target where TARGET is "".
run() {
  local i
  for ((i = 0; i < shards; ++i)); do
    env ${1:+FULMEN_CUDA_TARGET=$1} FULMEN_CACHE_DIR="$cache/${1:-own}" GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$i \
      timeout "$limit" "$staged/bin/cuda_ops_test" --gtest_filter="$2" >"$out/attention-${1:-own}-$i.log" 2>&1 &
  done
  wait
}
own='CudaAttention*:CudaFlashInferVariant*'
run "" "$own"
for target in ${FULMEN_TARGETS-compute_75 compute_80 compute_89}; do run "$target" 'CudaAttention.*:CudaAttentionLargeHeads.*'; done
if command -v compute-sanitizer >/dev/null; then
  FULMEN_CACHE_DIR="$cache/own" timeout "$limit" compute-sanitizer --tool memcheck "$staged/bin/cuda_ops_test" \
    --gtest_filter='CudaAttentionPrepare.Bal*:CudaAttentionReplay.Len*:CudaAttentionReplay.Plans*:CudaAttention.NoVis*:CudaAttention.Groups*' \
    >"$out/attention-memcheck.log" 2>&1
  FULMEN_CACHE_DIR="$cache/own" timeout "$limit" compute-sanitizer --tool racecheck "$staged/bin/cuda_ops_test" \
    --gtest_filter='CudaAttentionPrepare.Bal*:CudaAttention.NoVis*' >"$out/attention-racecheck.log" 2>&1
fi
cd "$out" || exit 1
grep -ahE 'error / bound|replays|finish over the host plan.s: mean' attention-*.log | sort | uniq -c
grep -aE '^\[  FAILED  \] Cuda|SUMMARY: [1-9]|CUDA_ERROR' attention-*.log | head -40
passed=$(grep -ahE '^\[       OK' attention-*.log | wc -l)
failed=$(grep -ahE '^\[  FAILED  \] Cuda.*ms\)' attention-*.log | wc -l)
unfinished=$(for log in attention-*-[0-9]*.log; do grep -qaE 'tests? ran' "$log" || echo "$log"; done)
echo "$passed tests passed, $failed failed${unfinished:+, not finished: $unfinished}"
grep -ahE 'SUMMARY' attention-*check.log
[ "$failed" = 0 ] && [ -z "$unfinished" ]
