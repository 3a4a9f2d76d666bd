// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/rmsnorm.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const RmsNormArgs& args, const Context& context) { rmsnorm(args, check(args), executor_of(context)); }

}  // namespace fulmen::cpu::FULMEN_CPU_NS
