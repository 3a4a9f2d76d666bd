// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/rope_append_paged_kv_cache.h>
#include <fulmen/ops/rope_quantize_fp8.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const RopeQuantizeFp8Args& args, const Context& context) {
  check(args);
  rope_quantize_fp8(args, executor_of(context));
}

void launch(const RopeAppendPagedKvCacheArgs& args, const Context& context) {
  check(args);
  rope_append_paged_kv_cache(args, executor_of(context));
}

}  // namespace fulmen::cpu::FULMEN_CPU_NS
