// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/segment_packbits.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const SegmentPackBitsArgs& args, const Context& context) {
  segment_packbits(args, check(args), executor_of(context));
}

}  // namespace fulmen::cpu::FULMEN_CPU_NS
