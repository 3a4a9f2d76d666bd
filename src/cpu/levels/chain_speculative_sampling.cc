// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/chain_speculative_sampling.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const ChainSpeculativeSamplingArgs& args, const Context& context) {
  chain_speculative_sampling(args, check(args), executor_of(context));
}

}  // namespace fulmen::cpu::FULMEN_CPU_NS
