// SPDX-License-Identifier: Apache-2.0
// elementwise: a vector of each input per thread. Launched by src/cuda/elementwise.cc.
#pragma once
#include <fulmen/cuda/elementwise.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/flat_block.cuh>
#include <fulmen/cuda/tile/row.cuh>

namespace fulmen::cuda::elementwise {

// Input i of a thread's vector; zeros where there is none.
template <DType T, Key K, int32_t I>
struct Input {
  static constexpr int32_t kBytes = K.vec * int32_t(sizeof(type_of<T>));
  Bits<kBytes> raw;

  __device__ __forceinline__ Input(const Params& p, int64_t row, int32_t column) {
    raw = Bits<kBytes>{};
    if constexpr (I < K.inputs) raw = load_stream<kBytes>(p.rows.row_of<const type_of<T>>(p.in[I], row) + column);
  }
  __device__ __forceinline__ void to(float (&x)[K.vec]) const { unpack<type_of<T>, K.vec>(raw, x); }
};

template <Key K, class User>
__device__ __forceinline__ void run(const Params& p) {
  using Out = type_of<K.out>;
  const FlatBlock<K.vec, 1, kThreads> mine(p.rows, p.num_vecs, blockIdx.x);
  if (!mine.inside[0]) return;
  wait_for_predecessor();
  const Input<K.a, K, 0> in_a(p, mine.row[0], mine.column[0]);
  const Input<K.b, K, 1> in_b(p, mine.row[0], mine.column[0]);
  const Input<K.c, K, 2> in_c(p, mine.row[0], mine.column[0]);
  const Input<K.d, K, 3> in_d(p, mine.row[0], mine.column[0]);
  allow_successor();
  float a[K.vec], b[K.vec], c[K.vec], d[K.vec];
  in_a.to(a), in_b.to(b), in_c.to(c), in_d.to(d);
#pragma unroll
  for (int32_t j = 0; j < K.vec; ++j) a[j] = User::apply(a[j], b[j], c[j], d[j], p.s);
  store_stream<K.vec * int32_t(sizeof(Out))>(p.rows.row_of<Out>(p.out, mine.row[0]) + mine.column[0],
                                             pack<Out, K.vec>(a));
}

}  // namespace fulmen::cuda::elementwise
