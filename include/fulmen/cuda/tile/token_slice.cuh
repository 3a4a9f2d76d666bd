// SPDX-License-Identifier: Apache-2.0
// A CTA's part of a row, and what is weighed in it.
#pragma once
#include <fulmen/cuda/ptx/copy_to_shared.cuh>
#include <fulmen/cuda/tile/row.cuh>
#include <fulmen/cuda/tile/token_team.cuh>

namespace fulmen::cuda {

inline constexpr int32_t kTokenSteps = kTokenBlock / 128;  // of a block: a lane has 4 elements in each

template <int32_t N>
struct alignas(N) AlignedBits {
  Bits<N> bits;
};

// Elements past the row's end read as -inf. kMinus: where minus is given, the row is relu(row - minus), NaN where
// either is.
template <TokenKey K, bool kMinus = false>
struct TokenSlice {
  using X = type_of<K.x>;
  using Team = TokenTeam<K.threads, K.cluster>;
  static constexpr int32_t kSize = int32_t(sizeof(X)), kWarps = Team::kWarps;
  static constexpr bool kIsDifference = kMinus;
  const X* row;
  const X* minus;
  X* kept;                                         // in shared memory
  int32_t n, num_blocks, row_blocks, first, step;  // its blocks are first, first + step, …

  __device__ __forceinline__ TokenSlice(const Team& team, const X* r, int32_t length, const X* m = nullptr)
      : row(r), minus(m), kept(Team::template shared<X>(TokenLayout::row(length))), n(length) {
    row_blocks = TokenLayout::num_blocks(n);
    first = int32_t(team.rank()), step = int32_t(team.size());
    num_blocks = (row_blocks - first + step - 1) / step;
  }
  // The row's number of a block of the slice; the slice's number of one of the row, or -1.
  __device__ __forceinline__ int32_t of_row(int32_t block) const { return first + block * step; }
  __device__ __forceinline__ int32_t of_slice(int32_t row_block) const {
    return row_block % step == first ? row_block / step : -1;
  }
  // f(block) for this warp's blocks, numbered from the slice's first.
  template <class F>
  __device__ __forceinline__ void for_blocks(F f) const {
#pragma unroll 1
    for (int32_t b = warp_index(); b < num_blocks; b += kWarps) f(b);
  }
  // The place in the row of this lane's elements.
  __device__ __forceinline__ int32_t at(int32_t block, int32_t s) const {
    return of_row(block) * kTokenBlock + s * 128 + warp_lane() * 4;
  }

  // Starts bringing the slice to shared memory; arrive() waits for what the warp itself will read. What a cluster reads
  // again and again goes as far as L2.
  __device__ __forceinline__ void depart() const {
    if constexpr (!K.resident) {
      constexpr int32_t kLine = 128 / kSize;
      if (!K.cluster) return;
#pragma unroll 1
      for (int32_t i = int32_t(threadIdx.x) * kLine; i < num_blocks * kTokenBlock; i += Team::kThreads * kLine) {
        const int32_t at = of_row(i / kTokenBlock) * kTokenBlock + i % kTokenBlock;
        if (at < n) prefetch_to_l2(row + at);
      }
      return;
    }
    for_blocks([&](int32_t b) {
      X* to = kept + b * kTokenBlock;
      const int32_t from = of_row(b) * kTokenBlock;
      if constexpr (kMinus) {
#pragma unroll 1
        for (int32_t i = warp_lane(); i < kTokenBlock; i += 32) to[i] = difference(from + i);
      } else if (from + kTokenBlock <= n) {
        constexpr int32_t kCopies = kTokenBlock / 32 / K.vec;
#pragma unroll(K.vec == 1 ? 4 : kCopies)
        for (int32_t k = 0; k < kCopies; ++k) {
          const int32_t i = (k * 32 + warp_lane()) * K.vec;
          copy_to_shared<K.vec * kSize>(to + i, row + from + i);
        }
      } else {
#pragma unroll 1
        for (int32_t i = warp_lane(); i < kTokenBlock; i += 32)
          to[i] = from + i < n ? row[from + i] : narrow<X>(-kInfinity);
      }
    });
  }
  __device__ __forceinline__ void arrive() const {
    if constexpr (K.resident) {
      wait_for_copies();
      sync_warp();
    }
  }
  __device__ __forceinline__ X difference(int32_t i) const {
    if (i >= n) return narrow<X>(-kInfinity);
    if (minus == nullptr) return row[i];
    const float d = widen(row[i]) - widen(minus[i]);
    return narrow<X>(d < 0 ? 0.0f : d);
  }

  __device__ __forceinline__ void fetch(int32_t block, int32_t s, float (&v)[4]) const {
    if constexpr (K.resident) {
      const X* p = kept + block * kTokenBlock + s * 128 + warp_lane() * 4;
      unpack<X, 4>(reinterpret_cast<const AlignedBits<4 * kSize>*>(p)->bits, v);
    } else {
      const int32_t i = at(block, s);
      if constexpr (!kMinus && K.vec >= 4) {  // what the vector holds beyond n belongs to the tensor's row
#pragma unroll
        for (int32_t j = 0; j < 4; ++j) v[j] = -kInfinity;
        if (i < n) unpack<X, 4>(load_shared_by_rows<4 * kSize>(row + i), v);
        if (i + 4 > n && i < n) {
#pragma unroll
          for (int32_t j = 1; j < 4; ++j) v[j] = i + j < n ? v[j] : -kInfinity;
        }
      } else {
#pragma unroll
        for (int32_t j = 0; j < 4; ++j) {
          if constexpr (kMinus)
            v[j] = widen(difference(i + j));
          else
            v[j] = i + j < n ? widen(row[i + j]) : -kInfinity;
        }
      }
    }
  }
  // Element `which` of this lane's of a block.
  __device__ __forceinline__ float value(int32_t block, int32_t which) const {
    const int32_t in_block = which / 4 * 128 + warp_lane() * 4 + which % 4;
    if constexpr (K.resident) return widen(kept[block * kTokenBlock + in_block]);
    const int32_t i = of_row(block) * kTokenBlock + in_block;
    if constexpr (kMinus) return widen(difference(i));
    return widen(row[i]);
  }
  // f(block, values) for this warp's blocks, all steps of a lane at once. From global memory the next block is on its
  // way while f works on one.
  template <class F>
  __device__ __forceinline__ void for_values(F f) const {
    float v[kTokenSteps][4], next[kTokenSteps][4];
    if constexpr (K.resident) {
#pragma unroll 1
      for (int32_t b = warp_index(); b < num_blocks; b += kWarps) fetch_block(b, v), f(b, v);
    } else {
#pragma unroll 1
      for (int32_t b = warp_index() - kWarps; b < num_blocks; b += kWarps) {
#pragma unroll
        for (int32_t s = 0; s < kTokenSteps; ++s)
#pragma unroll
          for (int32_t j = 0; j < 4; ++j) v[s][j] = next[s][j];
        if (b + kWarps < num_blocks) fetch_block(b + kWarps, next);
        if (b >= 0) f(b, v);
      }
    }
  }
  __device__ __forceinline__ void fetch_block(int32_t block, float (&v)[kTokenSteps][4]) const {
#pragma unroll
    for (int32_t s = 0; s < kTokenSteps; ++s) fetch(block, s, v[s]);
  }
  // f(i, values) for this lane's elements of a block, i the place in the row of the first of four. Unroll: of steps; 1
  // where f is long.
  template <int32_t Unroll = kTokenSteps, class F>
  __device__ __forceinline__ void for_vectors(int32_t block, F f) const {
#pragma unroll Unroll
    for (int32_t s = 0; s < kTokenSteps; ++s) {
      float v[4];
      fetch(block, s, v);
      f(at(block, s), v);
    }
  }
};

inline constexpr float kLeastFinite = -3.40282347e38f;

// The weight of a value, at most 2; the likeliest token weighs 1 (probabilities: 1 to 2). Where the largest value is
// +inf, those tokens weigh the same and all that a cut leaves is them. See reference/token_filter.h for the bound on
// its error.
template <bool kLogits>
struct TokenWeight {
  static constexpr bool kCounts = false;  // goals are masses or numbers of tokens
  float top, factor;

  __device__ __forceinline__ static TokenWeight of(float top, float inv_temperature) {
    if constexpr (kLogits) return {top, float(double(inv_temperature) * 1.4426950408889634)};
    const uint32_t exponent = bit_cast<uint32_t>(top) >> 23;  // a power of two
    return {top, bit_cast<float>(exponent >= 254 ? 0x00400000u : (254 - exponent) << 23)};
  }
  __device__ __forceinline__ float operator()(float x) const {
    if constexpr (kLogits) {
      const float y = fminf((x - top) * factor, 0);   // 0 where inf - inf is NaN
      return y < -125.51572f ? 0.0f : math::exp2(y);  // -87 log2 e
    } else {
      return fminf(fmaxf(x * factor, 0), 2);
    }
  }
  // The same of a finite top and an x that is not above it; NaN of any NaN, and of infinities.
  __device__ __forceinline__ float below_top(float x) const {
    if constexpr (kLogits) return math::exp2((x - top) * factor);
    return x * factor > 0 ? x * factor : x - x;
  }
};

// Sums of weights as integers of 2^-40, so that their order does not matter.
__device__ __forceinline__ uint64_t fixed(float weight) { return uint64_t(weight * 0x1p40f); }
__device__ __forceinline__ double mass_of(uint64_t x) { return double(x) * 0x1p-40; }

}  // namespace fulmen::cuda
