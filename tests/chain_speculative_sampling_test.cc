// SPDX-License-Identifier: Apache-2.0
#include "tests/support/chain_problem.h"
#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"

namespace fulmen::testing {
namespace {

ChainRun at_level(CpuLevel level) {
  return [level](ChainProblem& p) { chain_speculative_sampling(p.args, at(level)); };
}

TEST(ChainSpeculativeSampling, EveryRowIsAsTheDefinitionSaysAtEveryLevel) {
  for (CpuLevel level : levels()) {
    SCOPED_TRACE(runtime::name_of(level));
    expect_rows_as_defined(at_level(level), 20, {1, 3, 50, 2000});
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
      ChainProblem p(num_draws, 1, vocab_size, Shape::kFlat);
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
  ChainProblem p(9, 3, 40, Shape::kNormal);
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
  for (CpuLevel level : levels()) {
    SCOPED_TRACE(runtime::name_of(level));
    expect_bad_rows_apart(at_level(level));
  }
}

TEST(ChainSpeculativeSampling, EqualDistributionsAcceptEverything) {
  for (CpuLevel level : levels()) expect_equal_distributions_accept_everything(at_level(level));
}

TEST(ChainSpeculativeSampling, ReferenceCatchesSeededDefects) {
  ChainProblem p(200, 3, 20, Shape::kNormal);
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
  ChainProblem p(4, 2, 10, Shape::kNormal);
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
