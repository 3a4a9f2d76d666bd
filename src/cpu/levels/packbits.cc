// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/packbits.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const PackBitsArgs& args, const Context& context) { packbits(args, check(args), executor_of(context)); }

}  // namespace fulmen::cpu::FULMEN_CPU_NS
