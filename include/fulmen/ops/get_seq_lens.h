// SPDX-License-Identifier: Apache-2.0
// get_seq_lens: kv_len of every request from its page table.
//   num_pages = kv_indptr[b+1] − kv_indptr[b]
//   seq_lens[b] = num_pages == 0 ? 0 : (num_pages − 1) · page_size + last_page_len[b]
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

struct GetSeqLensArgs {
  TensorView kv_indptr;      // [batch_size+1] i32, i64
  TensorView last_page_len;  // [batch_size] i32, i64, each in 1..page_size where the request has a page
  TensorView seq_lens;       // [batch_size] i32, i64, written
  int64_t page_size = 1;     // tokens
};

inline constexpr OpSchema kGetSeqLensSchema{
    "get_seq_lens",
    {
        {"kv_indptr", "batch_size+1", kIds, Access::kRead, Presence::kRequired, "first page of each request"},
        {"last_page_len", "batch_size", kIds, Access::kRead, Presence::kRequired, "tokens in each last page"},
        {"seq_lens", "batch_size", kIds, Access::kWrite, Presence::kRequired, "kv_len of each request"},
    }};

struct GetSeqLensDims {
  int64_t batch_size;
};

GetSeqLensDims check(const GetSeqLensArgs& args);  // throws Error{kInvalidArgument}
void get_seq_lens(const GetSeqLensArgs& args, const Context& context = {});

inline Cost cost(const GetSeqLensArgs& args) {
  const double n = double(args.seq_lens.num_elements()), written = n * size_of(args.seq_lens.dtype);
  return {.bytes = n * (size_of(args.kv_indptr.dtype) + size_of(args.last_page_len.dtype)) + written,
          .bytes_written = written};
}

}  // namespace fulmen
