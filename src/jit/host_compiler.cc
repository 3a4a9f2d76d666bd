// SPDX-License-Identifier: Apache-2.0
#include "src/jit/host_compiler.h"

#include <fulmen/core/error.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "src/jit/compile_log.h"
#include "src/jit/process.h"

namespace fulmen::jit {
namespace {
namespace fs = std::filesystem;

constexpr const char* kFolderPrefix = "fulmen-host-";

bool is_program(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && ::access(path.c_str(), X_OK) == 0;
}

// As a shell finds it, from the root: the program may change its folder later. Empty: nowhere.
std::string on_path(const std::string& word, std::string_view path) {
  std::error_code ignored;
  if (word.find('/') != word.npos) return is_program(word) ? fs::absolute(word, ignored).string() : "";
  while (!path.empty()) {
    const size_t end = std::min(path.find(':'), path.size());
    const std::string file = std::string(path.substr(0, end)) + "/" + word;
    if (end > 0 && is_program(file)) return fs::absolute(file, ignored).string();
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return {};
}

// Words of a command, the first as a file; empty where there is none such.
std::vector<std::string> command_of(const std::string& text, std::string_view path) {
  if (const std::string whole = on_path(text, path); !whole.empty()) return {whole};
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  if (words.empty()) return {};
  words[0] = on_path(words[0], path);
  return words[0].empty() ? std::vector<std::string>() : words;
}

std::string name_of(const std::vector<std::string>& command, std::string_view path) {
  std::string name;
  for (const std::string& word : command) {
    const std::string file = on_path(word, path);
    std::error_code ignored;
    const fs::path real = fs::canonical(file, ignored);
    struct stat info {};
    name += (name.empty() ? "" : " ") + (real.empty() ? word : real.string());
    if (!file.empty() && ::stat(file.c_str(), &info) == 0)
      name += " (" + std::to_string(info.st_size) + "-" + std::to_string(info.st_mtim.tv_sec) + ")";
  }
  return name;
}

const char* set_or_null(const char* text) { return text != nullptr && *text != '\0' ? text : nullptr; }

// A folder of one compilation.
class WorkFolder {
 public:
  WorkFolder() {
    const char* named = set_or_null(std::getenv("TMPDIR"));
    for (const char* parent : {named, "/tmp", "/var/tmp", "/dev/shm"}) {
      if (parent == nullptr) continue;
      std::error_code ignored;
      std::string name = fs::absolute(parent, ignored).string() + "/" + kFolderPrefix + "XXXXXX";
      if (::mkdtemp(name.data()) == nullptr) continue;
      path_ = name;
      remove_abandoned(parent);
      return;
    }
    throw Error(Code::kUnsupported, "no folder for a compiler's files: tried $TMPDIR, /tmp, /var/tmp, /dev/shm");
  }
  ~WorkFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  std::string operator/(const char* name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  // Those of processes that were killed: an hour old, and ours.
  static void remove_abandoned(const char* parent) {
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(parent, error)) {
      struct stat info {};
      if (!entry.path().filename().string().starts_with(kFolderPrefix)) continue;
      if (::lstat(entry.path().c_str(), &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != ::geteuid()) continue;
      std::error_code ignored;
      if (std::time(nullptr) - info.st_mtim.tv_sec > 3600) fs::remove_all(entry.path(), ignored);
    }
  }
  std::string path_;
};

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Its beginning, as text that any language takes: what is no printable ASCII becomes '?', but for whole UTF-8 letters.
std::string log_of(const std::string& path) {
  constexpr size_t kMost = size_t(1) << 20;
  std::string log(kMost, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(log.data(), kMost);
  log.resize(size_t(file.gcount()));
  return as_utf8(std::move(log));
}

std::vector<std::string> level_flags(std::string_view arch) {
  std::vector<std::string> flags;
  if (arch.starts_with("x86_64-avx"))
    for (const char* f : {"-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mpopcnt"}) flags.push_back(f);
  if (arch.starts_with("x86_64-avx512"))
    for (const char* f : {"-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"})
      flags.push_back(f);
  return flags;
}

std::vector<std::string> words_of(const HostCompiler& compiler, const Kernel& k, const WorkFolder& folder) {
  std::vector<std::string> words = compiler.command;
  std::istringstream flags{std::string(host_flags())};
  for (std::string flag; flags >> flag;) words.push_back(flag);
  for (const std::string& flag : level_flags(k.arch)) words.push_back(flag);
  for (const std::string& word : {std::string("-o"), folder / "unit.so", folder / "unit.cc"}) words.push_back(word);
  return words;
}

// Not the text's fault.
[[noreturn]] void fail_of(const Kernel& k, const HostCompiler& compiler, const ProcessResult& result,
                          double timeout_s) {
  std::string what = k.key + ": must be compiled for " + k.arch + ", but " + compiler.command[0];
  switch (result.end) {
    case ProcessResult::kTimedOut:
      what += " took longer than " + std::to_string(int64_t(timeout_s)) + " s and was stopped";
      break;
    case ProcessResult::kInterrupted: what += " was interrupted"; break;
    case ProcessResult::kNotStarted: what += std::string(" cannot be run: ") + std::strerror(result.code); break;
    case ProcessResult::kSignalled: what += " died of signal " + std::to_string(result.code); break;
    default: what += " gave no library (status " + std::to_string(result.code) + ")";
  }
  throw Error(Code::kInternal, k.log.empty() ? what : what + "\n" + first_errors(k.log));
}

}  // namespace

HostCompiler find_host_compiler(const char* named, const char* cxx, const char* path) {
  HostCompiler found;
  const std::string_view folders = set_or_null(path) != nullptr ? path : "/usr/local/bin:/usr/bin:/bin";
  std::vector<std::string> candidates = {"c++", "g++", "clang++"};
  if (set_or_null(cxx) != nullptr) candidates.insert(candidates.begin(), cxx);
  if (set_or_null(named) != nullptr) candidates = {named};
  std::string tried;
  for (const std::string& candidate : candidates) {
    found.command = command_of(candidate, folders);
    if (!found.command.empty()) return found.name = name_of(found.command, folders), found;
    tried += (tried.empty() ? "" : ", ") + candidate;
  }
  const char* how = set_or_null(named) != nullptr ? "FULMEN_CXX: " : "tried ";
  found.problem = "no C++ compiler is found (" + std::string(how) + tried +
                  "); install g++ 11 or clang++ 14 or later (`apt-get install g++`), or name one in FULMEN_CXX";
  return found;
}

const HostCompiler& host_compiler() {
  static const HostCompiler* found = new HostCompiler(
      find_host_compiler(std::getenv("FULMEN_CXX"), std::getenv("CXX"), std::getenv("PATH")));  // never destroyed
  return *found;
}

// No exceptions and no run-time types, as on a GPU. A function that ends without its result could do anything, so it is
// an error. The last two flags let loops with comparisons and roots become
// vectors; they change no result.
std::string_view host_flags() {
  return "-std=c++20 -O3 -shared -fPIC -fvisibility=hidden -fno-exceptions -fno-rtti -Werror=return-type "
         "-DFULMEN_HOST_TEXT "
         "-D__device__= -D__host__= -D__forceinline__=inline -fno-math-errno -fno-trapping-math";
}

void compile_on_host(Kernel* k, const HostCompiler& compiler, double timeout_s) {
  if (compiler.command.empty())
    throw Error(Code::kUnsupported, k->key + ": must be compiled for " + k->arch + ", but " + compiler.problem);
  const WorkFolder folder;
  std::ofstream(folder / "unit.cc", std::ios::binary) << flattened(k->source);
  rusage before{}, after{};
  getrusage(RUSAGE_CHILDREN, &before);
  const ProcessResult result =
      run_process(words_of(compiler, *k, folder), folder / "log", {"LC_ALL=C", "TMPDIR=" + folder.path()}, timeout_s);
  getrusage(RUSAGE_CHILDREN, &after);
  const auto ms = [](const rusage& r) {
    return double(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1e3 + double(r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1e-3;
  };
  k->log = log_of(folder / "log");
  k->image = contents(folder / "unit.so");
  k->resources.compile_ms = ms(after) - ms(before);
  if (result.end == ProcessResult::kExited && result.code != 0) {
    const std::string_view own = own_file_of(k->source);
    if (k->log.find("'-std=c++20'") != k->log.npos)  // "unrecognized", "invalid value": an option is all it has read
      throw Error(Code::kUnsupported, k->key + ": must be compiled for " + k->arch + ", but " + compiler.command[0] +
                                          " knows no C++20; install g++ 11 or clang++ 14, or name one in FULMEN_CXX");
    const std::string errors = first_host_errors(k->log, k->source, own);
    const std::string what = k->key + ": does not compile for " + k->arch + " with " + compiler.command[0];
    const bool is_own = !own.empty() && errors.starts_with(std::string(own) + "(");
    throw Error(Code::kInvalidArgument, is_own ? errors + "\n" + what : what + "\n" + errors);
  }
  const bool may_be_good = result.end == ProcessResult::kExited || result.end == ProcessResult::kUnknown;
  if (!may_be_good || k->image.empty()) fail_of(*k, compiler, result, timeout_s);
}

}  // namespace fulmen::jit
