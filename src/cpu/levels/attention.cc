// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/attention.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const attention::AttentionCall& call, const Context& context) {
  const Executor& executor = executor_of(context);
  if (call.variant != nullptr)
    throw Error(Code::kUnsupported,
                "batch_attention: the CPU runs variants that are compiled into the caller "
                "(docs/adding_a_variant.md), none that are given as text");
  switch (call.step) {
    case AttentionCall::kConfigure: return configure(*call.args, executor.num_threads, *call.config);
    case AttentionCall::kShape: throw Error(Code::kUnsupported, "batch_attention: the CPU plans on the host");
    case AttentionCall::kMeasure:
      call.workspace_bytes = attention_workspace_bytes(*call.args, call.dims, *call.plan, executor.num_threads);
      return;
    case AttentionCall::kUpload: return;  // the plan is where the kernels are
    case AttentionCall::kRun:
      return attention(*call.args, call.dims, *call.plan, attention::standard_variant(*call.args), call.workspace,
                       call.workspace_bytes, executor);
  }
}

}  // namespace fulmen::cpu::FULMEN_CPU_NS
