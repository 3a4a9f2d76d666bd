// SPDX-License-Identifier: Apache-2.0
// Prints the text of a unit. A key struct names its fields once, in for_fields; from that come its C++ text
// ("{.x = DType(2), .vecs = 4}"), its line in a list of keys ("rmsnorm x=bfloat16 vecs=4") and the way back.
//
//   struct Key { DType x = DType::kF32; int32_t vecs = 1;
//     template <class K, class F> static constexpr void for_fields(K& k, F&& f) { f("x", k.x); f("vecs", k.vecs); } };
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/core/error.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

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

// What value a text names; expected: what a text may be.
template <class T>
bool parse(std::string_view text, T* value, std::string* expected) {
  if constexpr (std::is_enum_v<T>) {
    for (int32_t i = 0; i < 32; ++i) {
      const std::string_view name = name_of(T(i));
      if (name.empty() || name == "?") break;
      if (text == name) return *value = T(i), true;
      expected->append(i == 0 ? "" : ", ").append(name);
    }
    return false;
  } else {
    int32_t n = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    *value = T(n);
    *expected = std::is_same_v<T, bool> ? "0 or 1" : "an integer";
    return error == std::errc() && end == text.data() + text.size() && (!std::is_same_v<T, bool> || uint32_t(n) < 2);
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

// The values of the words "name=value" of a line, which follow the op's name: each at most once, and only names of
// fields. Throws Error{kInvalidArgument}.
class Words {
 public:
  Words(std::string_view line, const std::vector<std::string_view>& fields) : op_(line.substr(0, line.find(' '))) {
    for (size_t at = op_.size(); at < line.size(); at = std::min(line.find(' ', at + 1), line.size())) {
      const std::string_view word = line.substr(at + 1, line.find(' ', at + 1) - at - 1);
      if (word.empty()) continue;
      const std::string_view name = word.substr(0, word.find('='));
      if (std::find(fields.begin(), fields.end(), name) == fields.end() || name.size() == word.size())
        fail(op_, "key", "has the word '" + std::string(word) + "', expected field=value of the fields" + list(fields));
      if (find(name) != nullptr) fail(op_, name, "is given twice, expected once");
      words_.emplace_back(name, word.substr(name.size() + 1));
    }
  }
  std::string_view op() const { return op_; }
  std::string_view operator[](std::string_view name) const {
    const std::string_view* value = find(name);
    if (value == nullptr) fail(op_, name, "is missing in the key, expected " + std::string(name) + "=...");
    return *value;
  }

 private:
  const std::string_view* find(std::string_view name) const {
    const auto found = std::find_if(words_.begin(), words_.end(), [&](const auto& w) { return w.first == name; });
    return found == words_.end() ? nullptr : &found->second;
  }
  static std::string list(const std::vector<std::string_view>& fields) {
    std::string text;
    for (std::string_view f : fields) text.append(" ").append(f);
    return text;
  }
  std::string_view op_;
  std::vector<std::pair<std::string_view, std::string_view>> words_;
};

// The key that a line names. Throws Error{kInvalidArgument} unless every field is there, once, with a value of its
// type.
template <class Key>
Key key_from(std::string_view line) {
  Key key;
  std::vector<std::string_view> fields;
  Key::for_fields(key, [&](const char* name, auto&) { fields.push_back(name); });
  const Words words(line, fields);
  Key::for_fields(key, [&](const char* name, auto& value) {
    std::string expected;
    const std::string_view text = words[name];
    if (!parse(text, &value, &expected)) fail(words.op(), name, "is '" + std::string(text) + "', expected " + expected);
  });
  return key;
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
