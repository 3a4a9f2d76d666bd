// SPDX-License-Identifier: Apache-2.0
#include "src/jit/nvrtc.h"

#include <fulmen/core/error.h>

#include <dlfcn.h>

#include <cstdlib>
#include <ctime>
#include <sstream>
#include <vector>

#include "src/jit/compile_log.h"
#include "src/jit/dynamic_library.h"
#include "src/jit/embedded_headers.h"

namespace fulmen::jit {
namespace {

// From NVRTC's public interface.
using Program = struct ProgramHandle*;
using Result = int;  // 0: success, 6: the text does not compile
struct Api {
  Result (*version)(int* major, int* minor) = nullptr;
  Result (*create)(Program*, const char* source, const char* name, int num_headers, const char* const* headers,
                   const char* const* names) = nullptr;
  Result (*destroy)(Program*) = nullptr;
  Result (*compile)(Program, int num_options, const char* const* options) = nullptr;
  Result (*cubin_size)(Program, size_t*) = nullptr;
  Result (*cubin)(Program, char*) = nullptr;
  Result (*ptx_size)(Program, size_t*) = nullptr;
  Result (*ptx)(Program, char*) = nullptr;
  Result (*log_size)(Program, size_t*) = nullptr;
  Result (*log)(Program, char*) = nullptr;
  const char* (*error_string)(Result) = nullptr;
};

bool load(const DynamicLibrary& lib, Api* api) {
  return lib.get("nvrtcVersion", &api->version) && lib.get("nvrtcCreateProgram", &api->create) &&
         lib.get("nvrtcDestroyProgram", &api->destroy) && lib.get("nvrtcCompileProgram", &api->compile) &&
         lib.get("nvrtcGetCUBINSize", &api->cubin_size) && lib.get("nvrtcGetCUBIN", &api->cubin) &&
         lib.get("nvrtcGetPTXSize", &api->ptx_size) && lib.get("nvrtcGetPTX", &api->ptx) &&
         lib.get("nvrtcGetProgramLogSize", &api->log_size) && lib.get("nvrtcGetProgramLog", &api->log) &&
         lib.get("nvrtcGetErrorString", &api->error_string);
}

struct Loaded {
  Nvrtc info;
  Api api;
  bool has_own_cache = false;  // since 12.9, where a driver is
};

Loaded open() {
  Loaded loaded;
  std::vector<std::string> names = {"libnvrtc.so.13", "libnvrtc.so.12"};
  if (const char* named = std::getenv("FULMEN_NVRTC"); named != nullptr && *named != '\0') names = {named};
  const DynamicLibrary lib(names, cuda_library_folders());
  int major = 0, minor = 0;
  if (!lib.is_open()) {
    loaded.info.problem =
        "NVRTC cannot be opened (" + lib.error() + "); install a CUDA toolkit or `pip install nvidia-cuda-nvrtc`";
  } else if (!load(lib, &loaded.api) || loaded.api.version(&major, &minor) != 0) {
    loaded.info.problem = lib.path() + " lacks a function that Fulmen needs; NVRTC 12.0 or later will do";
  } else {
    loaded.info.version = "nvrtc " + std::to_string(major) + "." + std::to_string(minor);
    loaded.info.path = lib.path();
    Dl_info found{};
    if (dladdr(reinterpret_cast<const void*>(loaded.api.version), &found) != 0 && found.dli_fname != nullptr)
      loaded.info.file = found.dli_fname;
    loaded.has_own_cache = major > 12 || (major == 12 && minor >= 9);
  }
  return loaded;
}

const Loaded& loaded() {
  static const Loaded* l = new Loaded(open());  // never destroyed: kernels may be compiled while statics die
  return *l;
}

// Processor time of this thread, on which NVRTC works: the same on a busy machine as on an idle one.
double cpu_ms() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) * 1e3 + double(t.tv_nsec) * 1e-6;
}

// One text of the program: its log, its image.
std::string text_of(Program program, Result (*size)(Program, size_t*), Result (*get)(Program, char*)) {
  size_t n = 0;
  if (size(program, &n) != 0 || n == 0) return {};
  std::string text(n, '\0');
  return get(program, text.data()) == 0 ? text : std::string();
}

std::vector<const char*> options(const std::string& arch, bool has_own_cache) {
  static const std::vector<std::string> flags = [] {
    std::vector<std::string> all;
    std::istringstream words{std::string(compile_flags())};
    for (std::string word; words >> word;) all.push_back(word);
    return all;
  }();
  std::vector<const char*> all = {arch.c_str()};
  for (const std::string& flag : flags) all.push_back(flag.c_str());
  if (has_own_cache) all.push_back("--no-cache");  // NVRTC's: a hit in it leaves the log empty, and we have our own
  if (arch.find("=compute_") == arch.npos) all.push_back("--ptxas-options=-v");  // resources, into the log
  return all;
}

}  // namespace

const Nvrtc& nvrtc() { return loaded().info; }

// Functions without annotation are device functions, so that defaulted operators of key structs compile.
std::string_view compile_flags() { return "--std=c++20 --device-as-default-execution-space"; }

void compile(Kernel* k) {
  const Nvrtc& info = loaded().info;
  const Api& api = loaded().api;
  if (info.version.empty())
    throw Error(Code::kUnsupported, k->key + ": must be compiled for " + k->arch + ", but " + info.problem);
  std::vector<const char*> texts, names;
  for (const EmbeddedHeader& h : embedded_headers()) texts.push_back(h.text), names.push_back(h.name);

  const double start_ms = cpu_ms();
  Program program = nullptr;
  Result result = api.create(&program, k->source.c_str(), "kernel.cu", int(texts.size()), texts.data(), names.data());
  if (result != 0) throw Error(Code::kInternal, k->key + ": NVRTC: " + api.error_string(result));
  const std::string arch = "--gpu-architecture=" + k->arch;
  const std::vector<const char*> flags = options(arch, loaded().has_own_cache);
  result = api.compile(program, int(flags.size()), flags.data());
  k->log = text_of(program, api.log_size, api.log);
  while (!k->log.empty() && k->log.back() == '\0') k->log.pop_back();
  if (result == 0)
    k->image = k->arch.starts_with("compute_") ? text_of(program, api.ptx_size, api.ptx)
                                               : text_of(program, api.cubin_size, api.cubin);
  api.destroy(&program);
  if (result != 0) {
    const std::string_view own = own_file_of(k->source);
    const std::string what = k->key + ": does not compile for " + k->arch + ": " + api.error_string(result);
    const std::string errors = first_errors(k->log, own);
    throw Error(result == 6 ? Code::kInvalidArgument : Code::kInternal,
                own.empty() ? what + "\n" + errors : errors + "\n" + what);
  }
  if (k->image.empty()) throw Error(Code::kInternal, k->key + ": NVRTC gave no image for " + k->arch);
  k->resources = resources_of(k->log);
  k->resources.compile_ms = cpu_ms() - start_ms;
}

}  // namespace fulmen::jit
