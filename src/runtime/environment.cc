// SPDX-License-Identifier: Apache-2.0
#include <fulmen/core/error.h>
#include <fulmen/runtime/environment.h>

#include <charconv>
#include <cstdlib>
#include <string>
#include <string_view>

namespace fulmen::runtime {
namespace {

std::string_view value_of(const char* variable) {
  const char* text = std::getenv(variable);
  return text == nullptr ? std::string_view() : text;
}

[[noreturn]] void refuse(const char* variable, std::string_view text, const std::string& expected) {
  fail(variable, "", "is '" + std::string(text.substr(0, 80)) + "', expected " + expected);
}

}  // namespace

int64_t integer_of(const char* variable, int64_t least, int64_t most, int64_t otherwise) {
  const std::string_view text = value_of(variable);
  if (text.empty()) return otherwise;
  int64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || end != text.data() + text.size() || n < least || n > most)
    refuse(variable, text, "an integer from " + std::to_string(least) + " to " + std::to_string(most));
  return n;
}

bool switch_of(const char* variable, bool otherwise) {
  const std::string_view text = value_of(variable);
  if (text.empty()) return otherwise;
  if (text == "1" || text == "on") return true;
  if (text != "0" && text != "off") refuse(variable, text, "0, off, 1 or on");
  return false;
}

}  // namespace fulmen::runtime
