// SPDX-License-Identifier: Apache-2.0
// What the command `fulmen` does with compiled kernels: looks into packs and the cache, builds packs, explains lookups.
#include <tvm/ffi/function.h>

#include <set>
#include <sstream>

#include "src/cuda/pack.h"
#include "src/cuda/table.h"
#include "src/ffi/convert.h"
#include "src/ffi/json.h"
#include "src/jit/dynamic_library.h"
#include "src/jit/host_compiler.h"
#include "src/jit/nvrtc.h"
#include "src/jit/process.h"

namespace fulmen::ffi {
namespace {

// A compiler that hangs can be left with Ctrl-C.
[[maybe_unused]] const bool kWatching =
    (jit::set_interrupt_check([]() -> bool { return is_interrupted() = TVMFFIEnvCheckSignals() != 0; }), true);

std::string text(const String& s) { return {s.data(), s.size()}; }

std::string folder_of(const String& folder) {
  return folder.size() == 0 ? jit::default_jit().options().cache_folder : text(folder);
}

std::vector<std::string> split(const std::string& words) {
  std::vector<std::string> parts;
  std::istringstream in(words);
  for (std::string part; std::getline(in, part, ',');)
    if (!part.empty()) parts.push_back(part);
  return parts;
}

Object kernel(const jit::Kernel& k) {
  const jit::Resources& r = k.resources;
  return std::move(Object()
                       .text("key", k.key)
                       .text("arch", k.arch)
                       .text("compiler", k.compiler)
                       .number("registers", r.registers)
                       .number("shared_bytes", r.shared_bytes)
                       .number("spill_bytes", r.spill_bytes)
                       .json("compile_ms", std::to_string(r.compile_ms)));
}

std::string host_command() {
  std::string words;
  for (const std::string& word : jit::host_compiler().command) words += (words.empty() ? "" : " ") + word;
  return words;
}

// A user's text is not in its key. What is stored under the key has it: would a call with that text find it?
std::string explain_texts(const std::string& key, const std::string& arch) {
  if (key.find(" variant=") == key.npos && key.find(" name=") == key.npos) return {};
  std::string all;
  const jit::Options& options = jit::default_jit().options();
  std::vector<std::string> folders = options.pack_folders;
  if (!options.cache_folder.empty()) folders.push_back(options.cache_folder);
  std::set<std::string> explained;
  for (const std::string& folder : folders) {
    const jit::Cache files(folder);
    for (const std::string& name : files.names()) {
      const std::optional<jit::Kernel> k = files.load(name);
      if (!k || k->key != key || (!arch.empty() && k->arch != arch)) continue;
      const bool is_cuda = k->arch.starts_with("sm_") || k->arch.starts_with("compute_");
      if (explained.insert(k->arch + k->source).second)
        all += (is_cuda ? jit::default_jit() : jit::host_jit()).explain({k->key, k->source}, k->arch);
    }
  }
  return all.empty() ? key + "\n  miss: no folder has a text of this name; its first call compiles it\n" : all;
}

std::string cuda_devices() {
  std::vector<std::string> all;
  for (int32_t i = 0; i < cuda::num_devices(); ++i) {
    const cuda::Device& d = cuda::device(i);
    all.push_back(Object()
                      .number("device_id", i)
                      .text("name", d.name)
                      .number("arch", d.arch)
                      .text("target", d.targets.front())
                      .number("num_sms", d.num_sms)
                      .end());
  }
  return list(all);
}

}  // namespace

String jit_config_() {
  const jit::Options& o = jit::default_jit().options();
  std::vector<std::string> packs;
  for (const std::string& folder : o.pack_folders) packs.push_back(Object::quoted(folder));
  return Object()
      .text("cache_folder", o.cache_folder)
      .number("cache_limit_bytes", o.cache_limit_bytes)
      .json("pack_folders", list(packs))
      .boolean("may_compile", o.may_compile)
      .text("compiler", jit::nvrtc().version)
      .text("compiler_path", jit::nvrtc().path)
      .text("compiler_problem", jit::nvrtc().problem)
      .text("host_compiler", host_command())
      .text("host_compiler_problem", jit::host_compiler().problem)
      .text("driver_problem", cuda::driver::problem())
      .json("devices", cuda_devices())
      .end();
}

String jit_list_(String folder) {
  const jit::Cache cache(folder_of(folder));
  std::vector<std::string> all;
  for (const std::string& name : cache.names())
    if (const std::optional<jit::Kernel> k = cache.load(name))
      all.push_back(kernel(*k).text("file", name).number("image_bytes", int64_t(k->image.size())).end());
    else
      all.push_back(Object().text("file", name).boolean("damaged", true).end());
  return list(all);
}

String jit_explain_(String key, String arch) {
  if (std::string texts = explain_texts(text(key), text(arch)); !texts.empty()) return texts;
  const jit::Unit unit = cuda::unit_from(text(key));
  const std::string target = arch.size() == 0 ? cuda::device(0).targets.front() : text(arch);
  return jit::default_jit().explain(unit, target);
}

int64_t jit_clear_(String folder) { return jit::Cache(folder_of(folder)).clear(); }

String pack_keys_() {
  std::string lines;
  for (const std::string& line : cuda::common_keys()) lines.append(line).append("\n");
  return lines;
}

int64_t pack_build_(String folder, String archs, String keys, bool all, int64_t num_threads,
                    tvm::ffi::Function on_result) {
  const std::vector<cuda::PackJob> jobs = cuda::pack_jobs(split(text(archs)), cuda::parse_keys(text(keys)), all);
  if (jobs.empty()) fail("pack_build", "archs, keys", "name no kernel");
  require(num_threads >= 0 && num_threads <= 1024, "pack_build", "num_threads", num_threads, "0 to 1024");
  cuda::build_pack(text(folder), jobs, int32_t(num_threads), [&](const cuda::PackResult& r) {
    Object result = kernel(r.kernel);
    result.text("line", r.job.line).text("target", r.job.arch).text("problem", r.problem);
    on_result(String(result.boolean("compiled", r.compiled).number("of", int64_t(jobs.size())).end()));
  });
  return int64_t(jobs.size());
}

void add_library_folder_(String folder) { jit::add_library_folder(text(folder)); }

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(jit_config, "", "JSON: cache and pack folders, the run-time compiler, the driver, CUDA devices");
FULMEN_FFI_EXPORT(jit_list, "folder", "JSON: the kernels of a pack or cache folder; empty: the cache's");
FULMEN_FFI_EXPORT(jit_explain, "key, arch",
                  "where a kernel would come from, or why no folder has it; arch empty: device 0's");
FULMEN_FFI_EXPORT(jit_clear, "folder", "empties a folder of kernels, empty: the cache's; returns how many there were");
FULMEN_FFI_EXPORT(pack_keys, "", "the keys of the kernels that usual models need, one a line");
FULMEN_FFI_EXPORT(
    pack_build, "folder, archs, keys, all, num_threads, on_result",
    "compiles kernels into a folder, all or without usual ones that only other devices ask for; archs like "
    "sm_80,sm_90a; on_result gets JSON for each, one at a time");
FULMEN_FFI_EXPORT(add_library_folder, "folder", "one more folder where NVRTC may be found; before its first use");
