// SPDX-License-Identifier: Apache-2.0
// One file of a unit and the headers that it includes, so that a compiler needs no folder of ours.
#include <algorithm>
#include <charconv>
#include <set>

#include "src/jit/embedded_headers.h"
#include "src/jit/host_compiler.h"

namespace fulmen::jit {
namespace {

const EmbeddedHeader* header(std::string_view name) {
  for (const EmbeddedHeader& h : embedded_headers())
    if (h.name == name) return &h;
  return nullptr;
}

// "fulmen/core/math.h" of ` # include <fulmen/core/math.h>`; empty for other lines.
std::string_view included(std::string_view line) {
  const auto skip = [&](std::string_view word) {
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    if (!line.starts_with(word)) return false;
    line.remove_prefix(word.size());
    return true;
  };
  if (!skip("#") || !skip("include") || !skip("")) return {};
  const size_t end = line.find_first_of(">\"", 1);
  const bool is_quoted = line.starts_with("<") || line.starts_with("\"");
  return is_quoted && end != line.npos && line.substr(1).starts_with("fulmen/") ? line.substr(1, end - 1) : "";
}

// What a line `#line 7 "name"` says of the next one.
struct Place {
  std::string file;
  int32_t line = 1;
  void follow(std::string_view text) {
    constexpr std::string_view kBegin = "#line ";
    const size_t open = text.find('"'), close = text.rfind('"');
    ++line;
    if (!text.starts_with(kBegin) || open == text.npos || close <= open) return;
    std::from_chars(text.data() + kBegin.size(), text.data() + open, line);
    file = text.substr(open + 1, close - open - 1);
  }
};

void append(std::string& out, std::string_view text, Place place, std::set<std::string_view>& seen) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end), name = included(line);
    text.remove_prefix(std::min(end + 1, text.size()));
    place.follow(line);
    const EmbeddedHeader* const h = name.empty() ? nullptr : header(name);
    if (h != nullptr) {
      if (!seen.insert(h->name).second) {
        out.append("\n");
        continue;
      }
      out.append("#line 1 \"").append(name).append("\"\n");
      append(out, h->text, {std::string(name)}, seen);
      out.append("#line ").append(std::to_string(place.line)).append(" \"").append(place.file).append("\"\n");
    } else if (line == "#pragma once") {
      out.append("\n");
    } else {
      out.append(line).append("\n");
    }
  }
}

}  // namespace

std::string flattened(std::string_view source) {
  std::string out;
  std::set<std::string_view> seen;
  append(out, source, {"unit.cc"}, seen);
  return out;
}

}  // namespace fulmen::jit
