// SPDX-License-Identifier: Apache-2.0
// NaN in what attention reads.
#include <fulmen/attention/call.h>

#include <cmath>

#include "tests/support/attention_on_gpu.h"
#include "tests/support/gpu_case.h"

namespace fulmen::testing {
namespace {

class CudaAttentionNan : public OnGpu {};

// A NaN in a query or in a key that a row sees is the row's result, not a row without keys.
TEST_F(CudaAttentionNan, ReachesTheResult) {
  for (int64_t qo_len : {1, 40}) {
    AttentionCase c;
    c.q_dtype = c.kv_dtype = half_dtype();
    c.num_kv_heads = 1, c.group = 2, c.lens = {{qo_len, 300}, {qo_len, 90}}, c.out_dtype = DType::kF32;
    for (bool in_key : {false, true}) {
      SCOPED_TRACE(std::to_string(qo_len) + (in_key ? " key" : " query"));
      AttentionProblem p(c);
      if (in_key)
        p.k.set(int64_t(reference::element(p.kv_indices, 3)) * c.page_size * c.d_qk + 5, NAN);
      else
        p.q.set(0, NAN);
      OnDevice d(p);
      batch_attention(d.args);
      d.fetch();
      for (int64_t row = 0; row < 2 * qo_len; ++row)
        for (int64_t h = 0; h < 2; ++h) {
          const bool bad = in_key ? row < qo_len : row == 0 && h == 0;
          EXPECT_EQ(std::isnan(p.lse.data<float>()[row * 2 + h]), bad)
              << row << " " << h << " lse " << p.lse.data<float>()[row * 2 + h];
          EXPECT_EQ(std::isnan(p.out.data<float>()[(row * 2 + h) * 64]), bad) << row << " " << h;
        }
    }
  }
}

}  // namespace
}  // namespace fulmen::testing
