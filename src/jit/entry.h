// SPDX-License-Identifier: Apache-2.0
// What the JIT makes: a kernel's image with everything that is known about its making, and its form in a file.
//
//   fulmen-kernel 1 <sha256 of the rest> <bytes of the rest>\n
//   key: …\n arch: …\n compiler: …\n …\n \n
//   <image> <log> <source>
//
// The head is text, so that `head -14` of a cache file answers most questions.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace fulmen::jit {

// What to compile: printed text with one extern "C" function called kEntryName.
struct Unit {
  std::string key;  // "rmsnorm x=bf16 …": names the kernel to people, and in lists of keys
  std::string source;
};
inline constexpr const char* kEntryName = "fulmen_entry";

// Read from the compiler's log.
struct Resources {
  int32_t registers = 0;     // per thread
  int32_t shared_bytes = 0;  // static, per CTA
  int32_t stack_bytes = 0;   // local memory per thread; spills are part of it
  int32_t spill_bytes = 0;   // stores and loads
  double compile_ms = 0;     // processor time
};

struct Kernel {
  std::string key, arch;        // arch: "sm_90a" is machine code, "compute_80" is PTX text
  std::string compiler, flags;  // "nvrtc 13.0"
  std::string source, headers;  // the printed unit; the digest of all embedded headers
  std::string image, log;
  Resources resources;
};

// Names everything that went in but the compiler: what a pack, made elsewhere, is searched by.
std::string request_id(std::string_view key, std::string_view source, std::string_view headers, std::string_view flags,
                       std::string_view arch);
inline std::string request_id(const Kernel& k) { return request_id(k.key, k.source, k.headers, k.flags, k.arch); }
// Names everything that went in.
std::string entry_id(const Kernel& k);
// "rmsnorm-sm_90a-<24 digits>-<8 digits>.kernel": request, then compiler.
std::string file_name(std::string_view key, std::string_view arch, std::string_view request, std::string_view compiler);

std::string encode(const Kernel& kernel);
// Empty unless every byte is as it was written.
std::optional<Kernel> decode(std::string_view file);

}  // namespace fulmen::jit
