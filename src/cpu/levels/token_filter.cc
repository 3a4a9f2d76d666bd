// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/token_filter.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const TokenFilterArgs& args, const Context& context) {
  token_filter(args, check(args), executor_of(context));
}

}  // namespace fulmen::cpu::FULMEN_CPU_NS
