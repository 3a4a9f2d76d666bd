// SPDX-License-Identifier: Apache-2.0
// NVIDIA's run-time compiler, opened when a kernel must be compiled and never before. Our own declarations of the few
// functions we call, so that building Fulmen needs no CUDA header and loading it no CUDA library.
#pragma once
#include <string>
#include <string_view>

#include "src/jit/entry.h"

namespace fulmen::jit {

struct Nvrtc {
  std::string version;  // "nvrtc 13.0"; empty: there is none
  std::string problem;  // then: what was tried and what to install
  std::string path;     // as it was asked for
  std::string file;     // where the loader found it
};

// Opened once, at the first call. FULMEN_NVRTC names a library to try before all others.
const Nvrtc& nvrtc();

// The flags of every compilation, as they enter the hash of a kernel.
std::string_view compile_flags();

// Fills image, log and resources of a kernel that has key, source and arch. Throws Error: kUnsupported without NVRTC,
// kInvalidArgument where the text does not compile (the message starts with the first error and its line).
void compile(Kernel* kernel);

}  // namespace fulmen::jit
