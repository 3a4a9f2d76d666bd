// SPDX-License-Identifier: Apache-2.0
// Requests from index tensors, tiles from requests. Lengths that the tensors do not have room for are cut: nothing
// outside them is read later, whatever the tables say.
#pragma once
#include <fulmen/attention/variant.h>
#include <fulmen/cuda/attention/prepare_cluster.cuh>
#include <fulmen/cuda/ptx/math.cuh>
#include <fulmen/cuda/ptx/shared.cuh>
#include <fulmen/cuda/ptx/warp.cuh>
#include <fulmen/cuda/tile/scan.cuh>

namespace fulmen::cuda::attention_prepare {

__device__ __forceinline__ Shared& shared() { return *reinterpret_cast<Shared*>(dynamic_shared()); }

__device__ __forceinline__ int64_t clamp(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x < high ? x : high;
}
__device__ __forceinline__ int32_t ceil_div(int32_t a, int32_t b) {
  return int32_t((uint32_t(a) + uint32_t(b) - 1) / uint32_t(b));
}
// n / d in a few instructions: an estimate, put right. n: 0 or more.
__device__ __forceinline__ int32_t quotient(int32_t n, int32_t d) {
  int32_t q = int32_t(float(n) * reciprocal(float(d)));
  int64_t rest = n - int64_t(q) * d;
  for (; rest < 0; rest += d) --q;
  for (; rest >= d; rest -= d) ++q;
  return q;
}

// Sum of the threads before this one; *total: of all. All threads of the CTA call.
template <Key K>
__device__ __forceinline__ uint32_t sum_before(uint32_t x, uint32_t* total) {
  return cuda::sum_before<K.threads>(x, shared().warp_sums, total);
}

// What the tables say of a request.
struct Numbers {
  Halves qo_begin, qo_end, kv_begin, kv_end, last;
};
__device__ __forceinline__ Numbers numbers_of(const Params& p, int32_t i) {
  Numbers n;
  if (p.qo_indptr.data != nullptr) n.qo_begin = load_halves(p.qo_indptr, i), n.qo_end = load_halves(p.qo_indptr, i + 1);
  if (p.kv_indptr.data != nullptr) n.kv_begin = load_halves(p.kv_indptr, i), n.kv_end = load_halves(p.kv_indptr, i + 1);
  if (p.seq_lens.data != nullptr)
    n.last = load_halves(p.seq_lens, i);
  else if (p.last_page_len.data != nullptr)
    n.last = load_halves(p.last_page_len, i);
  return n;
}

// The same where tables are i32, as most are, in 32 bits.
__device__ __forceinline__ int32_t narrow_kv_len_of(const Params& p, const Numbers& n) {
  const bool has_list = p.kv_indptr.data != nullptr;
  const int32_t begin = has_list ? n.kv_begin.low : 0, end = has_list ? n.kv_end.low : p.narrow_num_kv;
  const uint32_t count = begin < 0 || end < begin || end > p.narrow_num_kv ? 0 : uint32_t(end - begin);
  if (p.page_size == 0) return int32_t(count);
  const uint64_t room = uint64_t(count) * uint32_t(p.page_size);
  uint64_t len = uint64_t(math::max(n.last.low, 0));
  if (p.seq_lens.data == nullptr)
    len = room - uint32_t(p.page_size) + uint32_t(math::max(1, math::min(n.last.low, p.page_size)));
  if (len > room) len = room;
  return len > 0x7fffffff ? 0x7fffffff : int32_t(len);
}

__device__ __forceinline__ int64_t kv_len_of(const Params& p, const Numbers& n) {
  int64_t begin = 0, end = p.num_kv;
  if (p.kv_indptr.data != nullptr) begin = number(p.kv_indptr, n.kv_begin), end = number(p.kv_indptr, n.kv_end);
  const int64_t count = begin < 0 || end < begin || end > p.num_kv ? 0 : end - begin;
  if (p.page_size == 0) return count;
  if (p.seq_lens.data != nullptr) return clamp(number(p.seq_lens, n.last), 0, count * p.page_size);
  return count == 0 ? 0 : (count - 1) * p.page_size + clamp(number(p.last_page_len, n.last), 1, p.page_size);
}

// Whether the request's mask lies in the tensor of masks.
__device__ __forceinline__ bool has_mask_bytes(const Params& p, int32_t i, int32_t qo_len, int64_t kv_len) {
  if (p.mask_bytes < 0) return true;
  const int64_t begin = p.mask_indptr == nullptr ? 0 : p.mask_indptr[i];
  return begin >= 0 && (int64_t(qo_len) * kv_len + 7) / 8 <= p.mask_bytes - begin;
}

__device__ __forceinline__ Request any_request_of(const Params& p, int32_t i, const Numbers& n) {
  const int64_t kv_len = p.is_narrow ? narrow_kv_len_of(p, n) : clamp(kv_len_of(p, n), 0, 0x7fffffff);
  int64_t begin = int64_t(i) * p.rows_per_request, end = begin + p.rows_per_request;
  if (p.qo_indptr.data != nullptr) begin = number(p.qo_indptr, n.qo_begin), end = number(p.qo_indptr, n.qo_end);
  Request r{int32_t(clamp(begin, 0, p.total_q)), 0, 0, 0};
  r.qo_len = int32_t(clamp(end, r.qo_begin, p.total_q)) - r.qo_begin;
  r.kv_len = has_mask_bytes(p, i, r.qo_len, kv_len) ? int32_t(kv_len) : 0;
  return r;
}
// Without rows where another list has it.
__device__ __forceinline__ Request request_of(const Params& p, int32_t i, const Numbers& n) {
  Request r = any_request_of(p, i, n);
  const int32_t rows = r.qo_len * p.group.divisor;
  if (rows < p.least_rows || rows > p.most_rows) r.qo_len = 0;
  return r;
}
__device__ __forceinline__ Request request_of(const Params& p, int32_t i) { return request_of(p, i, numbers_of(p, i)); }
__device__ __forceinline__ int32_t tiles_of(const Params& p, const Request& r) {
  return (r.qo_len * p.group.divisor + p.tile_q - 1) >> p.tile_shift;
}

__device__ __forceinline__ Request* requests_of(const Params& p) {
  return p.batch_size <= kSharedRequests ? shared().requests : reinterpret_cast<Request*>(p.workspace + p.requests);
}

// Requests without qo_indptr. Returns the number of tiles.
template <Key K>
__device__ __forceinline__ int32_t read_uniform(const Params& p, Request* to) {
  const int32_t tiles = p.rows_per_request == 0 ? 0 : p.tiles_per_request.divisor;
  const bool shares = p.batch_size > kSharedRequests;
  const int32_t step = shares ? num_ctas() * K.threads : K.threads;
#pragma unroll 1
  for (int32_t i = (shares ? cta_rank() * K.threads : 0) + int32_t(threadIdx.x); i < p.batch_size; i += step) {
    Request r = request_of(p, i);
    r.first_tile = i * tiles;
    to[i] = r;
  }
  sync_cluster();
  return math::min(p.batch_size * tiles, p.max_tiles);
}

// All requests, with their first tiles. Returns the number of tiles. The CTAs of a cluster share those that do not fit
// into shared memory, a stretch each.
template <Key K>
__device__ __forceinline__ int32_t read_requests(const Params& p) {
  if (p.batch_size == 0) return 0;
  Request* to = requests_of(p);
  if (p.qo_indptr.data == nullptr) return read_uniform<K>(p, to);
  const bool shares = p.batch_size > kSharedRequests;
  const int32_t stretch = shares ? ceil_div(p.batch_size, num_ctas()) : p.batch_size;
  const int32_t begin = shares ? cta_rank() * stretch : 0, end = math::min(begin + stretch, p.batch_size);
  const uint32_t most = uint32_t(p.max_tiles);
  uint32_t num_tiles = 0;
#pragma unroll 1
  for (int32_t first = begin; first < end; first += K.threads) {
    const int32_t i = first + int32_t(threadIdx.x);
    Request r{0, 0, 0, 0};
    if (i < end) r = request_of(p, i);
    uint32_t total = 0;
    const uint32_t at = num_tiles + sum_before<K>(math::min(uint32_t(tiles_of(p, r)), most), &total);
    r.first_tile = int32_t(math::min(at, most));
    if (i < end) to[i] = r;
    num_tiles = math::min(num_tiles + total, most);
  }
  if (!shares) return sync_cta(), int32_t(num_tiles);
  if (threadIdx.x == 0) shared().num_tiles = num_tiles;
  sync_cluster();
  const Share all = warp_share_of(&shared().num_tiles);
  for (int32_t i = begin + int32_t(threadIdx.x); i < end; i += K.threads)
    to[i].first_tile = int32_t(math::min(uint32_t(to[i].first_tile) + all.before, most));
  sync_cluster();
  return int32_t(math::min(all.total, most));
}

struct Tile {
  Request request;
  int32_t request_idx, row_begin, num_rows, begin, end;  // keys that some of its rows may see

  __device__ __forceinline__ int32_t num_splits(int32_t step) const {
    return end == begin ? 1 : quotient(end - 1, step) + 1 - (begin == 0 ? 0 : quotient(begin, step));
  }
};

// The last request that begins at or before the tile; those without rows begin where the next one does.
__device__ __forceinline__ int32_t owner_of(const Params& p, const Request* requests, int32_t tile) {
  if (p.qo_indptr.data == nullptr) return p.tiles_per_request.quotient(tile);
  int32_t low = 0, high = p.batch_size;
  while (high - low > 1) {
    const int32_t middle = low + (high - low) / 2;
    (requests[middle].first_tile <= tile ? low : high) = middle;
  }
  return low;
}

__device__ __forceinline__ Tile tile_of(const Params& p, int32_t index, int32_t owner, const Request& r) {
  Tile t;
  t.request_idx = owner, t.request = r;
  t.row_begin = (index - r.first_tile) << p.tile_shift;
  t.num_rows = math::min(p.tile_q, r.qo_len * p.group.divisor - t.row_begin);
  t.begin = 0, t.end = r.kv_len;
  if (!p.causal && p.window_left < 0) return t;
  const int64_t kv_len = r.kv_len, offset = kv_len - r.qo_len;
  const int64_t first = offset + p.group.quotient(t.row_begin);
  const int64_t last = offset + p.group.quotient(t.row_begin + t.num_rows - 1);
  if (p.causal) t.end = int32_t(clamp(last + 1, 0, kv_len));
  if (p.window_left >= 0) t.begin = int32_t(clamp(first - p.window_left, 0, t.end));
  return t;
}

// In floats: 64-bit products and conversions take longer than what is done with them.
__device__ __forceinline__ float unit_cost(const Params& p, int32_t num_rows) {
  return float(p.key_cost + num_rows * p.row_cost);
}
__device__ __forceinline__ float cost_of(const Params& p, int32_t num_rows, int32_t num_keys) {
  return (float(num_keys) + float(kItemOverhead)) * unit_cost(p, num_rows);
}

// The tiles of this CTA's stretch, a thread's one after the other in each of the kernel's passes.
template <Key K>
class Tiles {
 public:
  __device__ __forceinline__ Tiles(const Params& p, int32_t num_tiles) : p_(p) {
    const int32_t stretch = ceil_div(num_tiles, num_ctas());
    begin_ = math::min(cta_rank() * stretch, num_tiles), end_ = math::min(begin_ + stretch, num_tiles);
  }
  template <class F>
  __device__ __forceinline__ void for_passes(F f) const {  // f(first): all threads call
#pragma unroll 1
    for (int32_t first = begin_; first < end_; first += K.threads) f(first);
  }
  __device__ __forceinline__ bool is_mine(int32_t first) const { return first + int32_t(threadIdx.x) < end_; }
  __device__ __forceinline__ Tile get(int32_t first) const {
    const int32_t index = first + int32_t(threadIdx.x), owner = owner_of(p_, requests_of(p_), index);
    return tile_of(p_, index, owner, requests_of(p_)[owner]);
  }

 private:
  const Params& p_;
  int32_t begin_, end_;
};

// Sixteen buckets per power of two; 0 costs most.
__device__ __forceinline__ int32_t bucket_of(float cost) {
  const int32_t place = int32_t(bit_cast<uint32_t>(cost) >> 19) - (132 << 4);  // from 2^5 on
  return kBuckets - 1 - math::max(0, math::min(place, kBuckets - 1));
}

// Under fixed_split_len the step is a function of the request's own length, so that its bits are.
__device__ __forceinline__ int32_t fixed_step(const Params& p, int32_t kv_len) {
  int64_t step = p.fixed_split_len;
  while (step * kMaxSplits < kv_len) step *= 2;
  return int32_t(math::min(step, int64_t(0x7fffffff)));
}

}  // namespace fulmen::cuda::attention_prepare
