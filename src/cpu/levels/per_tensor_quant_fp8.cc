// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/per_tensor_quant_fp8.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const PerTensorQuantFp8Args& args, const Context& context) {
  per_tensor_quant_fp8(args, check(args), executor_of(context));
}

}  // namespace fulmen::cpu::FULMEN_CPU_NS
