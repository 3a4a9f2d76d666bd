// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/merge_state.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const MergeStateArgs& args, const Context& context) {
  merge_state(args, check(args), executor_of(context));
}
void launch(const MergeStatesArgs& args, const Context& context) {
  merge_states(args, check(args), executor_of(context));
}

}  // namespace fulmen::cpu::FULMEN_CPU_NS
