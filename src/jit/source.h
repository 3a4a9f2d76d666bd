// SPDX-License-Identifier: Apache-2.0
// Prints the text of a unit. A key struct names its fields once, in for_fields; from that come its C++ text
// ("{.x = DType(2), .vecs = 4}"), its line in a list of keys ("rmsnorm x=bfloat16 vecs=4") and the way back.
//
//   struct Key { DType x = DType::kF32; int32_t vecs = 1;
//     template <class K, class F> static constexpr void for_fields(K& k, F&& f) { f("x", k.x); f("vecs", k.vecs); } };
#pragma once
#include <fulmen/core/dtype.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "src/jit/entry.h"

namespace fulmen::jit {

// Value ↔ text of a field: bool, int32_t, or an enum with a name_of found by argument-dependent lookup.
template <class T>
std::string text_of(T value) {
  if constexpr (std::is_enum_v<T>)
    return name_of(value);
  else
    return std::to_string(int32_t(value));
}

template <class T>
bool parse(std::string_view text, T* value) {
  if constexpr (std::is_enum_v<T>) {
    for (int32_t i = 0; i < 32; ++i)
      if (text == name_of(T(i))) return *value = T(i), true;
    return false;
  } else {
    int32_t n = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    *value = T(n);
    return error == std::errc() && end == text.data() + text.size();
  }
}

// "rmsnorm x=bfloat16 vecs=4"
template <class Key>
std::string line_of(std::string_view op, const Key& key) {
  std::string line(op);
  Key::for_fields(
      key, [&](const char* name, auto value) { line.append(" ").append(name).append("=").append(text_of(value)); });
  return line;
}

// The value of one word "name=value" of a line; empty where there is none.
inline std::string_view word_of(std::string_view line, std::string_view name) {
  for (size_t at = line.find(' '); at != line.npos; at = line.find(' ', at + 1)) {
    const std::string_view word = line.substr(at + 1, line.find(' ', at + 1) - at - 1);
    if (word.size() > name.size() && word.starts_with(name) && word[name.size()] == '=')
      return word.substr(name.size() + 1);
  }
  return {};
}

// Empty unless the line names every field, with a value it can have.
template <class Key>
std::optional<Key> key_from(std::string_view line) {
  Key key;
  bool good = true;
  Key::for_fields(key, [&](const char* name, auto& value) { good = good && parse(word_of(line, name), &value); });
  return good ? std::optional<Key>(key) : std::nullopt;
}

// A text of a user's inside a namespace, its lines counted from 1 in the file `name` of the compiler's messages. Lines
// of #include that it begins with stand before.
inline std::string in_namespace(std::string_view space, std::string_view name, std::string_view text) {
  std::string includes, body;
  while (text.starts_with("#include")) {
    const size_t end = std::min(text.find('\n'), text.size());
    includes.append(text.substr(0, end)).append("\n");
    body.append("\n");
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  std::string all = std::move(includes);
  all.append("namespace ").append(space).append(" {\n#line 1 \"").append(name).append("\"\n");
  return all.append(body).append(text).append("\n\n#line 1000 \"unit\"\n}\n");
}

// The unit of a kernel in the house's form: fulmen/cuda/<op>.cuh has a namespace fulmen::cuda::<op> with a Key, a
// Params, launch_bounds<Key> and run<Key>(params).
template <class Key>
Unit unit_of(std::string_view op, const Key& key) {
  std::string fields;
  Key::for_fields(key, [&](const char* name, auto value) {
    fields.append(fields.empty() ? "" : ", ").append(".").append(name).append(" = ");
    if constexpr (std::is_enum_v<decltype(value)>) fields.append("decltype(Key::").append(name).append(")");
    fields.append("(").append(std::to_string(int32_t(value))).append(")");
  });
  std::string source = "#include <fulmen/cuda/";
  source.append(op)
      .append(".cuh>\nusing namespace fulmen::cuda;\nusing namespace fulmen::cuda::")
      .append(op)
      .append(";\nconstexpr Key kKey{")
      .append(fields);
  source.append("};\nextern \"C\" __global__ void __launch_bounds__(num_threads(kKey)");
  if constexpr (requires { min_ctas(key); }) source.append(", min_ctas(kKey)");  // per SM: bounds the registers
  source.append(") ").append(kEntryName);
  source.append("(const __grid_constant__ Params params) { run<kKey>(params); }\n");
  return {line_of(op, key), std::move(source)};
}

}  // namespace fulmen::jit
