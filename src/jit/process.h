// SPDX-License-Identifier: Apache-2.0
// Runs a program without a shell, silently and not for ever.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace fulmen::jit {

struct ProcessResult {
  enum End : int8_t { kExited, kSignalled, kTimedOut, kInterrupted, kNotStarted, kUnknown } end = kUnknown;
  int32_t code = 0;  // exit status, signal, or why it did not start (errno)
};

// words: a path and arguments. Its input is empty; output and errors go to log_file. settings ("NAME=value") replace
// the environment's. After timeout_s it is killed with all that it has started. Its memory is limited to 2 GiB,
// each file that it writes to 64 MiB. kUnknown: somebody else in this process has waited for it.
ProcessResult run_process(const std::vector<std::string>& words, const std::string& log_file,
                          const std::vector<std::string>& settings, double timeout_s);

// Asked now and then by the thread that waits for a program: whether its user wants no more of it (Ctrl-C in Python).
void set_interrupt_check(bool (*is_interrupted)());

}  // namespace fulmen::jit
