// SPDX-License-Identifier: Apache-2.0
// A paged cache's table as kernels take it: which page and slot a new token's row belongs to. Three dependent reads, in
// as many steps, so that a kernel can load and compute between them.
#pragma once
#include <fulmen/cuda/ids.h>

namespace fulmen::cuda {

struct PageTable {
  IdVector batch_indices, positions, kv_indices, kv_indptr;
  int64_t batch_size, num_pages, num_kv_indices;
  int32_t page_size;

  struct Slot {
    int64_t page = -1, in_page = 0;  // page -1: nowhere
  };
  struct Asked {
    int64_t request = -1, position = -1;
    int64_t first = 0;  // of the request's pages in kv_indices
  };

  FULMEN_FN Asked ask(int64_t token) const { return {batch_indices[token], positions[token], 0}; }
  FULMEN_FN void find_pages(Asked& a) const {
    if (a.request >= 0 && a.request < batch_size)
      a.first = kv_indptr[a.request];
    else
      a.position = -1;
  }
  // Nowhere for padding, and for indices that point outside: kernels stay inside their tensors whatever they are given.
  FULMEN_FN Slot slot_of(const Asked& a) const {
    if (a.position < 0) return {};
    const bool small = uint64_t(a.position) >> 32 == 0;  // a 64-bit division takes as long as a read
    const int64_t in_table = small ? int64_t(uint32_t(a.position) / uint32_t(page_size)) : a.position / page_size;
    const int64_t index = a.first + in_table;
    if (index < 0 || index >= num_kv_indices) return {};
    const int64_t page = kv_indices[index];
    return page < 0 || page >= num_pages ? Slot{} : Slot{page, a.position - in_table * page_size};
  }
};

}  // namespace fulmen::cuda
