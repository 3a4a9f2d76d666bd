// SPDX-License-Identifier: Apache-2.0
// What the tests of chain_speculative_sampling share between the CPU and the GPU: a problem, what is wrong with its
// rows, and the cases that every backend must get right.
#pragma once
#include <fulmen/ops/chain_speculative_sampling.h>
#include <fulmen/reference/chain_speculative_sampling.h>

#include <functional>
#include <initializer_list>
#include <string>

#include "tests/support/tokens.h"

namespace fulmen::testing {

struct ChainProblem {
  Tensor draft, ids, target, out, accepted, emitted, status;
  int64_t n, vocab_size;
  ChainSpeculativeSamplingArgs args;
  ChainProblem(int64_t batch_size, int64_t num_draft, int64_t vocab, Shape shape, DType id_type = DType::kI32)
      : draft(DType::kF32, {batch_size, num_draft, vocab}),
        ids(id_type, {batch_size, num_draft}),
        target(DType::kF32, {batch_size, num_draft + 1, vocab}),
        out(id_type, {batch_size, num_draft + 1}),
        accepted(DType::kI32, {batch_size}),
        emitted(DType::kI32, {batch_size}),
        status(DType::kI32, {batch_size}),
        n(num_draft),
        vocab_size(vocab) {
    Tensor d(DType::kF32, {batch_size * n, vocab}), t(DType::kF32, {batch_size * (n + 1), vocab});
    fill_tokens(d, TokenValues::kProbs, shape, 1), fill_tokens(t, TokenValues::kProbs, shape, 2);
    draft.fill([&](int64_t i) { return reference::element(d, i); });
    target.fill([&](int64_t i) { return reference::element(t, i); });
    ids.fill_integers(3, 0, int32_t(vocab) - 1);
    reset_counts();
    args = {.draft_probs = draft,
            .draft_token_ids = ids,
            .target_probs = target,
            .out = out,
            .accepted_num = accepted,
            .emitted_num = emitted,
            .status = status,
            .random = {.seed = 17}};
  }
  // The op adds to them.
  void reset_counts() {
    accepted.fill([](int64_t i) { return double(i); }), emitted.fill([](int64_t) { return 5; });
  }
  // The first thing that is wrong with a row, or nothing.
  std::string wrong(int64_t row) const {
    const reference::ChainReference ref = reference::chain(args, row);
    const auto at = [&](int64_t i) { return int64_t(reference::element(out, row * (n + 1) + i)); };
    for (int64_t i = 0; i < ref.emitted; ++i)
      if (at(i) != int64_t(reference::element(ids, row * n + i))) return "emitted token " + std::to_string(i);
    if (!reference::acceptable(ref.last, ref.last_u, at(ref.emitted), 2)) return "last token";
    for (int64_t i = ref.emitted + 1; i <= n; ++i)
      if (at(i) != -1) return "padding";
    if (emitted.data<int32_t>()[row] != 5 + ref.emitted) return "emitted_num";
    if (accepted.data<int32_t>()[row] != row + ref.accepted) return "accepted_num";
    return out.guards_intact() ? "" : "guard bytes";
  }
};

// Runs the op on a problem's tensors, wherever.
using ChainRun = std::function<void(ChainProblem&)>;

inline void expect_rows_as_defined(const ChainRun& run, int64_t batch_size, std::initializer_list<int64_t> vocabs) {
  for (Shape shape : kShapes)
    for (int64_t n : {0, 1, 4})
      for (int64_t vocab_size : vocabs) {
        ChainProblem p(batch_size, n, vocab_size, shape, n == 1 ? DType::kI64 : DType::kI32);
        run(p);
        for (int64_t row = 0; row < batch_size; ++row)
          EXPECT_EQ(p.wrong(row), "") << "row " << row << " n " << n << " vocab " << vocab_size << " shape "
                                      << int(shape);
      }
}

inline void expect_bad_rows_apart(const ChainRun& run) {
  ChainProblem clean(6, 2, 30, Shape::kNormal), p(6, 2, 30, Shape::kNormal);
  run(clean);
  for (int64_t i = 0; i < 60; ++i) p.draft.set(60 + i, NAN);  // row 1
  for (int64_t i = 0; i < 90; ++i) p.target.set(180 + i, 0);  // row 2
  p.ids.set(6, 1 << 20), p.ids.set(8, -5);                    // rows 3 and 4
  run(p);
  const RowStatus expected[] = {RowStatus::kOk,           RowStatus::kNan,          RowStatus::kEmpty,
                                RowStatus::kBadParameter, RowStatus::kBadParameter, RowStatus::kOk};
  for (int64_t row = 0; row < 6; ++row) {
    EXPECT_EQ(p.status.data<int32_t>()[row], int32_t(expected[row])) << row;
    EXPECT_EQ(p.wrong(row), "") << row;
    for (int64_t i = 0; i < 3; ++i) {
      const int32_t token = p.out.data<int32_t>()[row * 3 + i];
      EXPECT_TRUE(token >= -1 && token < 30);
      if (expected[row] == RowStatus::kOk) { EXPECT_EQ(token, clean.out.data<int32_t>()[row * 3 + i]); }
    }
  }
}

inline void expect_equal_distributions_accept_everything(const ChainRun& run) {
  ChainProblem p(50, 3, 20, Shape::kNormal);
  for (int64_t row = 0; row < 50; ++row)
    for (int64_t i = 0; i < 60; ++i) p.target.set(row * 80 + i, reference::element(p.draft, row * 60 + i));
  run(p);
  for (int64_t row = 0; row < 50; ++row) EXPECT_EQ(p.emitted.data<int32_t>()[row], 5 + 3);
}

}  // namespace fulmen::testing
