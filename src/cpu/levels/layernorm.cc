// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/layernorm.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const LayerNormArgs& args, const Context& context) { layernorm(args, check(args), executor_of(context)); }

}  // namespace fulmen::cpu::FULMEN_CPU_NS
