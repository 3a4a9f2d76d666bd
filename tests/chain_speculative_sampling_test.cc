// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/chain_speculative_sampling.h>
#include <fulmen/reference/chain_speculative_sampling.h>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/tokens.h"

namespace fulmen::testing {
namespace {

struct Problem {
  Tensor draft, ids, target, out, accepted, emitted, status;
  ChainSpeculativeSamplingArgs args;
  Problem(int64_t batch_size, int64_t n, int64_t vocab_size, Shape shape, DType id_type = DType::kI32)
      : draft(DType::kF32, {batch_size * n, vocab_size}),
        ids(id_type, {batch_size, n}),
        target(DType::kF32, {batch_size * (n + 1), vocab_size}),
        out(id_type, {batch_size, n + 1}),
        accepted(DType::kI32, {batch_size}),
        emitted(DType::kI32, {batch_size}),
        status(DType::kI32, {batch_size}) {
    fill_tokens(draft, TokenValues::kProbs, shape, 1), fill_tokens(target, TokenValues::kProbs, shape, 2);
    ids.fill_integers(3, 0, int32_t(vocab_size) - 1);
    accepted.fill([](int64_t i) { return double(i); }), emitted.fill([](int64_t) { return 5; });
    args = {.draft_probs = view_of(draft.data<float>(), {batch_size, n, vocab_size}),
            .draft_token_ids = ids,
            .target_probs = view_of(target.data<float>(), {batch_size, n + 1, vocab_size}),
            .out = out,
            .accepted_num = accepted,
            .emitted_num = emitted,
            .status = status,
            .random = {.seed = 17}};
  }
  // The first thing that is wrong with a row, or nothing.
  std::string wrong(int64_t row) const {
    const reference::ChainReference ref = reference::chain(args, row);
    const int64_t n = args.draft_probs.shape[1];
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

TEST(ChainSpeculativeSampling, EveryRowIsAsTheDefinitionSaysAtEveryLevel) {
  for (Shape shape : kShapes)
    for (int64_t n : {0, 1, 4})
      for (int64_t vocab_size : {1, 3, 50, 2000})
        for (CpuLevel level : levels()) {
          Problem p(20, n, vocab_size, shape, n == 1 ? DType::kI64 : DType::kI32);
          chain_speculative_sampling(p.args, at(level));
          for (int64_t row = 0; row < 20; ++row)
            EXPECT_EQ(p.wrong(row), "") << runtime::name_of(level) << " row " << row << " n " << n << " vocab "
                                        << vocab_size << " shape " << int(shape);
        }
}

// Drafts drawn from the draft distribution must come out distributed as the target's, whatever the draft was.
TEST(ChainSpeculativeSampling, OutputFollowsTheTargetDistribution) {
  const int64_t num_draws = draws(30000), vocab_size = 12;
  for (Shape shape : kShapes)
    for (Shape draft_shape : {Shape::kFlat, Shape::kNormal}) {
      Tensor one_draft(DType::kF32, {1, vocab_size}), one_target(DType::kF32, {2, vocab_size});
      fill_tokens(one_draft, TokenValues::kProbs, draft_shape, 4),
          fill_tokens(one_target, TokenValues::kProbs, shape, 9);
      Problem p(num_draws, 1, vocab_size, Shape::kFlat);
      p.draft.fill([&](int64_t i) { return reference::element(one_draft, i % vocab_size); });
      p.target.fill([&](int64_t i) { return reference::element(one_target, i % (2 * vocab_size)); });
      std::mt19937_64 rng(8);
      std::vector<double> draft(one_draft.data<float>(), one_draft.data<float>() + vocab_size);
      std::discrete_distribution<int32_t> pick(draft.begin(), draft.end());
      p.ids.fill([&](int64_t) { return double(pick(rng)); });
      chain_speculative_sampling(p.args);
      for (int64_t place : {0, 1}) {
        std::vector<int64_t> counts(static_cast<size_t>(vocab_size));
        for (int64_t row = 0; row < num_draws; ++row) {
          const int32_t token = p.out.data<int32_t>()[row * 2 + place];
          if (token >= 0) ++counts[size_t(token)];
        }
        double total = 0;
        std::vector<double> target(static_cast<size_t>(vocab_size));
        for (int64_t t = 0; t < vocab_size; ++t)
          total += target[size_t(t)] = reference::element(one_target, place * vocab_size + t);
        for (double& x : target) x /= total;
        const double z = chi_square_deviate(counts, target);
        std::printf("shape %d draft %d place %d: deviate %.2f\n", int(shape), int(draft_shape), int(place), z);
        EXPECT_LT(z, 3.72);
      }
    }
}

TEST(ChainSpeculativeSampling, DoesNotDependOnSlotOrThreads) {
  Problem p(9, 3, 40, Shape::kNormal);
  Tensor seeds(DType::kI64, {9}), offsets(DType::kI64, {9});
  seeds.fill([](int64_t i) { return double(100 + i); }), offsets.fill([](int64_t i) { return double(10 * i); });
  p.args.random = {.seed_arr = seeds, .offset_arr = offsets};
  chain_speculative_sampling(p.args, at(CpuLevel::kScalar));
  for (int64_t row : {0, 4, 8}) {
    ChainSpeculativeSamplingArgs a = p.args;
    const auto from = [row](TensorView v) {
      v.data = v.as<char>() + row * v.strides[0] * size_of(v.dtype);
      v.shape[0] = 1;
      return v;
    };
    Tensor out(DType::kI32, {1, 4});
    a = {.draft_probs = from(a.draft_probs),
         .draft_token_ids = from(a.draft_token_ids),
         .target_probs = from(a.target_probs),
         .out = out,
         .random = {.seed_arr = from(seeds), .offset_arr = from(offsets)}};
    chain_speculative_sampling(a);
    for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(out.data<int32_t>()[i], p.out.data<int32_t>()[row * 4 + i]);
  }
}

TEST(ChainSpeculativeSampling, BadRowsHaveAStatusAndDoNotDisturbOthers) {
  Problem clean(6, 2, 30, Shape::kNormal);
  chain_speculative_sampling(clean.args);
  Problem p(6, 2, 30, Shape::kNormal);
  for (int64_t i = 0; i < 60; ++i) p.draft.set(60 + i, NAN);  // row 1
  for (int64_t i = 0; i < 90; ++i) p.target.set(180 + i, 0);  // row 2
  p.ids.set(6, 1 << 20), p.ids.set(8, -5);                    // rows 3 and 4
  for (CpuLevel level : levels()) {
    p.accepted.fill([](int64_t i) { return double(i); }), p.emitted.fill([](int64_t) { return 5; });
    chain_speculative_sampling(p.args, at(level));
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
}

TEST(ChainSpeculativeSampling, EqualDistributionsAcceptEverything) {
  Problem p(50, 3, 20, Shape::kNormal);
  for (int64_t row = 0; row < 50; ++row)
    for (int64_t i = 0; i < 60; ++i) p.target.set(row * 80 + i, reference::element(p.draft, row * 60 + i));
  chain_speculative_sampling(p.args);
  for (int64_t row = 0; row < 50; ++row) EXPECT_EQ(p.emitted.data<int32_t>()[row], 5 + 3);
}

TEST(ChainSpeculativeSampling, ReferenceCatchesSeededDefects) {
  Problem p(200, 3, 20, Shape::kNormal);
  chain_speculative_sampling(p.args);
  const auto num_wrong = [&] {
    int64_t n = 0;
    for (int64_t row = 0; row < 200; ++row) n += !p.wrong(row).empty();
    return n;
  };
  EXPECT_EQ(num_wrong(), 0);
  p.args.random.offset = 1;
  EXPECT_GT(num_wrong(), 0) << "another random number";
  p.args.random.offset = 0;
  p.target.set(7, reference::element(p.target, 7) + 0.5);
  EXPECT_GT(num_wrong(), 0) << "another target";
}

TEST(ChainSpeculativeSamplingCheck, RefusesEveryBrokenRule) {
  Problem p(4, 2, 10, Shape::kNormal);
  Tensor seeds(DType::kU64, {4});
  expect_every_break_refused(kChainSpeculativeSamplingSchema,
                             {p.args.draft_probs, p.args.draft_token_ids, p.args.target_probs, p.args.out,
                              p.args.accepted_num, p.args.emitted_num, p.args.status, seeds, seeds},
                             [&](const std::vector<TensorView>& t) {
                               check(ChainSpeculativeSamplingArgs{.draft_probs = t[0],
                                                                  .draft_token_ids = t[1],
                                                                  .target_probs = t[2],
                                                                  .out = t[3],
                                                                  .accepted_num = t[4],
                                                                  .emitted_num = t[5],
                                                                  .status = t[6],
                                                                  .random = {.seed_arr = t[7], .offset_arr = t[8]}});
                             });
}

}  // namespace
}  // namespace fulmen::testing
