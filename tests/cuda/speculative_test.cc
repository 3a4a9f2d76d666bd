// SPDX-License-Identifier: Apache-2.0
// chain_speculative_sampling on the device.
#include "tests/support/chain_problem.h"
#include "tests/support/gpu_case.h"

namespace fulmen::testing {
namespace {

void run(ChainProblem& p) {
  GpuTensor draft(p.draft), ids(p.ids), target(p.target), out(p.out), accepted(p.accepted), emitted(p.emitted),
      status(p.status);
  ChainSpeculativeSamplingArgs a = p.args;
  a.draft_probs = draft, a.draft_token_ids = ids, a.target_probs = target, a.out = out;
  a.accepted_num = accepted, a.emitted_num = emitted, a.status = status;
  chain_speculative_sampling(a);
  out.fetch(), accepted.fetch(), emitted.fetch(), status.fetch();
}

class CudaChain : public OnGpu {};

TEST_F(CudaChain, EveryRowIsAsTheDefinitionSays) {
  expect_rows_as_defined(run, 8, {1, 3, 50, 2000});
  if (!emulated()) expect_rows_as_defined(run, 3, {30000});
}

TEST_F(CudaChain, BadRowsHaveAStatusAndDoNotDisturbOthers) { expect_bad_rows_apart(run); }

TEST_F(CudaChain, EqualDistributionsAcceptEverything) { expect_equal_distributions_accept_everything(run); }

}  // namespace
}  // namespace fulmen::testing
