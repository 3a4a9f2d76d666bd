// SPDX-License-Identifier: Apache-2.0
// The host's C++ compiler, for texts that run on the CPU: looked for when one must be compiled and never before, run as
// a process, given everything in one file. The image is a shared library.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "src/jit/entry.h"

namespace fulmen::jit {

struct HostCompiler {
  std::vector<std::string> command;  // {"/usr/bin/g++"}; empty: there is none
  std::string name;                  // its file, size and time: enters the hash, and no process is run for it
  std::string problem;               // then: what was tried and what to install
};

// Null and empty are not set. named: FULMEN_CXX; then nothing else is tried. cxx: CXX; path: PATH. Both may hold
// arguments or words before the compiler ("ccache g++"), unless the whole is a file.
HostCompiler find_host_compiler(const char* named, const char* cxx, const char* path);
const HostCompiler& host_compiler();  // of the environment at its first call

// The flags of every compilation; those of an instruction set follow from arch: "x86_64-avx512".
std::string_view host_flags();
inline constexpr double kHostCompileTimeout = 120;  // seconds

// The text with all headers of this library's put into it, each once.
std::string flattened(std::string_view source);

// Fills image, log and resources of a kernel that has key, source and arch. Throws Error: kUnsupported without a
// compiler, kInvalidArgument where the text does not compile (the message starts with the text's own line), kInternal
// where the compiler dies or hangs.
void compile_on_host(Kernel* kernel, const HostCompiler& compiler, double timeout_s = kHostCompileTimeout);
inline void compile_on_host(Kernel* kernel) { compile_on_host(kernel, host_compiler()); }

// Puts an image into this process for ever; null, with the reason, where it cannot be. f: its function kEntryName.
void* load_host_image(std::string_view image, std::string* problem);

}  // namespace fulmen::jit
