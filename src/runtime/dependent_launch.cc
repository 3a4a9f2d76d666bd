// SPDX-License-Identifier: Apache-2.0
#include <fulmen/runtime/dependent_launch.h>

#include <atomic>
#include <cstdlib>
#include <string_view>

namespace fulmen::runtime {
namespace {

std::atomic<bool>& setting() {
  static std::atomic<bool> on = [] {
    const char* text = std::getenv("FULMEN_PDL");
    return text == nullptr || std::string_view(text) != "0";
  }();
  return on;
}

}  // namespace

bool dependent_launch() { return setting().load(std::memory_order_relaxed); }
void set_dependent_launch(bool on) { setting().store(on, std::memory_order_relaxed); }

}  // namespace fulmen::runtime
