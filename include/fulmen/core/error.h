// SPDX-License-Identifier: Apache-2.0
// The one exception type. What it carries is meant for the person who wrote the call: op, argument, expected, got.
#pragma once
#include <concepts>
#include <exception>
#include <string>
#include <string_view>

namespace fulmen {

enum class Code : int32_t {
  kInvalidArgument,  // the call is wrong            Python ValueError
  kUnsupported,      // no kernel serves this call   Python NotImplementedError
  kInternal,         // a bug of ours                Python RuntimeError
};

struct Error : std::exception {
  Code code;
  std::string message;
  Error(Code c, std::string text) : code(c), message(std::move(text)) {}
  const char* what() const noexcept override { return message.c_str(); }
};

// "rmsnorm: weight: dtype is int32, expected float32, float16 or bfloat16"
[[noreturn]] inline void fail(std::string_view op, std::string_view argument, std::string_view text) {
  std::string message(op);
  message.append(": ").append(argument).append(argument.empty() ? "" : " ").append(text);
  throw Error(Code::kInvalidArgument, std::move(message));
}

// Scalars: fail unless ok. The text is only built when it is needed.
template <class T>
inline void require(bool ok, std::string_view op, std::string_view argument, const T& got, std::string_view expected) {
  if (ok) return;
  fail(op, argument, "is " + std::to_string(got) + ", expected " + std::string(expected));
}
// The same where what was expected takes time to say.
template <class T, std::invocable Expected>
inline void require(bool ok, std::string_view op, std::string_view argument, const T& got, Expected expected) {
  if (!ok) require(false, op, argument, got, std::string_view(expected()));
}

}  // namespace fulmen
