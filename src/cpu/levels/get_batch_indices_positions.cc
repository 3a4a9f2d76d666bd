// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/get_batch_indices_positions.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const GetBatchIndicesPositionsArgs& args, const Context& context) {
  get_batch_indices_positions(args, check(args), executor_of(context));
}

}  // namespace fulmen::cpu::FULMEN_CPU_NS
