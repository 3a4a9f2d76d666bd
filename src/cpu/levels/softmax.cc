// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/softmax.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const SoftmaxArgs& args, const Context& context) { softmax(args, check(args), executor_of(context)); }

}  // namespace fulmen::cpu::FULMEN_CPU_NS
