// SPDX-License-Identifier: Apache-2.0
// Any tensors at all: the check of an op returns, or throws the typed error. What it accepts keeps the op's promises.
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/ops/rope.h>

#include "fuzz/input.h"

namespace fulmen::fuzz {
namespace {

alignas(64) char memory[64];  // checks look at pointers, never behind them

void check_rmsnorm(Input& in) {
  RmsNormArgs a{.input = in.tensor(memory), .weight = in.tensor(memory), .out = in.tensor(memory)};
  if (in.below(4) == 0) a.out_scale = in.tensor(memory);
  a.eps = in.take<float>();
  accepts([&] {
    const RmsNormDims d = check(a);
    expect(d.num_tokens >= 0 && d.num_heads >= 0 && d.hidden_size == a.input.shape[a.input.rank - 1]);
    const bool is_fp8 = a.out.dtype == DType::kE4M3 || a.out.dtype == DType::kE5M2;
    expect((a.out.dtype == a.input.dtype || is_fp8) && a.weight.shape[0] == d.hidden_size);
  });
}

void check_rope(Input& in) {
  RopeArgs a;
  for (TensorView* t : {&a.q, &a.k, &a.q_out, &a.k_out, &a.pos_ids, &a.indptr, &a.offsets, &a.cos_sin_cache})
    if (in.below(4) != 0) *t = in.tensor(memory);
  a.rotary_dim = in.size();
  a.rope_theta = in.take<float>();
  accepts([&] {
    const RopeDims d = check(a);
    expect(d.rotary_dim % 2 == 0 && d.rotary_dim <= d.head_dim && a.q.shape[0] == d.nnz);
  });
}

}  // namespace
}  // namespace fulmen::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fulmen::fuzz::Input in{data, size};
  in.byte() % 2 == 0 ? fulmen::fuzz::check_rmsnorm(in) : fulmen::fuzz::check_rope(in);
  return 0;
}
