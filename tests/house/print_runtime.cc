// SPDX-License-Identifier: Apache-2.0
// Prints what the environment made of the runtime; tests run it under several environments.
#include <fulmen/runtime/cpu_level.h>
#include <fulmen/runtime/dependent_launch.h>
#include <fulmen/runtime/thread_pool.h>

#include <cstdio>

int main() {
  try {
    std::printf("pdl=%d level=%s threads=%d\n", int(fulmen::runtime::dependent_launch()),
                fulmen::runtime::name_of(fulmen::runtime::cpu_level()), fulmen::runtime::num_threads());
  } catch (const std::exception& e) { std::printf("error=%s\n", e.what()); }
}
