// SPDX-License-Identifier: Apache-2.0
#include <fulmen/runtime/dependent_launch.h>
#include <fulmen/runtime/environment.h>

#include <atomic>

namespace fulmen::runtime {
namespace {

std::atomic<bool>& setting() {
  static std::atomic<bool> on = switch_of("FULMEN_PDL", true);
  return on;
}

}  // namespace

bool dependent_launch() { return setting().load(std::memory_order_relaxed); }
void set_dependent_launch(bool on) { setting().store(on, std::memory_order_relaxed); }

}  // namespace fulmen::runtime
