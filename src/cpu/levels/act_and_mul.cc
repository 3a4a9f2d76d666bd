// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/act_and_mul.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const ActAndMulArgs& args, const Context& context) { act_and_mul(args, check(args), executor_of(context)); }

}  // namespace fulmen::cpu::FULMEN_CPU_NS
