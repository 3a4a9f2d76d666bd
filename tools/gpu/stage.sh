#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds what a GPU machine needs into one folder: libraries, test programs, benchmark, kernels for the given
# architectures. No GPU is needed here, no compiler there.
#   tools/gpu/stage.sh [FOLDER] [ARCHS]      default: build/gpu, sm_90a
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${1:-build/gpu}
archs=${2:-sm_90a}
build=${FULMEN_BUILD:-build/release}  # shared with ./dev, so that little is built twice
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DFULMEN_GPU_BENCH=ON \
      -DCMAKE_BUILD_RPATH_USE_ORIGIN=ON >/dev/null
cmake --build "$build" --target fulmen fulmen_pack fulmen_gpu_bench cuda_ops_test cuda_runtime_test jit_test jit_crash_test
rm -rf "$out" && mkdir -p "$out/lib" "$out/bin" "$out/pack"
cp -L "$build"/libfulmen.so.0 "$out/lib/"
cp "$build"/fulmen_pack "$build"/fulmen_gpu_bench "$build"/tests/{cuda_ops_test,cuda_runtime_test,jit_test,jit_crash_test} "$out/bin/"
strip "$out"/lib/*.so* "$out"/bin/*
# Used there only if that system's own are too old.
mkdir -p "$out/compat"
for name in libstdc++.so.6 libgcc_s.so.1; do cp -L "$(${CXX:-c++} -print-file-name=$name)" "$out/compat/"; done
"$build"/fulmen_pack build --arch "$archs" --out "$out/pack"
git rev-parse --short HEAD >"$out/commit" 2>/dev/null || echo unknown >"$out/commit"
du -sh "$out"
