// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/attention.h>

#include "src/cpu/levels/kernels.h"
#include "src/cpu/text.h"

namespace fulmen::cpu::FULMEN_CPU_NS {
namespace {

void run(const attention::AttentionCall& call, const AnyVariant& variant, const Executor& executor) {
  attention(*call.args, call.dims, *call.plan, variant, call.workspace, call.workspace_bytes, executor);
}

}  // namespace

void launch(const attention::AttentionCall& call, const Context& context) {
  const Executor& executor = executor_of(context);
  switch (call.step) {
    case AttentionCall::kConfigure: return configure(*call.args, executor.num_threads, *call.config);
    case AttentionCall::kShape: throw Error(Code::kUnsupported, "batch_attention: the CPU plans on the host");
    case AttentionCall::kMeasure:
      call.workspace_bytes = attention_workspace_bytes(*call.args, call.dims, *call.plan, executor.num_threads);
      return;
    case AttentionCall::kUpload: return;  // the plan is where the kernels are
    case AttentionCall::kRun: break;
  }
  if (call.variant != nullptr) {
    const attention::VariantTable& table = cpu::table_of(*call.variant, CpuLevel(FULMEN_CPU_LEVEL_ID));
    const VariantFields fields(*call.variant, table);
    return run(call, {table, fields.data()}, executor);
  }
  const attention::Standard standard = attention::standard_variant(*call.args);
  run(call, {table_of<attention::Standard>(), &standard}, executor);
}

}  // namespace fulmen::cpu::FULMEN_CPU_NS
