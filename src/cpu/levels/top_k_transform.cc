// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/top_k_transform.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const TopKTransformArgs& args, const Context& context) {
  top_k_transform(args, check(args), executor_of(context));
}

}  // namespace fulmen::cpu::FULMEN_CPU_NS
