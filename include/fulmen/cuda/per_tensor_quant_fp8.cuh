// SPDX-License-Identifier: Apache-2.0
// per_tensor_quant_fp8: see per_tensor_quant_fp8.h for its three kernels. Launched by src/cuda/quantization.cc.
#pragma once
#include <fulmen/cuda/per_tensor_quant_fp8.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/flat_block.cuh>
#include <fulmen/cuda/tile/quantize.cuh>
#include <fulmen/cuda/tile/reduce.cuh>
#include <fulmen/cuda/tile/row.cuh>

namespace fulmen::cuda::per_tensor_quant_fp8 {

template <class X, int32_t Vec, int32_t Count>
__device__ __forceinline__ void load(const Params& p, const FlatBlock<Vec, Count, kThreads>& mine,
                                     Bits<Vec * int32_t(sizeof(X))> (&x)[Count]) {
#pragma unroll
  for (int32_t i = 0; i < Count; ++i) {
    x[i] = Bits<Vec * int32_t(sizeof(X))>{};
    if (mine.inside[i])
      x[i] = load_stream<Vec * int32_t(sizeof(X))>(p.rows.row_of<const X>(p.x, mine.row[i]) + mine.column[i]);
  }
}

// CTAs walk over the blocks, so that few atomics meet at the one address.
template <Key K>
__device__ __forceinline__ void find_largest(const Params& p) {
  using X = type_of<K.x>;
  constexpr int32_t kCount = vecs_per_thread(K.step);
  __shared__ float scratch[2][kThreads / 32];
  RowReducer<RowShape{1, 1, kThreads}> reducer{scratch};
  float top = 0;
  for (int64_t block = blockIdx.x; block * vecs_per_cta(K.step) < p.num_vecs; block += gridDim.x) {
    const FlatBlock<K.vec, kCount, kThreads> mine(p.rows, p.num_vecs, block);
    Bits<K.vec * int32_t(sizeof(X))> x[kCount];
    load<X>(p, mine, x);
#pragma unroll
    for (int32_t i = 0; i < kCount; ++i) {
      float v[K.vec];
      unpack<X, K.vec>(x[i], v);
#pragma unroll
      for (int32_t j = 0; j < K.vec; ++j) top = fmaxf(top, fabsf(v[j]));  // passes NaN over
    }
  }
  top = reducer.max(top);
  // Bits of floats from 0 up are ordered like the floats.
  if (threadIdx.x == 0) atomic_max(reinterpret_cast<uint32_t*>(p.scale), bit_cast<uint32_t>(top));
}

template <Key K>
__device__ __forceinline__ void quantize(const Params& p) {
  using X = type_of<K.x>;
  using Out = type_of<K.out>;
  constexpr int32_t kCount = vecs_per_thread(K.step);
  const FlatBlock<K.vec, kCount, kThreads> mine(p.rows, p.num_vecs, blockIdx.x);
  Bits<K.vec * int32_t(sizeof(X))> x[kCount];
  load<X>(p, mine, x);
  const float factor = 1.0f / *p.scale;
#pragma unroll
  for (int32_t i = 0; i < kCount; ++i) {
    if (!mine.inside[i]) continue;
    float v[K.vec];
    unpack<X, K.vec>(x[i], v);
#pragma unroll
    for (int32_t j = 0; j < K.vec; ++j) v[j] *= factor;
    store_stream<K.vec>(p.rows.row_of<Out>(p.out, mine.row[i]) + mine.column[i], pack<Out, K.vec>(v));
  }
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  wait_for_predecessor();
  allow_successor();
  if constexpr (K.step == Step::kLargest)
    find_largest<K>(p);
  else if constexpr (K.step == Step::kQuantize)
    quantize<K>(p);
  else if (threadIdx.x == 0)
    *p.scale = scale_for<type_of<K.out>>(*p.scale, false);
}

}  // namespace fulmen::cuda::per_tensor_quant_fp8
