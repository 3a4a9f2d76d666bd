// SPDX-License-Identifier: Apache-2.0
// CPU sample. A work item is one row. Without a filter: sums of the weights per block, then one block is walked. With
// one: the same over the list of tokens that the filter keeps. Called by src/cpu/levels/sample.cc.
#pragma once
#include <fulmen/core/philox.h>
#include <fulmen/cpu/token_filter.h>
#include <fulmen/ops/sample.h>

FULMEN_CPU_BEGIN

inline uint64_t one_or_own(const TensorView& t, uint64_t number, int64_t row) {
  return t.defined() ? t.as<uint64_t>()[t.shape[0] == 1 ? 0 : row * t.strides[0]] : number;
}

// The random bits of output row `row`, `step` calls after its offset.
inline PhiloxBlock random_block(const RandomSource& r, int64_t row, int64_t step) {
  const bool own_seed = r.seed_arr.defined() && r.seed_arr.shape[0] != 1;
  return philox(one_or_own(r.seed_arr, r.seed, row), one_or_own(r.offset_arr, r.offset, row) + uint64_t(step),
                own_seed ? 0 : uint64_t(row));
}

struct Drawn {
  int64_t token = 0;
  RowStatus status = RowStatus::kOk;
};

// Probabilities without a filter need no scan: one pass of sums, which are finite unless the row is out of the
// ordinary.
inline bool draw_plain_probs(const float* x, int64_t n, double u, RowScratch& s, Drawn& drawn) {
  const ProbWeight weight{splat(1)};
  const double total = sum_blocks(x, n, weight, s.sums.get());
  if (!(total > 0 && total < 0x1p100)) return false;
  drawn.token = draw(x, n, weight, s.sums.get(), total, u);
  return true;
}

template <class T>
Drawn draw_row(const T* x, int64_t n, TokenValues values, const RowFilter& f, double u) {
  RowScratch& s = row_scratch(n);
  Drawn drawn;
  if constexpr (std::is_same_v<T, float>)
    if (values == TokenValues::kProbs && f.keeps_all() && draw_plain_probs(x, n, u, s, drawn)) return drawn;
  const RowScan scan = scan_row(x, n, s);
  drawn.status = judge(scan, values, f.status);
  if (drawn.status == RowStatus::kNan || drawn.status == RowStatus::kEmpty) return drawn;
  const TokenRow row{scan.x, n, values, scan.top, scale_of(scan.top)};
  if (f.top_k == 1 && !f.keep_ties) {
    drawn.token = first_of(scan.x, n, s.chunk_max, scan.top);
  } else if (f.keeps_all() && scan.top < kInf) {
    with_weight(row, f.inv_temperature, [&](const auto& weight) {
      const double total = sum_blocks(row.x, n, weight, s.sums.get());
      drawn.token = draw(row.x, n, weight, s.sums.get(), total, u);
    });
  } else {
    keep_tokens(row, f, s);
    const double total = mass_of(s.list, s.sums.get());
    drawn.token = s.list.idx[draw(s.list.w, s.list.n, ProbWeight{splat(1)}, s.sums.get(), total, u)];
  }
  return drawn;
}

inline void set_id(const TensorView& t, int64_t at, int64_t value) {
  if (t.dtype == DType::kI64)
    t.as<int64_t>()[at] = value;
  else
    t.as<int32_t>()[at] = int32_t(value);
}
inline int64_t get_id(const TensorView& t, int64_t at) {
  return t.dtype == DType::kI64 ? t.as<int64_t>()[at] : t.as<int32_t>()[at];
}

template <class T>
Drawn sample_row(const SampleArgs& a, const SampleDims& d, int64_t row) {
  const int64_t input_row = a.indices.defined() ? get_id(a.indices, row * a.indices.strides[0]) : row;
  if (input_row < 0 || input_row >= d.num_rows) return {0, RowStatus::kBadParameter};
  const bool own = a.temperature_arr.defined();
  const float temperature = own ? a.temperature_arr.as<float>()[row * a.temperature_arr.strides[0]] : a.temperature;
  const RowFilter filter = row_filter(a.filter, temperature, row, d.vocab_size);
  const double u = uniform(random_block(a.random, row, 0), 0);
  return draw_row(a.input.as<T>() + input_row * a.input.strides[0], d.vocab_size, a.values, filter, u);
}

inline void sample(const SampleArgs& a, const SampleDims& d, const Executor& executor) {
  for_dtype<float, f16, bf16>(a.input.dtype, [&]<class T>(T) {
    parallel_for(executor, d.batch_size, [&](int64_t row, int32_t) {
      const Drawn drawn = sample_row<T>(a, d, row);
      set_id(a.out, row * a.out.strides[0], drawn.token);
      set_status(a.status, row, drawn.status);
      if (a.valid.defined())
        a.valid.as<uint8_t>()[row * a.valid.strides[0]] =
            drawn.status == RowStatus::kOk || drawn.status == RowStatus::kInfinite;
    });
  });
}

FULMEN_CPU_END
