// SPDX-License-Identifier: Apache-2.0
// fulmen_pack: compile kernels ahead of time, and look into packs and the cache.
#include <fulmen/core/error.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>

#include "src/cuda/pack.h"
#include "src/cuda/table.h"
#include "src/jit/nvrtc.h"

namespace fulmen {
namespace {

constexpr const char* kUsage = R"(usage: fulmen_pack COMMAND
  keys                                    the keys of the kernels that usual models need, one a line
  build --arch LIST --out FOLDER [--keys FILE] [--all] [--jobs N] [--report FILE]
                                          compile them; LIST like sm_80,sm_90a; no GPU is needed. Of the usual keys
                                          those that only other architectures' devices ask for are left out; --all: not
  list FOLDER                             what a pack or a cache holds
  explain ARCH KEY                        where a kernel would come from, or why it must be compiled
  clear [FOLDER]                          empty the cache
)";

std::string option(const std::vector<std::string>& words, const std::string& name, const std::string& otherwise = {}) {
  for (size_t i = 0; i + 1 < words.size(); ++i)
    if (words[i] == name) return words[i + 1];
  return otherwise;
}

std::string needed(const std::vector<std::string>& words, const std::string& name) {
  const std::string value = option(words, name);
  if (value.empty()) fail("fulmen_pack", name, "is missing");
  return value;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) fail("fulmen_pack", path, "cannot be read");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');)
    if (!part.empty()) parts.push_back(part);
  return parts;
}

class Progress {
 public:
  explicit Progress(size_t total) : total_(total), terminal_(isatty(2) == 1) {}
  void step(const std::string& what) {
    ++done_;
    if (terminal_) {
      const int32_t filled = int32_t(30 * done_ / total_);
      std::fprintf(stderr, "\r[%-30s] %zu/%zu %-60.60s", std::string(size_t(filled), '#').c_str(), done_, total_,
                   what.c_str());
      if (done_ == total_) std::fputc('\n', stderr);
    } else if (done_ % 50 == 0 || done_ == total_) {
      std::fprintf(stderr, "%zu/%zu\n", done_, total_);
    }
  }

 private:
  size_t total_, done_ = 0;
  bool terminal_;
};

// One line per kernel for tools/kernel_budget.py: key, architecture, and what the compiler said.
void report(std::ostream& out, const cuda::PackResult& r) {
  const jit::Resources& x = r.kernel.resources;
  out << r.job.arch << '\t' << r.job.line << '\t' << x.registers << '\t' << x.shared_bytes << '\t' << x.stack_bytes
      << '\t' << x.spill_bytes << '\t' << x.compile_ms << '\n';
}

int build(const std::vector<std::string>& words) {
  const std::string out = needed(words, "--out"), keys_file = option(words, "--keys");
  const std::vector<std::string> lines =
      keys_file.empty() ? cuda::common_keys() : cuda::parse_keys(read_file(keys_file));
  const bool all = std::find(words.begin(), words.end(), "--all") != words.end();
  const std::vector<cuda::PackJob> jobs = cuda::pack_jobs(split(needed(words, "--arch")), lines, all);
  if (jobs.empty()) fail("fulmen_pack", "--arch, --keys", "name no kernel");
  int32_t num_threads = 0;
  const std::string asked = option(words, "--jobs", "0");
  const auto [end, error] = std::from_chars(asked.data(), asked.data() + asked.size(), num_threads);
  if (error != std::errc() || end != asked.data() + asked.size() || num_threads < 0 || num_threads > 1024)
    fail("fulmen_pack", "--jobs", "is '" + asked + "', expected 0 to 1024");
  std::ofstream table;
  if (const std::string path = option(words, "--report"); !path.empty()) table.open(path);

  Progress progress(jobs.size());
  size_t compiled = 0, failed = 0;
  double slowest_ms = 0, sum_ms = 0;
  cuda::build_pack(out, jobs, num_threads, [&](const cuda::PackResult& r) {
    progress.step(r.job.arch + " " + r.job.line);
    if (!r.problem.empty()) {
      if (failed++ < 5) std::cerr << r.problem << "\n";  // a broken header fails every kernel alike
      return;
    }
    compiled += r.compiled;
    sum_ms += r.kernel.resources.compile_ms;
    slowest_ms = std::max(slowest_ms, r.kernel.resources.compile_ms);
    if (table.is_open()) report(table, r);
  });
  const size_t good = jobs.size() - failed;
  std::printf("%zu kernels in %s: %zu compiled now, %zu were there, %zu failed; %.0f ms each, %.0f ms at most\n", good,
              out.c_str(), compiled, good - compiled, failed, good == 0 ? 0 : sum_ms / double(good), slowest_ms);
  return failed == 0 ? 0 : 1;
}

int list(const std::string& folder) {
  const jit::Cache cache(folder);
  for (const std::string& name : cache.names()) {
    const std::optional<jit::Kernel> k = cache.load(name);
    if (!k)
      std::printf("damaged  %s\n", name.c_str());
    else
      std::printf("%-9s %3d registers %6d shared %5zu KB %5.0f ms  %s  %s\n", k->arch.c_str(), k->resources.registers,
                  k->resources.shared_bytes, k->image.size() / 1024, k->resources.compile_ms, k->compiler.c_str(),
                  k->key.c_str());
  }
  return 0;
}

int explain(const std::vector<std::string>& words) {
  std::string line = words[1];
  for (size_t i = 2; i < words.size(); ++i) line += " " + words[i];
  std::cout << jit::default_jit().explain(cuda::unit_from(line), words[0]);
  std::cout << "  compiler: " << (jit::nvrtc().version.empty() ? jit::nvrtc().problem : jit::nvrtc().version) << "\n";
  return 0;
}

int run(const std::string& command, const std::vector<std::string>& words) {
  if (command == "keys") {
    for (const std::string& line : cuda::common_keys()) std::cout << line << "\n";
    return 0;
  }
  if (command == "build") return build(words);
  if (command == "list" && words.size() == 1) return list(words[0]);
  if (command == "explain" && words.size() >= 2) return explain(words);
  if (command == "clear") {
    const jit::Cache cache(words.empty() ? jit::default_cache_folder() : words[0]);
    std::printf("%lld kernels removed from %s\n", static_cast<long long>(cache.clear()), cache.folder().c_str());
    return 0;
  }
  std::cerr << kUsage;
  return 2;
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  try {
    return fulmen::run(argc < 2 ? "" : argv[1], {argv + std::min(argc, 2), argv + argc});
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
