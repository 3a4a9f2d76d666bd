// SPDX-License-Identifier: Apache-2.0
// CPU elementwise: blocks of a row are widened, handed to the caller's text as floats (cpu/text/elementwise_unit.h) and
// narrowed. Called by src/cpu/levels/elementwise.cc.
#pragma once
#include <fulmen/cpu/rows.h>
#include <fulmen/cpu/simd.h>
#include <fulmen/cpu/text/elementwise_unit.h>
#include <fulmen/ops/elementwise.h>

FULMEN_CPU_BEGIN

inline constexpr int32_t kElementwiseBlock = 512;

// An input's elements as floats; zeros where there is no input.
struct ElementwiseInput {
  const TensorView& tensor;
  float block[kElementwiseBlock] = {};

  void read(int64_t row, int64_t first, int32_t n) {
    if (!tensor.defined()) return;
    for_dtype<float, f16, bf16, e4m3, e5m2>(tensor.dtype, [&]<class T>(T) {
      const T* const x = Rows<const T>(tensor)[row] + first;
      int32_t i = 0;
      for (; i + kLanes <= n; i += kLanes) store(block + i, load(x + i));
      if (i < n) store_n(block + i, load_n(x + i, n - i), n - i);
    });
  }
};

inline void write_block(const float* block, const TensorView& out, int64_t row, int64_t first, int32_t n) {
  for_dtype<float, f16, bf16, e4m3, e5m2>(out.dtype, [&]<class T>(T) {
    T* const x = Rows<T>(out)[row] + first;
    int32_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(x + i, load(block + i));
    if (i < n) store_n(x + i, load_n(block + i, n - i), n - i);
  });
}

inline void elementwise(const ElementwiseArgs& args, const ElementwiseDims& d, const text::ElementwiseTable& table,
                        const Executor& executor) {
  const int64_t num_blocks = (d.n + kElementwiseBlock - 1) / kElementwiseBlock;
  const int64_t num_items = d.num_tokens * d.num_heads * num_blocks;
  parallel_chunks(executor, num_items, 1 + 4096 / d.n, [&](int64_t begin, int64_t end, int32_t) {
    ElementwiseInput a{args.a}, b{args.b}, c{args.c}, e{args.d};
    float out[kElementwiseBlock];
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item / num_blocks, first = item % num_blocks * kElementwiseBlock;
      const int32_t n = int32_t(d.n - first < kElementwiseBlock ? d.n - first : kElementwiseBlock);
      a.read(row, first, n), b.read(row, first, n), c.read(row, first, n), e.read(row, first, n);
      table.apply(a.block, b.block, c.block, e.block, args.s, out, n);
      write_block(out, args.out, row, first, n);
    }
  });
}

FULMEN_CPU_END
