// SPDX-License-Identifier: Apache-2.0
// rope_append_paged_kv_cache and rope_quantize_fp8.
#include <fulmen/ops/rope_quantize_fp8.h>
#include <fulmen/reference/rope_append_paged_kv_cache.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/rope_append_problem.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

std::string shape_of(const testing::RopeAppendCase& c) {
  return std::to_string(c.append_lens[0]) + "x(" + std::to_string(c.num_qo_heads) + "+" +
         std::to_string(c.num_kv_heads) + ") rope " + std::to_string(c.rope_dim) + " nope " +
         std::to_string(c.k_nope_dim);
}

void add_append(const char* name, const testing::RopeAppendCase& c) {
  bench::add(std::string("rope_append_paged_kv_cache/") + name, shape_of(c), [=] {
    auto p = std::make_shared<testing::RopeAppendProblem>(c);
    return bench::Subject{
        .run = [p] { rope_append_paged_kv_cache(p->args); },
        .check = [p] { return testing::within(p->q_rope_out, reference::rope_append_paged_kv_cache(p->args).q_rope); },
        .cost = cost(p->args)};
  });
}

void add_quantize(const char* name, const testing::RopeAppendCase& c) {
  bench::add(std::string("rope_quantize_fp8/") + name, shape_of(c), [=] {
    auto p = std::make_shared<testing::RopeAppendProblem>(c);
    return bench::Subject{
        .run = [p] { rope_quantize_fp8(p->dense); },
        .check = [p] { return testing::within(p->q_rope_out, reference::rope_quantize_fp8(p->dense).q_rope); },
        .cost = cost(p->dense)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  using fulmen::DType;
  fulmen::testing::RopeAppendCase c{.num_qo_heads = 32,
                                    .num_kv_heads = 8,
                                    .rope_dim = 128,
                                    .head_dim_vo = 128,
                                    .kv_lens = {512},
                                    .append_lens = {512}};
  fulmen::add_append("bfloat16", c);
  c.q_out = c.kv_out = DType::kE4M3;
  fulmen::add_append("bfloat16_to_e4m3", c);
  fulmen::add_quantize("bfloat16_to_e4m3", c);
  c.num_qo_heads = 16, c.num_kv_heads = 1, c.rope_dim = 64, c.q_nope_dim = c.k_nope_dim = 512, c.head_dim_vo = 0;
  fulmen::add_append("mla_to_e4m3", c);
  return fulmen::bench::run(argc, argv, "rope_append_paged_kv_cache");
}
