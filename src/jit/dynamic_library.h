// SPDX-License-Identifier: Apache-2.0
// Finding and opening libraries that Fulmen can do without: the CUDA driver and NVRTC.
#pragma once
#include <dlfcn.h>

#include <string>
#include <vector>

namespace fulmen::jit {

class DynamicLibrary {
 public:
  // The first of names that opens: as the system finds it, then in each of folders. Stays open for the process.
  DynamicLibrary(const std::vector<std::string>& names, const std::vector<std::string>& folders);

  bool is_open() const { return handle_ != nullptr; }
  const std::string& path() const { return path_; }
  const std::string& error() const { return error_; }  // why the last one tried did not open

  // False where the library has no such symbol.
  template <class F>
  bool get(const char* symbol, F** function) const {
    *function = reinterpret_cast<F*>(dlsym(handle_, symbol));
    return *function != nullptr;
  }

 private:
  void* handle_ = nullptr;
  std::string path_, error_;
};

// Where a CUDA toolkit or NVIDIA's wheels keep libraries: $CUDA_HOME, $CUDA_PATH, the `nvidia` folder of the Python
// environment that this library is installed in, and what a program has added.
std::vector<std::string> cuda_library_folders();
void add_library_folder(const std::string& folder);

// The folder of the library that this code is in; empty where the system cannot tell.
std::string own_folder();

}  // namespace fulmen::jit
