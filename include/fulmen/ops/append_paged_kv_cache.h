// SPDX-License-Identifier: Apache-2.0
// append_paged_kv_cache: copies the keys and values of new tokens to their slots of the paged cache.
//   b = batch_indices[t], p = positions[t], page = kv_indices[kv_indptr[b] + p / page_size]
//   k_cache[page, p mod page_size] = append_key[t],   v_cache likewise
// The page table already counts the new tokens. A token whose batch index is negative is padding and is skipped.
// Nothing is converted: bytes are copied. NHD and HND are strides: the view is always [num_pages, page_size, heads,
// dim]. On the CPU a bad index is refused before anything is written, naming token, request and position.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

inline constexpr DTypes kCacheElements = kFloats | kFp8 | of(DType::kU8, DType::kI8);

struct AppendPagedKvCacheArgs {
  TensorView append_key;     // [nnz, num_kv_heads, head_dim_qk] the cache's dtype
  TensorView append_value;   // [nnz, num_kv_heads, head_dim_vo] the cache's dtype
  TensorView batch_indices;  // [nnz] i32, i64; negative: skipped
  TensorView positions;      // [nnz] i32, i64, position in the request's kv
  TensorView k_cache;        // [num_pages, page_size, num_kv_heads, head_dim_qk], written
  TensorView v_cache;        // [num_pages, page_size, num_kv_heads, head_dim_vo], written
  TensorView kv_indices;     // [num_kv_indices] i32, i64, page numbers
  TensorView kv_indptr;      // [batch_size+1] i32, i64, offsets into kv_indices
  TensorView last_page_len;  // [batch_size] i32, i64; optional: given, no position may lie behind it
};

inline constexpr OpSchema kAppendPagedKvCacheSchema{
    "append_paged_kv_cache",
    {
        {"append_key", "nnz num_kv_heads head_dim_qk", kCacheElements, Access::kRead, Presence::kRequired, "new keys"},
        {"append_value", "nnz num_kv_heads head_dim_vo", kCacheElements, Access::kRead, Presence::kRequired,
         "new values"},
        {"batch_indices", "nnz", kIds, Access::kRead, Presence::kRequired, "request of each token; negative: skipped"},
        {"positions", "nnz", kIds, Access::kRead, Presence::kRequired, "position of each token in its request"},
        {"k_cache", "num_pages page_size num_kv_heads head_dim_qk", kCacheElements, Access::kWrite, Presence::kRequired,
         "append_key's dtype"},
        {"v_cache", "num_pages page_size num_kv_heads head_dim_vo", kCacheElements, Access::kWrite, Presence::kRequired,
         "append_value's dtype"},
        {"kv_indices", "num_kv_indices", kIds, Access::kRead, Presence::kRequired, "page numbers of all requests"},
        {"kv_indptr", "batch_size+1", kIds, Access::kRead, Presence::kRequired, "first page of each request"},
        {"last_page_len", "batch_size", kIds, Access::kRead, Presence::kOptional, "tokens in each last page"},
    }};

struct AppendPagedKvCacheDims {
  int64_t nnz, batch_size, num_kv_heads, head_dim_qk, head_dim_vo, num_pages, page_size, num_kv_indices;
};

AppendPagedKvCacheDims check(const AppendPagedKvCacheArgs& args);  // throws Error{kInvalidArgument}
void append_paged_kv_cache(const AppendPagedKvCacheArgs& args, const Context& context = {});

inline Cost cost(const AppendPagedKvCacheArgs& args) {
  const double written = double(args.append_key.num_elements()) * size_of(args.append_key.dtype) +
                         double(args.append_value.num_elements()) * size_of(args.append_value.dtype);
  return {.bytes = 2 * written, .bytes_written = written};
}

}  // namespace fulmen
