// SPDX-License-Identifier: Apache-2.0
// What kernels of a folder (a pack or a cache) took to compile, and take to be found again, without a compiler.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "src/jit/jit.h"
#include "tools/gpu/suite.h"

namespace fulmen::gpu {
namespace {

struct Times {
  std::vector<double> ms;
  double at(double part) {  // of the sorted times
    std::sort(ms.begin(), ms.end());
    return ms.empty() ? 0 : ms[std::min(ms.size() - 1, size_t(part * double(ms.size())))];
  }
};

struct Family {
  Times compile, from_cache, from_pack;
};

// Milliseconds until the kernel is there; adds to the failures where it does not come from `wanted`.
double found_ms(jit::Jit& jit, const jit::Kernel& kernel, jit::Origin wanted, int32_t* failures) {
  const auto start = std::chrono::steady_clock::now();
  try {
    jit::Origin origin{};
    *failures += jit.get({kernel.key, kernel.source}, kernel.arch, &origin)->image != kernel.image || origin != wanted;
  } catch (const std::exception&) { ++*failures; }
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

std::string text_of(Times& t) {
  char text[80];
  std::snprintf(text, sizeof text, "{\"median\": %.3f, \"p99\": %.3f, \"max\": %.3f}", t.at(0.5), t.at(0.99), t.at(1));
  return text;
}

}  // namespace

int measure_jit(const std::string& path, const std::string& folder) {
  const jit::Cache files(folder);
  jit::Jit cache({.cache_folder = folder, .pack_folders = {}, .may_compile = false});
  jit::Jit pack({.cache_folder = "", .pack_folders = {folder}, .may_compile = false});
  std::map<std::string, Family> families;
  std::string compiler, arch;
  int32_t count = 0, failures = 0;
  for (const std::string& name : files.names()) {
    const std::optional<jit::Kernel> kernel = files.load(name);
    if (!kernel) continue;
    compiler = kernel->compiler, arch = kernel->arch, ++count;
    const double from_cache = found_ms(cache, *kernel, jit::Origin::kCache, &failures);
    const double from_pack = found_ms(pack, *kernel, jit::Origin::kPack, &failures);
    for (const std::string& key : {std::string("all"), kernel->key.substr(0, kernel->key.find(' '))}) {
      families[key].compile.ms.push_back(kernel->resources.compile_ms);
      families[key].from_cache.ms.push_back(from_cache), families[key].from_pack.ms.push_back(from_pack);
    }
  }
  std::ofstream out(path);
  out << "{\"device\": \"" << processor() << "\", \"commit\": \"" << commit() << "\", \"date\": \"" << today()
      << "\", \"suite\": \"jit\",\n \"compiler\": \"" << compiler << "\", \"arch\": \"" << arch
      << "\", \"failures\": " << failures << ",\n \"rows\": [\n";
  const char* separator = "";
  for (auto& [name, f] : families) {
    out << separator << "  {\"id\": \"" << name << "\", \"kernels\": " << f.compile.ms.size()
        << ", \"compile_cpu_ms\": " << text_of(f.compile) << ", \"disk_hit_ms\": " << text_of(f.from_cache)
        << ", \"pack_hit_ms\": " << text_of(f.from_pack) << "}";
    separator = ",\n";
    std::printf("%-30s %4zu kernels, compiling %6.0f ms (%.0f at most), disk hit %.2f (%.2f), pack hit %.2f (%.2f)\n",
                name.c_str(), f.compile.ms.size(), f.compile.at(0.5), f.compile.at(1), f.from_cache.at(0.5),
                f.from_cache.at(1), f.from_pack.at(0.5), f.from_pack.at(1));
  }
  out << "\n]}\n";
  std::printf("%d kernels, %d not found\n", count, failures);
  return failures == 0 && count > 0 ? 0 : 1;
}

}  // namespace fulmen::gpu
