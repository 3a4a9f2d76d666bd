// SPDX-License-Identifier: Apache-2.0
// Every file of this folder is compiled once per instruction set (FULMEN_CPU_LEVEL_ID), each into its own namespace.
// One line per kernel here and one in table.cc.
#pragma once
#include <fulmen/attention/call.h>
#include <fulmen/core/context.h>
#include <fulmen/cpu/level.h>
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/runtime/thread_pool.h>

namespace fulmen::cpu {

inline const Executor& executor_of(const Context& context) {
  return context.executor != nullptr ? *context.executor : runtime::default_executor();
}

namespace FULMEN_CPU_NS {
void launch(const attention::AttentionCall& call, const Context& context);
void launch(const RmsNormArgs& args, const Context& context);
}  // namespace FULMEN_CPU_NS

}  // namespace fulmen::cpu
