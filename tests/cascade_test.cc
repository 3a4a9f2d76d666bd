// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <functional>

#include "tests/support/cascade_problem.h"
#include "tests/support/levels.h"

namespace fulmen::testing {
namespace {

TEST(BatchCascade, AgreesWithAttentionOverAllKeys) {
  for (const CascadeCase& c : cascade_cases()) {
    CascadeProblem p(c);
    const reference::AttentionValues want = p.expected(reference::Products::kF32);
    for (const bool has_lse : {true, false}) {
      p.out.poison(0xff), p.lse.poison(0xff);
      attention::BatchCascade cascade;
      cascade.plan(p.levels);
      Tensor workspace(DType::kU8, {cascade.workspace_bytes()});
      workspace.poison(0xff);
      cascade.run(p.levels, p.out, has_lse ? TensorView(p.lse) : TensorView{}, workspace);
      EXPECT_TRUE(within(p.out, want.out)) << p.levels.size();
      EXPECT_TRUE(!has_lse || within(p.lse, want.lse)) << p.levels.size();
    }
  }
}

std::string refusal_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) { return e.what(); }
  return {};
}

TEST(BatchCascade, RefusesWhatItDoesNotMean) {
  CascadeProblem p(cascade_cases()[0]);
  attention::BatchCascade cascade;
  const auto refused = [](const char* why, const std::function<void()>& f) {
    return refusal_of(f).find(why) != std::string::npos;
  };
  EXPECT_TRUE(refused("levels are none", [&] { cascade.plan({}); }));
  std::vector<AttentionArgs> levels = p.levels;
  levels[1].options.lse_base = LogBase::k2;
  EXPECT_TRUE(refused("another lse_base", [&] { cascade.plan(levels); }));
  cascade.plan(p.levels);
  Tensor little(DType::kU8, {cascade.workspace_bytes() - 1});
  EXPECT_TRUE(refused("bytes or more", [&] { cascade.run(p.levels, p.out, {}, little); }));
  EXPECT_TRUE(refused("as planned", [&] { cascade.run({p.levels.data(), 1}, p.out, {}, little); }));
  attention::BatchAttention batch;
  batch.plan(p.levels[1]);
  EXPECT_TRUE(refused("in a launch of its own", [&] { batch.run_level(p.levels[1], {}); }));
  Tensor enough(DType::kU8, {cascade.workspace_bytes()}), narrow(DType::kBF16, {5, 2, 64});
  EXPECT_TRUE(refused("out shares memory with q", [&] { cascade.run(p.levels, p.q, {}, enough); }));
  EXPECT_TRUE(refused("out dim 1 (num_qo_heads) is 2, expected 4", [&] { cascade.run(p.levels, narrow, {}, enough); }));
}

// Long prefixes of many are shared, short ones of few are not worth it.
TEST(BatchCascade, PredictsWhatIsFaster) {
  const auto ratio = [](int32_t batch, int32_t prefix) {
    const std::vector<attention::PlanRequest> above = {{0, batch, prefix}},
                                              below(size_t(batch), attention::PlanRequest{0, 1, 256});
    const std::span<const attention::PlanRequest> levels[] = {above, below};
    const attention::CascadeShape shape{32, 8, 128, 2};
    return attention::predicted_us(levels, shape, false) / attention::predicted_us(levels, shape, true);
  };
  EXPECT_LT(ratio(256, 32768), 0.2);
  EXPECT_GT(ratio(1, 32768), 1);
  EXPECT_GT(ratio(16, 64), 1);
  EXPECT_GT(ratio(256, 0), 1);
}

}  // namespace
}  // namespace fulmen::testing
