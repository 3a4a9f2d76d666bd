// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/merge_state.h>
#include <fulmen/reference/merge_state.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

void add_row(DType dtype, int64_t num_tokens, int64_t num_states, int64_t num_heads, int64_t head_dim) {
  const auto text = [](int64_t n) { return std::to_string(n); };
  const std::string shape = text(num_tokens) + "x" + text(num_states) + "x" + text(num_heads) + "x" + text(head_dim);
  bench::add(std::string("merge_states/") + name_of(dtype), shape, [=] {
    struct Problem {
      testing::Tensor v, s, out, lse;
    };
    auto p = std::make_shared<Problem>(Problem{{dtype, {num_tokens, num_states, num_heads, head_dim}},
                                               {DType::kF32, {num_tokens, num_states, num_heads}},
                                               {dtype, {num_tokens, num_heads, head_dim}},
                                               {DType::kF32, {num_tokens, num_heads}}});
    p->v.fill_normal(1);
    p->s.fill_normal(2);
    const MergeStatesArgs args{.v = p->v, .s = p->s, .out = p->out, .lse = p->lse};
    return bench::Subject{.run = [args] { merge_states(args); },
                          .check = [args, p] { return testing::within(p->out, reference::merge_states(args).out); },
                          .cost = cost(args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  for (fulmen::DType t : {fulmen::DType::kF32, fulmen::DType::kBF16})
    for (int64_t num_states : {2, 8}) fulmen::add_row(t, 512, num_states, 32, 128);
  return fulmen::bench::run(argc, argv, "merge_state");
}
