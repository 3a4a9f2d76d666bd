// SPDX-License-Identifier: Apache-2.0
// Prefetches of K or V rows at the pace at which a kernel consumes others.
#pragma once
#include <fulmen/cpu/simd.h>

FULMEN_CPU_BEGIN

// Asks for the rows of a chunk, [n tokens][num_heads], in the order of memory and line by line: as many lines as the
// work in between consumes. CPUs drop prefetches that come faster than memory answers.
template <class T>
class RowPrefetch {
 public:
  RowPrefetch(const T* const* tokens, int32_t n, int32_t num_heads, int64_t stride_head, int32_t head_dim,
              bool token_major)
      : tokens_(tokens),
        n_(n),
        num_heads_(num_heads),
        lines_per_row_((head_dim * int32_t(sizeof(T)) + 63) / 64),
        stride_(stride_head),
        token_major_(token_major),
        rows_left_(n * num_heads) {
    if (token_major && stride_head == head_dim) {  // a token's heads are one long row
      lines_per_row_ = int32_t((num_heads * int64_t(head_dim) * int64_t(sizeof(T)) + 63) / 64);
      num_heads_ = 1, rows_left_ = n;
    }
    start_row();
  }
  void follow(int64_t consumed_bytes) {
    const int32_t lines = int32_t((consumed_bytes + 63) / 64);
    if (lines < lines_left_) {
      for (int32_t i = 0; i < lines; ++i) prefetch_l2(at_ + i * 64);
      at_ += lines * 64, lines_left_ -= lines;
    } else {
      for (int32_t i = 0; i < lines && rows_left_ > 0; ++i) next_line();
    }
  }
  void all() {
    while (rows_left_ > 0) next_line();
  }

 private:
  void next_line() {
    prefetch_l2(at_);
    at_ += 64;
    if (--lines_left_ > 0) return;
    --rows_left_;
    if (token_major_) {
      if (++head_ == num_heads_) head_ = 0, ++token_;
    } else {
      if (++token_ == n_) token_ = 0, ++head_;
    }
    start_row();
  }
  void start_row() {
    lines_left_ = lines_per_row_;
    if (rows_left_ > 0) at_ = reinterpret_cast<const char*>(tokens_[token_] + head_ * stride_);
  }

  const T* const* tokens_;
  int32_t n_, num_heads_, lines_per_row_;
  int64_t stride_;
  bool token_major_;
  int32_t rows_left_, lines_left_ = 0, token_ = 0, head_ = 0;
  const char* at_ = nullptr;
};

FULMEN_CPU_END
