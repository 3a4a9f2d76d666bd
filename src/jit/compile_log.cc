// SPDX-License-Identifier: Apache-2.0
#include "src/jit/compile_log.h"

#include <algorithm>
#include <charconv>
#include <vector>

namespace fulmen::jit {
namespace {

// The largest number that stands before (or after) a phrase, over the whole log.
int32_t number_before(std::string_view log, std::string_view phrase) {
  int32_t most = 0;
  for (size_t at = log.find(phrase); at != log.npos; at = log.find(phrase, at + 1)) {
    size_t begin = at;
    while (begin > 0 && log[begin - 1] >= '0' && log[begin - 1] <= '9') --begin;
    int32_t n = 0;
    std::from_chars(log.data() + begin, log.data() + at, n);
    most = std::max(most, n);
  }
  return most;
}

int32_t number_after(std::string_view log, std::string_view phrase) {
  int32_t most = 0;
  for (size_t at = log.find(phrase); at != log.npos; at = log.find(phrase, at + 1)) {
    int32_t n = 0;
    std::from_chars(log.data() + at + phrase.size(), log.data() + log.size(), n);
    most = std::max(most, n);
  }
  return most;
}

// Line `number` of the part of a source that stands behind `#line 1 "file"`.
std::string_view line_of_text(std::string_view source, std::string_view file, int32_t number) {
  const std::string mark = "#line 1 \"" + std::string(file) + "\"\n";
  const size_t at = source.rfind(mark);
  if (at == source.npos || number < 1) return {};
  source.remove_prefix(at + mark.size());
  for (; number > 1 && !source.empty(); --number)
    source.remove_prefix(std::min(source.find('\n'), source.size() - 1) + 1);
  return source.substr(0, source.find('\n'));
}

}  // namespace

std::string as_utf8(std::string bytes) {
  const auto at = [&](size_t i) { return i < bytes.size() ? uint8_t(bytes[i]) : uint8_t(0); };
  for (size_t i = 0; i < bytes.size();) {
    const uint8_t c = at(i);
    size_t length = c < 0x80                ? 1
                    : c >= 0xc2 && c < 0xe0 ? 2
                    : c >= 0xe0 && c < 0xf0 ? 3
                    : c >= 0xf0 && c < 0xf5 ? 4
                                            : 0;
    for (size_t k = 1; k < length; ++k)
      if ((at(i + k) & 0xc0) != 0x80) length = 0;
    const bool is_control = c < 0x20 && c != '\n' && c != '\t';
    // Overlong forms, surrogates and what is beyond the last letter.
    const uint8_t next = at(i + 1);
    if ((c == 0xe0 && next < 0xa0) || (c == 0xed && next > 0x9f) || (c == 0xf0 && next < 0x90) ||
        (c == 0xf4 && next > 0x8f))
      length = 0;
    if (length == 0 || is_control) bytes[i] = '?';
    i += std::max<size_t>(length, 1);
  }
  return bytes;
}

Resources resources_of(std::string_view log) {
  return {.registers = number_after(log, "Used "),
          .shared_bytes = number_before(log, " bytes smem"),
          .stack_bytes = number_before(log, " bytes stack frame"),
          .spill_bytes = number_before(log, " bytes spill stores") + number_before(log, " bytes spill loads")};
}

std::string_view own_file_of(std::string_view source) {
  constexpr std::string_view kMark = "#line 1 \"";
  const size_t at = source.rfind(kMark);
  if (at == source.npos) return {};
  source.remove_prefix(at + kMark.size());
  return source.substr(0, source.find('"'));
}

std::string first_errors(std::string_view log, std::string_view file) {
  size_t error = log.find("error");
  if (!file.empty()) {  // "name(3): error: …" at the start of a line
    const std::string begin = std::string(file) + "(";
    for (size_t at = log.find(begin); at != log.npos; at = log.find(begin, at + 1)) {
      if (at > 0 && log[at - 1] != '\n') continue;
      if (const size_t found = log.find("error", at); found < log.find('\n', at)) {
        error = found;
        break;
      }
    }
  }
  constexpr size_t kMost = 4000;  // a template's error can go on for pages
  if (error == log.npos) return as_utf8(std::string(log.substr(0, kMost)));
  const size_t line = log.rfind('\n', error);
  std::string_view rest = log.substr(line == log.npos ? 0 : line + 1);
  return as_utf8(std::string(rest.substr(0, kMost)));
}

std::string first_host_errors(std::string_view log, std::string_view source, std::string_view file) {
  const std::string begin = std::string(file) + ":";
  std::string errors;
  for (size_t at = 0; !file.empty() && at < log.size();) {
    const size_t end = std::min(log.find('\n', at), log.size());
    const std::string_view line = log.substr(at, end - at);
    const size_t error = line.find("error: ");
    at = end + 1;
    if (!line.starts_with(begin) || error == line.npos || errors.size() > 2000) continue;
    int32_t number = 0;
    std::from_chars(line.data() + begin.size(), line.data() + line.size(), number);
    errors.append(errors.empty() ? "" : "\n").append(file).append("(").append(std::to_string(number)).append("): ");
    errors.append(line.substr(error)).append("\n  ").append(line_of_text(source, file, number));
  }
  return errors.empty() ? first_errors(log, "") : errors;
}

}  // namespace fulmen::jit
