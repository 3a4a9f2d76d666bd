// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/fused_add_rmsnorm.h>
#include <fulmen/reference/fused_add_rmsnorm.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

void add_row(DType dtype, DType out_dtype, int64_t num_tokens, int64_t hidden_size) {
  const std::string shape = std::to_string(num_tokens) + "x" + std::to_string(hidden_size);
  const std::string to = out_dtype == dtype ? "" : std::string("_to_") + name_of(out_dtype);
  bench::add(std::string("fused_add_rmsnorm/") + name_of(dtype) + to, shape, [=] {
    struct Problem {
      testing::Tensor input, residual, weight, out;
      reference::FusedAddRmsNorm expected;
    };
    auto p = std::make_shared<Problem>(Problem{{dtype, {num_tokens, hidden_size}},
                                               {dtype, {num_tokens, hidden_size}},
                                               {dtype, {hidden_size}},
                                               {out_dtype, {num_tokens, hidden_size}},
                                               {}});
    p->input.fill([](int64_t i) { return double(i % 97) / 97 - 0.5; });
    p->residual.fill([](int64_t i) { return double(i % 89) / 89 - 0.5; });
    p->weight.fill_normal(2);
    const FusedAddRmsNormArgs args{.input = p->input, .residual = p->residual, .weight = p->weight, .out = p->out};
    p->expected = reference::fused_add_rmsnorm(args);  // before the first run: the residual grows from run to run
    return bench::Subject{
        .run = [args] { fused_add_rmsnorm(args); },
        .check =
            [p] {
              const auto residual = testing::within(p->residual, p->expected.residual);
              return residual ? testing::within(p->out, p->expected.out) : residual;
            },
        .cost = cost(args),
        .footprint_bytes = double(p->input.num_bytes() + p->residual.num_bytes() + p->out.num_bytes())};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  using fulmen::DType;
  for (DType t : {DType::kF32, DType::kBF16})
    for (int64_t num_tokens : {1, 99, 989}) fulmen::add_row(t, t, num_tokens, 4096);
  fulmen::add_row(DType::kBF16, DType::kE4M3, 989, 4096);
  return fulmen::bench::run(argc, argv, "fused_add_rmsnorm");
}
