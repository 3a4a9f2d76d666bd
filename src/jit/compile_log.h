// SPDX-License-Identifier: Apache-2.0
// Reading what NVRTC, ptxas and the host's compiler print.
#pragma once
#include <string>
#include <string_view>

#include "src/jit/entry.h"

namespace fulmen::jit {

Resources resources_of(std::string_view log);

// The file that a source names for text that is not ours (#line 1 "name"); empty: there is none.
std::string_view own_file_of(std::string_view source);
// The log from its first error on, with that error's context; of the named file, if it has one.
std::string first_errors(std::string_view log, std::string_view file = {});
// The same of the host's compiler, in NVRTC's form: "name(2): error: …" and that line of the source; without errors of
// the named file, as first_errors.
std::string first_host_errors(std::string_view log, std::string_view source, std::string_view file);

// Bytes that any language can take for text: what belongs to no UTF-8 letter, and control characters, become '?'.
std::string as_utf8(std::string bytes);

}  // namespace fulmen::jit
