// SPDX-License-Identifier: Apache-2.0
#include "src/jit/compiler_record.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace fulmen::jit {
namespace {

constexpr const char* kName = "/compiler";

// What must not change; empty: no such file.
std::string mark_of(const std::string& library) {
  struct stat info {};
  if (library.empty() || ::stat(library.c_str(), &info) != 0) return {};
  const char* named = std::getenv("FULMEN_NVRTC");
  std::ostringstream mark;
  mark << info.st_size << ' ' << info.st_mtim.tv_sec << ' ' << info.st_mtim.tv_nsec << ' '
       << (named == nullptr ? "" : named);
  return mark.str();
}

}  // namespace

std::string recorded_compiler(const std::string& folder) {
  if (folder.empty()) return {};
  std::ifstream file(folder + kName);
  std::string version, library, mark;
  if (!std::getline(file, version) || !std::getline(file, library) || !std::getline(file, mark)) return {};
  return !mark.empty() && mark == mark_of(library) ? version : std::string();
}

void record_compiler(const std::string& folder, const Nvrtc& compiler) {
  const std::string mark = mark_of(compiler.file);
  if (folder.empty() || compiler.version.empty() || mark.empty()) return;
  const std::string temporary = folder + "/.tmp-" + std::to_string(::getpid()) + "-compiler";
  {
    std::ofstream file(temporary);
    file << compiler.version << '\n' << compiler.file << '\n' << mark << '\n';
    if (!file.flush()) return;
  }
  if (std::rename(temporary.c_str(), (folder + kName).c_str()) != 0) ::unlink(temporary.c_str());
}

}  // namespace fulmen::jit
