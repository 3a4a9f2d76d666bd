// SPDX-License-Identifier: Apache-2.0
// From a unit of text to a kernel's image: memory, packs, the cache folder, the compiler, in this order.
// Knows text and images, nothing of what kernels compute.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/jit/cache.h"
#include "src/jit/entry.h"

namespace fulmen::jit {

// Another compiler than NVRTC: the host's, or the tests' emulator. name and flags enter the hash; compile fills image,
// log and resources. An empty name: there is none, and compile says so.
struct Compiler {
  std::string name;
  void (*compile)(Kernel* kernel) = nullptr;
  std::string flags = {};  // empty: NVRTC's
};

struct Options {
  std::string cache_folder;               // empty: memory alone
  std::vector<std::string> pack_folders;  // read, never written
  int64_t cache_limit_bytes = Cache::kDefaultLimit;
  bool may_compile = true;  // false: FULMEN_JIT=off
  bool must_store = false;  // a kernel that the folder does not take is an error: packs
  Compiler compiler = {};   // none: NVRTC
};
// FULMEN_CACHE_DIR, FULMEN_CACHE_LIMIT_MB, FULMEN_PACK_PATH (folders separated by ':'), FULMEN_JIT; and the pack
// `fulmen-pack` beside this library, if it is there.
Options options_from_environment();

enum class Origin : int8_t { kMemory, kPack, kCache, kCompiled };
const char* name_of(Origin origin);  // "memory", "pack", "cache", "compiled"

class Jit {
 public:
  explicit Jit(Options options);

  using KernelPtr = std::shared_ptr<const Kernel>;
  // archs: the exact target first, then others whose images the device also runs; these are only looked for in packs.
  // Any number of threads; one of them compiles a unit, the others wait for it. Throws Error.
  KernelPtr get(const Unit& unit, const std::vector<std::string>& archs, Origin* origin = nullptr);
  KernelPtr get(const Unit& unit, const std::string& arch, Origin* origin = nullptr) {
    return get(unit, std::vector<std::string>{arch}, origin);
  }

  // Compiles whatever is stored, and stores it: for an image that does not load.
  KernelPtr compile_again(const Unit& unit, const std::string& arch);

  // Where the kernel would come from, or what differs between it and the nearest kernels that are stored.
  std::string explain(const Unit& unit, const std::string& arch) const;

  const Options& options() const { return options_; }

  // Around a fork, whose child has one thread: it must find no lock held, and makes itself what others were making.
  void before_fork() { mutex_.lock(); }
  void after_fork(bool in_child);

 private:
  struct Pack {
    Cache files;
    std::map<std::string, std::string> names;  // file name without the compiler's part → file name
  };
  std::optional<Kernel> find_in_packs(const Unit& unit, const std::vector<std::string>& archs) const;
  std::string request_of(const Unit& unit, std::string_view arch) const;
  std::string compiler_name() const;
  std::string_view flags() const;
  std::optional<Kernel> find_in_cache(const Kernel& wanted) const;
  Kernel wanted_for(const Unit& unit, const std::string& arch, std::string compiler) const;
  void compile_and_store(Kernel* kernel) const;
  Kernel find_or_compile(const Unit& unit, const std::vector<std::string>& archs, Origin* origin);

  Options options_;
  Cache cache_;
  std::vector<Pack> packs_;
  std::mutex mutex_;
  std::condition_variable done_;
  struct Slot {
    KernelPtr kernel;   // null: being made
    int32_t maker = 0;  // by this process; its forked children know of it, and have no such thread
  };
  std::map<std::string, Slot, std::less<>> kernels_;  // by request
};

// The process's own, made at first use from the environment, unless configure_default_jit came before.
Jit& default_jit();
// False: it was made already.
bool configure_default_jit(const Options& options);
// The same for texts that run on the CPU: the host's compiler, the same folders.
Jit& host_jit();

}  // namespace fulmen::jit
