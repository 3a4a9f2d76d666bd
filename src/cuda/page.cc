// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/page.h"

#include <fulmen/cuda/row_shape.h>

#include "src/cuda/ids.h"

namespace fulmen::cuda {
namespace {

using append_paged_kv_cache::kThreads;
using append_paged_kv_cache::Side;

constexpr int64_t kMost = 0x7fffffff;

// The largest vector of bytes that rows and cache bear.
int32_t vec_bytes_of(const TensorView& rows, const TensorView& cache) {
  const uint64_t size = uint64_t(size_of(rows.dtype));
  uint64_t bits = uint64_t(rows.data) | uint64_t(cache.data) | uint64_t(rows.shape[2]) * size;
  for (int32_t i = 0; i < 2; ++i)
    if (rows.shape[i] > 1) bits |= uint64_t(rows.strides[i]) * size;
  for (int32_t i = 0; i < 3; ++i)
    if (cache.shape[i] > 1) bits |= uint64_t(cache.strides[i]) * size;
  return max_vec(bits, 1);
}

Side side_of(const TensorView& rows, const TensorView& cache, int32_t vec_bytes) {
  const int64_t size = size_of(rows.dtype);
  const int32_t vecs_per_head = int32_t(rows.shape[2] * size / vec_bytes);
  return {.rows = rows.as<const char>(),
          .cache = cache.as<char>(),
          .token_stride = rows.strides[0] * size,
          .head_stride = rows.strides[1] * size,
          .page_stride = cache.strides[0] * size,
          .slot_stride = cache.strides[1] * size,
          .cache_head_stride = cache.strides[2] * size,
          .vecs_per_head = Divisor(std::max(1, vecs_per_head)),
          .vecs = vecs_per_head * int32_t(rows.shape[1])};
}

}  // namespace

PageTable page_table(const TensorView& batch_indices, const TensorView& positions, const TensorView& kv_indices,
                     const TensorView& kv_indptr, const TensorView& cache) {
  return {.batch_indices = ids_of(batch_indices),
          .positions = ids_of(positions),
          .kv_indices = ids_of(kv_indices),
          .kv_indptr = ids_of(kv_indptr),
          .batch_size = kv_indptr.shape[0] - 1,
          .num_pages = cache.shape[0],
          .num_kv_indices = kv_indices.shape[0],
          .page_size = int32_t(cache.shape[1])};
}

runtime::Refusal AppendPagedKvCache::refuses(const Args& a) {
  const int64_t bytes = (a.append_key.shape[2] + a.append_value.shape[2]) * size_of(a.append_key.dtype);
  if (a.append_key.shape[1] * bytes > kMost / 2) return "a token's keys and values exceed 1 GiB";
  if (a.append_key.shape[0] > (kMost - kThreads) / (1 + a.append_key.shape[1] * bytes / 32))
    return "too many tokens for one grid";
  if (a.k_cache.shape[1] > kMost) return "page_size is beyond 2147483647";
  return {};
}

Work<append_paged_kv_cache::Key, append_paged_kv_cache::Params> AppendPagedKvCache::work(const Args& a,
                                                                                         const Device& device) {
  const int32_t vec_bytes = std::min(vec_bytes_of(a.append_key, a.k_cache), vec_bytes_of(a.append_value, a.v_cache));
  Params p{.key = side_of(a.append_key, a.k_cache, vec_bytes),
           .value = side_of(a.append_value, a.v_cache, vec_bytes),
           .pages = page_table(a.batch_indices, a.positions, a.kv_indices, a.kv_indptr, a.k_cache),
           .nnz = a.append_key.shape[0],
           .parts = {}};
  const int64_t vecs = int64_t(p.key.vecs) + p.value.vecs;
  const auto parts = [&](int32_t batch) { return std::max<int64_t>(1, math::ceil_div(vecs, 32 * batch)); };
  // Few tokens: more warps each, as only latency counts.
  const int32_t batch = p.nnz * parts(4) <= 8 * device.num_sms ? 1 : 4;
  p.parts = Divisor(int32_t(parts(batch)));
  const int64_t ctas = math::ceil_div(p.nnz * parts(batch), int64_t(kThreads / 32));
  return {.key = {vec_bytes, batch},
          .params = p,
          .shape = {.grid = uint32_t(ctas), .num_threads = kThreads},
          .persistent = false};
}

std::vector<append_paged_kv_cache::Key> AppendPagedKvCache::common_keys() {
  std::vector<Key> keys;
  for (int32_t vec_bytes : {16, 8, 4, 2, 1})
    for (int32_t batch : {1, 4}) keys.push_back({vec_bytes, batch});
  return keys;
}

}  // namespace fulmen::cuda
