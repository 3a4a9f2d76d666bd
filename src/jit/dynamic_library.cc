// SPDX-License-Identifier: Apache-2.0
#include "src/jit/dynamic_library.h"

#include <cstdlib>
#include <filesystem>
#include <mutex>

namespace fulmen::jit {
namespace fs = std::filesystem;

DynamicLibrary::DynamicLibrary(const std::vector<std::string>& names, const std::vector<std::string>& folders) {
  std::vector<std::string> paths = names;
  for (const std::string& folder : folders)
    for (const std::string& name : names) paths.push_back(folder + "/" + name);
  for (const std::string& path : paths) {
    handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ != nullptr) {
      path_ = path;
      return;
    }
    if (const char* text = dlerror(); text != nullptr && error_.empty()) error_ = text;
  }
}

namespace {

struct Added {
  std::mutex mutex;
  std::vector<std::string> folders;
};
Added& added() {
  static Added* a = new Added;  // never destroyed: libraries may be looked for while statics die
  return *a;
}

}  // namespace

void add_library_folder(const std::string& folder) {
  const std::lock_guard lock(added().mutex);
  added().folders.push_back(folder);
}

std::string own_folder() {
  Dl_info self{};
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &self) == 0 || self.dli_fname == nullptr) return {};
  std::error_code ignored;
  return fs::absolute(self.dli_fname, ignored).parent_path().string();
}

std::vector<std::string> cuda_library_folders() {
  std::vector<std::string> folders;
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"})
    if (const char* home = std::getenv(variable); home != nullptr && *home != '\0')
      for (const char* sub : {"/lib64", "/lib", "/targets/x86_64-linux/lib"})
        folders.push_back(std::string(home) + sub);

  std::error_code ignored;
  fs::path folder = own_folder();
  for (int32_t up = 0; up < 4 && folder.has_relative_path(); ++up, folder = folder.parent_path())
    for (const char* sub : {"cu13/lib", "cuda_nvrtc/lib"})  // wheels of CUDA 13, of CUDA 12
      if (const fs::path lib = folder / "nvidia" / sub; fs::is_directory(lib, ignored)) folders.push_back(lib.string());
  const std::lock_guard lock(added().mutex);
  folders.insert(folders.end(), added().folders.begin(), added().folders.end());
  return folders;
}

}  // namespace fulmen::jit
