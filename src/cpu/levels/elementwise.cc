// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/elementwise.h>

#include "src/cpu/levels/kernels.h"
#include "src/cpu/text.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void prepare(const ElementwiseArgs& args) { table_of(args, CpuLevel(FULMEN_CPU_LEVEL_ID)); }

void launch(const ElementwiseArgs& args, const Context& context) {
  elementwise(args, check(args), table_of(args, CpuLevel(FULMEN_CPU_LEVEL_ID)), executor_of(context));
}

}  // namespace fulmen::cpu::FULMEN_CPU_NS
