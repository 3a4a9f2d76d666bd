// SPDX-License-Identifier: Apache-2.0
// segment_packbits: see segment_packbits.h for its two kernels. Launched by src/cuda/bits.cc.
#pragma once
#include <fulmen/cuda/segment_packbits.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/ptx/warp.cuh>
#include <fulmen/cuda/tile/bits.cuh>
#include <fulmen/cuda/tile/scan.cuh>
#include <fulmen/cuda/tile/segment.cuh>

namespace fulmen::cuda::segment_packbits {

__device__ __forceinline__ int64_t bytes_of(const Params& p, int64_t segment) {
  const int64_t begin = p.indptr[segment], end = p.indptr[segment + 1];
  return end > begin ? (end - begin + 7) / 8 : 0;
}

// kThreads segments at a time.
__device__ __forceinline__ void write_offsets(const Params& p) {
  __shared__ int64_t sums[kThreads / 32];
  int64_t before = 0;  // bytes of the segments so far
  if (threadIdx.x == 0) p.out_indptr.set(0, 0);
  for (int64_t base = 0; base < p.batch_size; base += kThreads) {
    const int64_t segment = base + threadIdx.x;
    int64_t end = sum_through(segment < p.batch_size ? bytes_of(p, segment) : 0);
    if (warp_lane() == 31) sums[warp_index()] = end;
    sync_cta();
    int64_t all = 0;
#pragma unroll
    for (int32_t w = 0; w < kThreads / 32; ++w) {
      if (w < warp_index()) end += sums[w];
      all += sums[w];
    }
    if (segment < p.batch_size) p.out_indptr.set(segment + 1, before + end);
    before += all;
    sync_cta();  // sums are about to be written again
  }
}

// A byte per thread. Indices that point outside read nothing.
template <Key K>
__device__ __forceinline__ void pack(const Params& p) {
  const int64_t byte = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (byte >= p.num_bytes || byte >= p.out_indptr[p.batch_size]) return;
  const int64_t segment = last_at_or_below(p.out_indptr, p.batch_size, byte);
  const int64_t first = p.indptr[segment] + (byte - p.out_indptr[segment]) * 8;
  const int64_t end = p.indptr[segment + 1] < p.num_bits ? p.indptr[segment + 1] : p.num_bits;
  p.out[byte] = first < 0 ? 0 : uint8_t(pack_bytes<K.little>(p.x + first, end - first));
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  wait_for_predecessor();
  allow_successor();
  if constexpr (K.step == Step::kOffsets)
    write_offsets(p);
  else
    pack<K>(p);
}

}  // namespace fulmen::cuda::segment_packbits
