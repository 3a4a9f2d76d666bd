// SPDX-License-Identifier: Apache-2.0
// Which kernel would a call run? Ask the call itself: checks and choice happen as ever, and then nothing runs.
#pragma once
#include <fulmen/runtime/backend.h>

#include <vector>

namespace fulmen::runtime {

// While one lives, launch() and prepare() of this thread choose a kernel and stop there. They do not nest.
class DryRun {
 public:
  DryRun();
  ~DryRun();
  DryRun(const DryRun&) = delete;
  DryRun& operator=(const DryRun&) = delete;
  const std::vector<const KernelRow*>& rows() const { return rows_; }  // chosen so far

 private:
  friend bool skipped(const KernelRow& row);
  std::vector<const KernelRow*> rows_;
};

}  // namespace fulmen::runtime
