// SPDX-License-Identifier: Apache-2.0
#include <fulmen/cpu/append_paged_mla_kv_cache.h>

#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void launch(const AppendPagedMlaKvCacheArgs& args, const Context& context) {
  check(args);
  append_paged_mla_kv_cache(args, executor_of(context));
}

}  // namespace fulmen::cpu::FULMEN_CPU_NS
