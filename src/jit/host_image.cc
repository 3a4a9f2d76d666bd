// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "src/jit/host_compiler.h"

namespace fulmen::jit {
namespace {

bool write_all(int file, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(file, bytes.data(), bytes.size());
    if (n <= 0) return false;
    bytes.remove_prefix(size_t(n));
  }
  return true;
}

// The loader trusts a file to be as long as it says, and dies where it is not: ELF64, e_shoff + e_shnum * e_shentsize.
bool is_whole(std::string_view image) {
  if (image.size() < 64 || !image.starts_with("\x7f"
                                              "ELF\x02"))
    return false;
  uint64_t offset = 0;
  uint16_t size = 0, number = 0;
  std::memcpy(&offset, image.data() + 40, sizeof offset);
  std::memcpy(&size, image.data() + 58, sizeof size), std::memcpy(&number, image.data() + 60, sizeof number);
  return offset <= image.size() && uint64_t(size) * number <= image.size() - offset;
}

void* opened(const std::string& path, std::string* problem) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    if (const char* text = dlerror(); text != nullptr) *problem = text;
  return library;
}

// A file in memory needs no folder that may be written to and run from. The loader knows libraries by name, and the
// number of a closed file is soon another's: no name is used twice, whatever files the program opens and closes.
void* open_in_memory(std::string_view image, std::string* problem) {
  static std::atomic<uint32_t> serial{0};
  const int file = ::memfd_create("fulmen-text", MFD_CLOEXEC);
  if (file < 0) return nullptr;
  void* library = nullptr;
  if (write_all(file, image)) {
    std::string path = "/proc/self/fd/";
    for (uint32_t bits = serial.fetch_add(1) + 1; bits > 0; bits >>= 1) path += (bits & 1) != 0 ? "./" : "/";
    library = opened(path + std::to_string(file), problem);
  }
  ::close(file);
  return library;
}

void* open_in_folder(std::string_view image, std::string* problem) {
  const char* named = std::getenv("TMPDIR");
  for (const char* parent : {named, "/tmp", "/var/tmp", "/dev/shm"}) {
    if (parent == nullptr) continue;
    std::string path = std::string(parent) + "/fulmen-text-XXXXXX";
    const int file = ::mkstemp(path.data());
    if (file < 0) continue;
    const bool written = write_all(file, image);
    ::close(file);
    void* const library = written ? opened(path, problem) : nullptr;
    ::unlink(path.c_str());
    if (library != nullptr) return library;
  }
  return nullptr;
}

}  // namespace

void* load_host_image(std::string_view image, std::string* problem) {
  if (!is_whole(image)) return *problem = "it is no whole library", nullptr;
  void* library = open_in_memory(image, problem);
  if (library == nullptr) library = open_in_folder(image, problem);
  if (library == nullptr) return nullptr;
  void* const entry = dlsym(library, kEntryName);
  if (entry == nullptr) *problem = std::string("it has no function ") + kEntryName;
  return entry;
}

}  // namespace fulmen::jit
