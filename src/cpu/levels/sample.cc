// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/sample.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const SampleArgs& args, const Context& context) { sample(args, check(args), executor_of(context)); }

}  // namespace fulmen::cpu::FULMEN_CPU_NS
