// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/rope.h>
#include <fulmen/reference/rope.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

struct Shape {
  int64_t nnz, num_qo_heads, num_kv_heads, head_dim;
};

void add_row(DType dtype, bool interleave, Shape s) {
  const std::string shape = std::to_string(s.nnz) + "x(" + std::to_string(s.num_qo_heads) + "+" +
                            std::to_string(s.num_kv_heads) + ")x" + std::to_string(s.head_dim);
  bench::add(std::string("rope/") + name_of(dtype) + (interleave ? "_interleaved" : ""), shape, [=] {
    struct Problem {
      testing::Tensor q, k, q_out, k_out, pos_ids;
    };
    const std::vector<int64_t> q{s.nnz, s.num_qo_heads, s.head_dim}, k{s.nnz, s.num_kv_heads, s.head_dim};
    auto p = std::make_shared<Problem>(Problem{{dtype, q}, {dtype, k}, {dtype, q}, {dtype, k}, {DType::kI32, {s.nnz}}});
    p->q.fill_normal(1);
    p->k.fill_normal(2);
    p->pos_ids.fill([](int64_t t) { return double(t); });
    RopeArgs args{.q = p->q, .q_out = p->q_out, .pos_ids = p->pos_ids, .interleave = interleave};
    if (s.num_kv_heads > 0) args.k = p->k, args.k_out = p->k_out;
    return bench::Subject{.run = [args] { rope(args); },
                          .check = [args, p] { return testing::within(p->q_out, reference::rope(args).q); },
                          .cost = cost(args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  using fulmen::DType;
  fulmen::add_row(DType::kF32, false, {2048, 32, 0, 128});  // the standard row
  for (DType t : {DType::kF32, DType::kBF16})
    for (bool interleave : {false, true})
      for (int64_t nnz : {1, 512}) fulmen::add_row(t, interleave, {nnz, 32, 8, 128});
  return fulmen::bench::run(argc, argv, "rope");
}
