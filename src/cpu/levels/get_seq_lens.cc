// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/get_seq_lens.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const GetSeqLensArgs& args, const Context& context) {
  get_seq_lens(args, check(args), executor_of(context));
}

}  // namespace fulmen::cpu::FULMEN_CPU_NS
