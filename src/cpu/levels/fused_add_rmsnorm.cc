// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/fused_add_rmsnorm.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const FusedAddRmsNormArgs& args, const Context& context) {
  fused_add_rmsnorm(args, check(args), executor_of(context));
}

}  // namespace fulmen::cpu::FULMEN_CPU_NS
