// SPDX-License-Identifier: Apache-2.0
// A row in registers: packed as it was loaded, or unpacked to f32. Elements past the row's end read as zero and are
// never written. See row_shape.h for who holds what.
#pragma once
#include <fulmen/cuda/row_shape.h>
#include <fulmen/cuda/ptx/cvt.cuh>
#include <fulmen/cuda/ptx/memory.cuh>

namespace fulmen::cuda {

template <class T, int32_t N>
__device__ __forceinline__ void unpack(const Bits<N * int32_t(sizeof(T))>& bits, float (&x)[N]) {
  using Raw = Bits<N * int32_t(sizeof(T))>;
  struct Elements {
    T v[N];
  };
  static_assert(sizeof(Elements) == sizeof(Raw));
  const Elements e = bit_cast<Elements>(bits);
#pragma unroll
  for (int32_t i = 0; i < N; ++i) x[i] = widen(e.v[i]);
}

template <class T, int32_t N>
__device__ __forceinline__ Bits<N * int32_t(sizeof(T))> pack(const float (&x)[N]) {
  Bits<N * int32_t(sizeof(T))> bits;
  if constexpr (is_same<T, float>) {
#pragma unroll
    for (int32_t i = 0; i < N; ++i) bits.word[i] = bit_cast<uint32_t>(x[i]);
  } else if constexpr (N == 1 && sizeof(T) == 2) {
    bits.half = narrow<T>(x[0]).bits;
  } else if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int32_t i = 0; i < N / 2; ++i) bits.word[i] = narrow2<T>(x[2 * i], x[2 * i + 1]);
  } else if constexpr (N == 1) {
    bits.byte = narrow<T>(x[0]).bits;
  } else if constexpr (N == 2) {
    bits.half = narrow2_fp8<T>(x[0], x[1]);
  } else {
#pragma unroll
    for (int32_t i = 0; i < N / 4; ++i)
      bits.word[i] =
          uint32_t(narrow2_fp8<T>(x[4 * i + 2], x[4 * i + 3])) << 16 | narrow2_fp8<T>(x[4 * i], x[4 * i + 1]);
  }
  return bits;
}

template <class T, RowShape S>
struct Row {
  static constexpr int32_t kBytes = S.vec * int32_t(sizeof(T));
  Bits<kBytes> raw[S.vecs];

  // The first element of vector i of this lane.
  __device__ __forceinline__ static int32_t at(int32_t i, int32_t lane) { return (i * S.lanes + lane) * S.vec; }

  // n: elements of the row, a multiple of S.vec; 0 loads nothing.
  __device__ __forceinline__ void load(const T* row, int32_t n, int32_t lane) {
#pragma unroll
    for (int32_t i = 0; i < S.vecs; ++i) {
      raw[i] = Bits<kBytes>{};
      if (at(i, lane) < n) raw[i] = load_stream<kBytes>(row + at(i, lane));
    }
  }
  __device__ __forceinline__ void unpack_to(int32_t i, float (&x)[S.vec]) const { unpack<T, S.vec>(raw[i], x); }
  // f(i, values) for each vector.
  template <class F>
  __device__ __forceinline__ void for_each(F f) const {
#pragma unroll
    for (int32_t i = 0; i < S.vecs; ++i) {
      float x[S.vec];
      unpack_to(i, x);
      f(i, x);
    }
  }
  // Between two passes: makes the second one unpack again, where the compiler would hold all of the row as f32, at
  // twice the registers and half the rows in flight.
  __device__ __forceinline__ void keep_packed() {
    if constexpr (kBytes >= 4 && sizeof(T) < 4) {
#pragma unroll
      for (int32_t i = 0; i < S.vecs; ++i)
#pragma unroll
        for (int32_t k = 0; k < kBytes / 4; ++k) asm volatile("" : "+r"(raw[i].word[k]));
    }
  }
  __device__ __forceinline__ static void store(T* row, int32_t n, int32_t lane, int32_t i, const float (&x)[S.vec]) {
    if (at(i, lane) < n) store_stream<kBytes>(row + at(i, lane), pack<T, S.vec>(x));
  }
};

// A table that every row is combined with (weights): kept in registers where they suffice, else read again per row,
// from L1 or L2.
template <class T, RowShape S, bool kResident>
struct RowTable {
  const T* table;
  int32_t n, lane;
  Bits<Row<T, S>::kBytes> raw[kResident ? S.vecs : 1];

  __device__ __forceinline__ RowTable(const void* t, int32_t num_elements, int32_t l)
      : table(static_cast<const T*>(t)), n(num_elements), lane(l) {
    if constexpr (kResident) {
#pragma unroll
      for (int32_t i = 0; i < S.vecs; ++i) raw[i] = fetch(i);
    }
  }
  __device__ __forceinline__ Bits<Row<T, S>::kBytes> fetch(int32_t i) const {
    Bits<Row<T, S>::kBytes> bits{};
    const int32_t first = Row<T, S>::at(i, lane);
    if (first < n) bits = load_shared_by_rows<Row<T, S>::kBytes>(table + first);
    return bits;
  }
  __device__ __forceinline__ void unpack_to(int32_t i, float (&x)[S.vec]) const {
    if constexpr (kResident)
      unpack<T, S.vec>(raw[i], x);
    else
      unpack<T, S.vec>(fetch(i), x);
  }
};

}  // namespace fulmen::cuda
