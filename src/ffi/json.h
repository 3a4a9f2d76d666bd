// SPDX-License-Identifier: Apache-2.0
// JSON text, for what the module says about itself.
#pragma once
#include <tvm/ffi/string.h>

#include <string>
#include <string_view>
#include <vector>

namespace fulmen::ffi {

// {"name": "text", ...}
class Object {
 public:
  Object& text(std::string_view name, std::string_view value) { return json(name, quoted(value)); }
  Object& number(std::string_view name, int64_t value) { return json(name, std::to_string(value)); }
  Object& boolean(std::string_view name, bool value) { return json(name, value ? "true" : "false"); }
  Object& json(std::string_view name, std::string_view value) {
    text_.append(text_.empty() ? "{" : ", ").append(quoted(name)).append(": ").append(value);
    return *this;
  }
  std::string end() const {
    std::string whole = text_;
    whole.push_back('}');
    return whole;
  }
  static std::string quoted(std::string_view text) {
    const tvm::ffi::String escaped = tvm::ffi::EscapeStringJSON(tvm::ffi::String(text.data(), text.size()));
    return std::string(escaped.data(), escaped.size());
  }

 private:
  std::string text_;
};

// [first, second, ...]
inline std::string list(const std::vector<std::string>& items) {
  std::string text(1, '[');
  for (const std::string& item : items) text.append(text.size() == 1 ? "" : ", ").append(item);
  text.push_back(']');
  return text;
}

}  // namespace fulmen::ffi
