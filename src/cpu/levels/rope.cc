// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/rope.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const RopeArgs& args, const Context& context) { rope(args, check(args), executor_of(context)); }

}  // namespace fulmen::cpu::FULMEN_CPU_NS
