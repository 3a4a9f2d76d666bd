// SPDX-License-Identifier: Apache-2.0
// CPU softmax. A work item is one row: its largest logit, then weights and their sum, then the division.
// Called by src/cpu/levels/softmax.cc.
#pragma once
#include <fulmen/cpu/token_filter.h>
#include <fulmen/ops/softmax.h>

FULMEN_CPU_BEGIN

// out = weight(x), and the sum of them. Block by block, so that the sum reads what is still in L1.
template <class T>
double weigh_row(const T* x, int64_t n, const LogitWeight& weight, float* out) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(n, begin + kBlock);
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) store(out + i, weight(load(x + i)));
    if (const int32_t left = int32_t(end - i); left > 0) store_n(out + i, weight(load_n(x + i, left)), left);
    total += double(block_sum(out + begin, end - begin, ProbWeight{splat(1)}));
  }
  return total;
}

inline void scale_in_place(float* x, int64_t n, float scale) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(x + i, load(x + i) * splat(scale));
  if (const int32_t left = int32_t(n - i); left > 0) store_n(x + i, load_n(x + i, left) * splat(scale), left);
}

// The limits: +inf logits share all the mass; at temperature 0 the first largest one has it.
template <class T>
void softmax_limit(const T* x, int64_t n, float top, bool first, float* out) {
  int64_t num = 0;
  for (int64_t i = 0; i < n; ++i) {
    const bool has_mass = to_f32(x[i]) == top && !(first && num > 0);
    num += has_mass;
    out[i] = has_mass;
  }
  scale_in_place(out, n, 1 / float(num));
}

template <class T>
RowStatus softmax_row(const T* x, int64_t n, float temperature, float* out) {
  RowScratch& s = row_scratch(n);
  const RowScan scan = scan_row(x, n, s);
  const RowFilter f = row_filter({}, temperature, 0, n);
  const RowStatus status = judge(scan, TokenValues::kLogits, f.status);
  if (status == RowStatus::kNan || status == RowStatus::kEmpty) {
    std::fill(out, out + n, status == RowStatus::kNan ? std::numeric_limits<float>::quiet_NaN() : 0.f);
  } else if (f.top_k == 1 || scan.top == kInf) {
    softmax_limit(x, n, scan.top, f.top_k == 1, out);
  } else {
    const double total = weigh_row(x, n, LogitWeight{splat(scan.top), splat(f.inv_temperature)}, out);
    scale_in_place(out, n, float(1 / total));
  }
  return status;
}

inline void softmax(const SoftmaxArgs& a, const SoftmaxDims& d, const Executor& executor) {
  for_dtype<float, f16, bf16>(a.logits.dtype, [&]<class T>(T) {
    parallel_for(executor, d.num_rows, [&](int64_t row, int32_t) {
      const bool own = a.temperature_arr.defined();
      const float temperature = own ? a.temperature_arr.as<float>()[row * a.temperature_arr.strides[0]] : a.temperature;
      set_status(a.status, row,
                 softmax_row(a.logits.as<T>() + row * a.logits.strides[0], d.vocab_size, temperature,
                             a.out.as<float>() + row * a.out.strides[0]));
    });
  });
}

FULMEN_CPU_END
