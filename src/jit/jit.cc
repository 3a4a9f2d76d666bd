// SPDX-License-Identifier: Apache-2.0
#include "src/jit/jit.h"

#include <fulmen/core/error.h>
#include <fulmen/runtime/environment.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <new>

#include "src/jit/compiler_record.h"
#include "src/jit/dynamic_library.h"
#include "src/jit/embedded_headers.h"
#include "src/jit/host_compiler.h"
#include "src/jit/nvrtc.h"

namespace fulmen::jit {
namespace {

std::string without_compiler(const std::string& file_name) { return file_name.substr(0, file_name.rfind('-')); }

// A user's text is not in a key: packs cannot be built from a list of such keys.
bool is_of_text(std::string_view key) { return key.find(" variant=") != key.npos || key.find(" name=") != key.npos; }

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t end = std::min(text.find(separator), text.size());
    if (end > 0) parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

}  // namespace

const char* name_of(Origin origin) {
  constexpr const char* kNames[] = {"memory", "pack", "cache", "compiled"};
  return kNames[int32_t(origin)];
}

Options options_from_environment() {
  Options o;
  o.cache_folder = default_cache_folder();
  if (const char* path = std::getenv("FULMEN_PACK_PATH")) o.pack_folders = split(path, ':');
  // What a wheel or an installation brings along.
  std::error_code ignored;
  if (const std::string pack = own_folder() + "/fulmen-pack"; std::filesystem::is_directory(pack, ignored))
    o.pack_folders.push_back(pack);
  constexpr int64_t kMostMb = int64_t(1) << 40;
  o.cache_limit_bytes = runtime::integer_of("FULMEN_CACHE_LIMIT_MB", 0, kMostMb, o.cache_limit_bytes >> 20) << 20;
  o.may_compile = runtime::switch_of("FULMEN_JIT", o.may_compile);
  return o;
}

Jit::Jit(Options options) : options_(std::move(options)), cache_(options_.cache_folder, options_.cache_limit_bytes) {
  for (const std::string& folder : options_.pack_folders) {
    Pack pack{Cache(folder), {}};
    for (const std::string& name : pack.files.names()) pack.names.emplace(without_compiler(name), name);
    packs_.push_back(std::move(pack));
  }
}

std::string_view Jit::flags() const {
  return options_.compiler.flags.empty() ? compile_flags() : std::string_view(options_.compiler.flags);
}

std::string Jit::request_of(const Unit& unit, std::string_view arch) const {
  return request_id(unit.key, unit.source, headers_digest(), flags(), arch);
}

std::string Jit::compiler_name() const {
  return options_.compiler.compile != nullptr ? options_.compiler.name : nvrtc().version;
}

Jit::KernelPtr Jit::get(const Unit& unit, const std::vector<std::string>& archs, Origin* origin) {
  const std::string request = request_of(unit, archs.front());
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto found = kernels_.find(request);
    if (found == kernels_.end() || (found->second.kernel == nullptr && found->second.maker != ::getpid())) break;
    if (found->second.kernel != nullptr) {
      if (origin != nullptr) *origin = Origin::kMemory;
      return found->second.kernel;
    }
    done_.wait(lock);
  }
  kernels_[request] = {nullptr, ::getpid()};
  lock.unlock();

  KernelPtr made;
  Origin from = Origin::kCompiled;
  try {
    made = std::make_shared<const Kernel>(find_or_compile(unit, archs, &from));
  } catch (...) {
    lock.lock();
    kernels_.erase(request);  // whoever waits tries itself, and gets the error itself
    done_.notify_all();
    throw;
  }
  lock.lock();
  kernels_[request] = {made, ::getpid()};
  done_.notify_all();
  if (origin != nullptr) *origin = from;
  return made;
}

std::optional<Kernel> Jit::find_in_packs(const Unit& unit, const std::vector<std::string>& archs) const {
  for (const std::string& arch : archs) {
    const std::string request = request_of(unit, arch);
    const std::string name = without_compiler(file_name(unit.key, arch, request, ""));
    for (const Pack& pack : packs_) {
      const auto found = pack.names.find(name);
      if (found == pack.names.end()) continue;
      std::optional<Kernel> k = pack.files.load(found->second);
      if (k && request_id(*k) == request) return k;
    }
  }
  return {};
}

Kernel Jit::wanted_for(const Unit& unit, const std::string& arch, std::string compiler) const {
  return {.key = unit.key,
          .arch = arch,
          .compiler = std::move(compiler),
          .flags = std::string(flags()),
          .source = unit.source,
          .headers = std::string(headers_digest())};
}

// Where there is no compiler, any compiler's will do.
std::optional<Kernel> Jit::find_in_cache(const Kernel& wanted) const {
  const std::string request = request_id(wanted), name = file_name(wanted.key, wanted.arch, request, wanted.compiler);
  if (!wanted.compiler.empty()) {
    std::optional<Kernel> k = cache_.load(name);
    if (k && entry_id(*k) != entry_id(wanted)) k.reset();
    return k;
  }
  for (const std::string& candidate : cache_.names())
    if (without_compiler(candidate) == without_compiler(name))
      if (std::optional<Kernel> k = cache_.load(candidate); k && request_id(*k) == request) return k;
  return {};
}

void Jit::compile_and_store(Kernel* kernel) const {
  if (!options_.may_compile)
    throw Error(
        Code::kUnsupported,
        kernel->key + ": must be compiled for " + kernel->arch + ", but FULMEN_JIT=off and no pack holds it; " +
            (is_of_text(kernel->key) ? "copy its file from a cache folder into a pack"
                                     : "add the line\n  " + kernel->key + "\nto the keys of `fulmen_pack build`"));
  options_.compiler.compile != nullptr ? options_.compiler.compile(kernel) : compile(kernel);
  const std::string name = file_name(kernel->key, kernel->arch, request_id(*kernel), kernel->compiler);
  const bool is_stored = cache_.store(name, *kernel);
  if (!is_stored && options_.must_store) fail("pack", cache_.folder(), "cannot be written: " + name + " is lost");
  if (is_stored && options_.compiler.compile == nullptr) record_compiler(cache_.folder(), nvrtc());
}

Kernel Jit::find_or_compile(const Unit& unit, const std::vector<std::string>& archs, Origin* origin) {
  if (std::optional<Kernel> k = find_in_packs(unit, archs)) return *origin = Origin::kPack, std::move(*k);
  if (options_.compiler.compile == nullptr)  // what is on record saves opening the compiler
    if (const std::string compiler = recorded_compiler(cache_.folder()); !compiler.empty())
      if (std::optional<Kernel> k = find_in_cache(wanted_for(unit, archs.front(), compiler)))
        return *origin = Origin::kCache, std::move(*k);
  Kernel wanted = wanted_for(unit, archs.front(), compiler_name());
  if (std::optional<Kernel> k = find_in_cache(wanted)) {
    if (options_.compiler.compile == nullptr) record_compiler(cache_.folder(), nvrtc());
    return *origin = Origin::kCache, std::move(*k);
  }
  compile_and_store(&wanted);
  *origin = Origin::kCompiled;
  return wanted;
}

Jit::KernelPtr Jit::compile_again(const Unit& unit, const std::string& arch) {
  Kernel kernel = wanted_for(unit, arch, compiler_name());
  compile_and_store(&kernel);
  const std::lock_guard lock(mutex_);
  return (kernels_[request_of(unit, arch)] = {std::make_shared<const Kernel>(std::move(kernel)), ::getpid()}).kernel;
}

void Jit::after_fork(bool in_child) {
  if (in_child) new (&done_) std::condition_variable;  // the old one would wait for its waiters, who are not here
  mutex_.unlock();
}

std::string Jit::explain(const Unit& unit, const std::string& arch) const {
  const std::string request = request_of(unit, arch);
  const std::string name = file_name(unit.key, arch, request, compiler_name());
  std::string text = unit.key + " for " + arch + "\n";
  std::vector<const Cache*> folders;
  for (const Pack& pack : packs_) folders.push_back(&pack.files);
  if (!cache_.folder().empty()) folders.push_back(&cache_);
  if (folders.empty()) return text + "  no folder: kernels are kept in memory alone\n";
  for (const Cache* folder : folders) {
    std::string difference = "no kernel with this key and architecture";
    for (const std::string& candidate : folder->names()) {
      const std::optional<Kernel> k = folder->load(candidate);
      if (!k) {
        if (candidate == name) difference = "the file " + candidate + " is damaged and will be replaced";
        continue;
      }
      if (k->key != unit.key || k->arch != arch) continue;
      const bool any_compiler = folder != &cache_;
      difference = request_id(*k) == request && (any_compiler || k->compiler == compiler_name())
                       ? ""
                       : "a kernel made from other";
      if (k->source != unit.source) difference += " source";
      if (k->headers != headers_digest()) difference += " headers";
      if (k->flags != flags()) difference += " flags (" + k->flags + ")";
      if (!any_compiler && k->compiler != compiler_name()) difference += " compiler (" + k->compiler + ")";
      if (difference.empty()) return text + "  hit: " + folder->folder() + "/" + candidate + "\n";
    }
    text += "  miss: " + folder->folder() + ": " + difference + "\n";
  }
  return text;
}

namespace {
// Never destroyed: kernels may be asked for while statics die.
std::atomic<Jit*> the_jit{nullptr}, the_host_jit{nullptr};

// Forks are handled one at a time; a Jit that is set up during one is not held.
Jit* held[2] = {};
void before_fork() {
  held[0] = the_jit.load(), held[1] = the_host_jit.load();
  for (Jit* jit : held)
    if (jit != nullptr) jit->before_fork();
}
template <bool kInChild>
void after_fork() {
  for (Jit* jit : held)
    if (jit != nullptr) jit->after_fork(kInChild);
}
void watch_forks() {
  [[maybe_unused]] static const int watching = pthread_atfork(before_fork, after_fork<false>, after_fork<true>);
}
}  // namespace

bool configure_default_jit(const Options& options) {
  auto made = std::make_unique<Jit>(options);
  Jit* none = nullptr;
  watch_forks();
  if (!the_jit.compare_exchange_strong(none, made.get())) return false;
  (void)made.release();
  return true;
}

Jit& default_jit() {
  Jit* jit = the_jit.load();
  if (jit == nullptr) configure_default_jit(options_from_environment());
  return *the_jit.load();
}

Jit& host_jit() {
  static const bool made = [] {
    Options options = options_from_environment();
    options.compiler = {host_compiler().name, [](Kernel* k) { compile_on_host(k); }, std::string(host_flags())};
    watch_forks();
    the_host_jit = new Jit(options);
    return true;
  }();
  (void)made;
  return *the_host_jit.load();
}

}  // namespace fulmen::jit
