// SPDX-License-Identifier: Apache-2.0
#include "src/cpu/text.h"

#include <fulmen/core/error.h>

#include <cstring>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "src/jit/host_compiler.h"
#include "src/jit/jit.h"
#include "src/jit/source.h"

namespace fulmen::cpu {
namespace {

// bfloat16 products are no business of a text: the two highest levels share their libraries.
std::string arch_of(CpuLevel level) {
#if defined(__x86_64__)
  constexpr const char* kNames[] = {"x86_64-scalar", "x86_64-avx2", "x86_64-avx512"};
  return kNames[std::min(int32_t(level), 2)];
#elif defined(__aarch64__)
  return "aarch64-scalar";
#else
  return "other-scalar";
#endif
}

std::string entry_of(const std::string& table) {
  return "extern \"C\" __attribute__((visibility(\"default\"))) const void* " + std::string(jit::kEntryName) +
         "() {\n  static const auto table = " + table + ";\n  return &table;\n}\n";
}

jit::Unit unit_of(const attention::VariantCode& code) {
  std::string source = "#include <fulmen/cpu/text/cuda_names.h>\n#include <fulmen/cpu/text/variant_unit.h>\n";
  source += jit::in_namespace("fulmen::attention", code.name, code.text);
  source += entry_of("fulmen::cpu::text::table_of<fulmen::attention::" + code.name + ">()");
  return {"batch_attention variant=" + code.name, std::move(source)};
}

jit::Unit unit_of(const ElementwiseArgs& args) {
  std::string source = "#include <fulmen/cpu/text/cuda_names.h>\n#include <fulmen/cpu/text/elementwise_unit.h>\n";
  source.append("namespace fulmen {\nstruct User {\n  static inline float apply(float a, float b, float c, float d, ");
  source.append("const float* s) {\n#line 1 \"").append(args.name).append("\"\n").append(args.text);
  source.append("\n\n#line 100 \"unit.cc\"\n  }\n};\n}\n");  // a text may end in a backslash
  source += entry_of("fulmen::cpu::text::ElementwiseTable{.apply = &fulmen::cpu::text::apply<fulmen::User>}");
  return {"elementwise name=" + std::string(args.name), std::move(source)};
}

template <class Table>
const Table* table_in(const jit::Kernel& kernel, std::string* problem) {
  void* const entry = jit::load_host_image(kernel.image, problem);
  if (entry == nullptr) return nullptr;
  const auto* table = static_cast<const Table*>(reinterpret_cast<const void* (*)()>(entry)());
  if (table->abi == Table::kAbi) return table;
  *problem = "it is of another version";
  return nullptr;
}

// A file that was made where the C library is newer, say, is made again here.
template <class Table>
const Table& load(const jit::Unit& unit, const std::string& arch) {
  jit::Origin origin{};
  std::string problem;
  const Table* table = table_in<Table>(*jit::host_jit().get(unit, arch, &origin), &problem);
  if (table == nullptr && origin != jit::Origin::kCompiled)
    table = table_in<Table>(*jit::host_jit().compile_again(unit, arch), &problem);
  if (table == nullptr)
    throw Error(Code::kInternal, unit.key + ": the library made for " + arch + " cannot be loaded: " + problem);
  return *table;
}

// By text and instruction set. Never forgotten, like all kernels.
template <class Table, class Text>
const Table& find(std::string id, const Text& text, const std::string& arch) {
  static auto* mutex = new std::shared_mutex;
  static auto* all = new std::map<std::string, const Table*>;
  id += "\n" + arch;
  {
    const std::shared_lock lock(*mutex);
    if (const auto found = all->find(id); found != all->end()) return *found->second;
  }
  const Table& made = load<Table>(unit_of(text), arch);
  const std::unique_lock lock(*mutex);
  return *all->emplace(std::move(id), &made).first->second;
}

}  // namespace

const attention::VariantTable& table_of(const attention::VariantCode& code, CpuLevel level) {
  return find<attention::VariantTable>(code.name + "\n" + code.text, code, arch_of(level));
}

const text::ElementwiseTable& table_of(const ElementwiseArgs& args, CpuLevel level) {
  return find<text::ElementwiseTable>(std::string(args.name) + "\n" + std::string(args.text), args, arch_of(level));
}

VariantFields::VariantFields(const attention::VariantCode& code, const attention::VariantTable& table) {
  const int64_t step = std::max(table.alignment, 8);
  const auto padded = [&](int64_t n) { return (n + step - 1) / step * step; };
  const bool is_empty = table.num_bytes == 0 && code.num_bytes <= 1;  // sizeof an empty struct is 1
  if (code.num_bytes < 0 || (!is_empty && padded(code.num_bytes) != padded(table.num_bytes)))
    fail("batch_attention", "variant",
         "has " + std::to_string(code.num_bytes) + " bytes, expected " + std::to_string(table.num_bytes) +
             ", the size of " + code.name);
  if (code.num_bytes > kMostBytes || table.num_bytes > kMostBytes || table.alignment > 64)
    fail("batch_attention", "variant",
         "has " + std::to_string(code.num_bytes) + " bytes, expected at most " + std::to_string(kMostBytes) +
             ", aligned to 64 at most");
  if (code.num_bytes > 0) std::memcpy(bytes_, code.fields, size_t(code.num_bytes));
  if (const int64_t tail = table.num_bytes - code.num_bytes; tail > 0)
    std::memset(bytes_ + code.num_bytes, 0, size_t(tail));
}

}  // namespace fulmen::cpu
