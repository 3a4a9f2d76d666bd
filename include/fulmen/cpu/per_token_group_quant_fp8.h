// SPDX-License-Identifier: Apache-2.0
// CPU per_token_group_quant_fp8. A work item is one token; a group is read twice, the second time from L1.
// Called by src/cpu/levels/per_token_group_quant_fp8.cc.
#pragma once
#include <fulmen/cpu/quant_fp8.h>
#include <fulmen/cpu/rows.h>
#include <fulmen/ops/per_token_group_quant_fp8.h>

#include <algorithm>

FULMEN_CPU_BEGIN

// The least power of two that is not below x; x is positive and normal.
inline float round_up_to_pow2(float x) { return bit_cast<float>((bit_cast<uint32_t>(x) + 0x7fffffu) & 0xff800000u); }

template <class T, class O>
void per_token_group_quant_fp8_rows(const PerTokenGroupQuantFp8Args& a, const PerTokenGroupQuantFp8Dims& d,
                                    const Executor& executor) {
  const Rows<const T> in(a.input);
  const Rows<O> out(a.out);
  const int64_t token_stride = a.group_major_scales ? 1 : a.scales.strides[0];
  const int64_t group_stride = a.group_major_scales ? a.scales.strides[0] : 1;
  parallel_chunks(executor, d.num_tokens, rows_per_chunk(d.hidden_size), [&](int64_t begin, int64_t end, int32_t) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t g = 0; g < d.num_groups; ++g) {
        const T* x = in[t] + g * a.group_size;
        const float exact = std::max(largest_magnitude(x, a.group_size), a.eps) / kLargestFp8<O>;
        const float least = std::max(exact, 0x1p-96f);  // so that its reciprocal is finite
        const float scale = a.pow2_scales ? round_up_to_pow2(least) : least;
        a.scales.as<float>()[t * token_stride + g * group_stride] = scale;
        scale_and_store(x, 1 / scale, out[t] + g * a.group_size, a.group_size);
      }
  });
}

inline void per_token_group_quant_fp8(const PerTokenGroupQuantFp8Args& a, const PerTokenGroupQuantFp8Dims& d,
                                      const Executor& executor) {
  for_dtype<float, f16, bf16>(a.input.dtype, [&]<class T>(T) {
    for_dtype<e4m3, e5m2>(a.out.dtype, [&]<class O>(O) { per_token_group_quant_fp8_rows<T, O>(a, d, executor); });
  });
}

FULMEN_CPU_END
