// SPDX-License-Identifier: Apache-2.0
#include "src/jit/entry.h"

#include <charconv>
#include <cstdio>
#include <map>
#include <vector>

#include "src/jit/sha256.h"

namespace fulmen::jit {
namespace {

constexpr std::string_view kMagic = "fulmen-kernel 1 ";

std::optional<int64_t> parse_int(std::string_view text) {
  int64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || end != text.data() + text.size() || n < 0) return {};
  return n;
}

using Fields = std::map<std::string_view, std::string_view>;

int64_t int_of(const Fields& fields, std::string_view name) {
  const auto found = fields.find(name);
  return found == fields.end() ? 0 : parse_int(found->second).value_or(0);
}

std::string text_of(const Fields& fields, std::string_view name) {
  const auto found = fields.find(name);
  return found == fields.end() ? std::string() : std::string(found->second);
}

// Splits "name: value" lines up to an empty one; the rest stays in text.
Fields take_head(std::string_view& text) {
  Fields fields;
  for (;;) {
    const size_t end = text.find('\n');
    if (end == text.npos) return fields;
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (line.empty()) return fields;
    if (const size_t colon = line.find(": "); colon != line.npos)
      fields[line.substr(0, colon)] = line.substr(colon + 2);
  }
}

}  // namespace

std::string request_id(std::string_view key, std::string_view source, std::string_view headers, std::string_view flags,
                       std::string_view arch) {
  Sha256 hash;
  for (std::string_view field : {key, source, headers, flags, arch}) hash.add_field(field);
  return hash.hex();
}

std::string entry_id(const Kernel& k) { return Sha256().add_field(request_id(k)).add_field(k.compiler).hex(); }

std::string file_name(std::string_view key, std::string_view arch, std::string_view request,
                      std::string_view compiler) {
  std::string name(key.substr(0, key.find(' ')));
  for (char& c : name)
    if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9')) c = '_';
  name.append("-").append(arch).append("-").append(request.substr(0, 24));
  return name.append("-").append(sha256(compiler).substr(0, 8)).append(".kernel");
}

std::string encode(const Kernel& k) {
  std::string rest;
  const auto line = [&](std::string_view name, const std::string& value) {
    rest.append(name).append(": ").append(value).append("\n");
  };
  char compile_us[32];
  std::snprintf(compile_us, sizeof compile_us, "%.0f", k.resources.compile_ms * 1000);
  line("key", k.key);
  line("arch", k.arch);
  line("compiler", k.compiler);
  line("flags", k.flags);
  line("headers", k.headers);
  line("registers", std::to_string(k.resources.registers));
  line("shared_bytes", std::to_string(k.resources.shared_bytes));
  line("stack_bytes", std::to_string(k.resources.stack_bytes));
  line("spill_bytes", std::to_string(k.resources.spill_bytes));
  line("compile_us", compile_us);
  line("image_bytes", std::to_string(k.image.size()));
  line("log_bytes", std::to_string(k.log.size()));
  line("source_bytes", std::to_string(k.source.size()));
  rest.append("\n").append(k.image).append(k.log).append(k.source);
  return std::string(kMagic) + sha256(rest) + " " + std::to_string(rest.size()) + "\n" + rest;
}

std::optional<Kernel> decode(std::string_view file) {
  if (!file.starts_with(kMagic) || file.size() < kMagic.size() + 66) return {};
  file.remove_prefix(kMagic.size());
  const std::string_view hash = file.substr(0, 64);
  const size_t end = file.find('\n');
  if (file[64] != ' ' || end == file.npos || end < 66) return {};
  const std::optional<int64_t> num_bytes = parse_int(file.substr(65, end - 65));
  file.remove_prefix(end + 1);
  if (!num_bytes || size_t(*num_bytes) != file.size() || sha256(file) != hash) return {};

  const Fields f = take_head(file);
  const size_t image = size_t(int_of(f, "image_bytes")), log = size_t(int_of(f, "log_bytes")),
               source = size_t(int_of(f, "source_bytes"));
  if (image + log + source != file.size()) return {};
  Kernel k;
  k.key = text_of(f, "key"), k.arch = text_of(f, "arch"), k.compiler = text_of(f, "compiler");
  k.flags = text_of(f, "flags"), k.headers = text_of(f, "headers");
  k.image = file.substr(0, image), k.log = file.substr(image, log), k.source = file.substr(image + log);
  k.resources = {.registers = int32_t(int_of(f, "registers")),
                 .shared_bytes = int32_t(int_of(f, "shared_bytes")),
                 .stack_bytes = int32_t(int_of(f, "stack_bytes")),
                 .spill_bytes = int32_t(int_of(f, "spill_bytes")),
                 .compile_ms = double(int_of(f, "compile_us")) / 1000};
  return k;
}

}  // namespace fulmen::jit
