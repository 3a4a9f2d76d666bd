// SPDX-License-Identifier: Apache-2.0
// The index tensors of an attention call that say lengths, readable by the host: copied where a device holds them.
#pragma once
#include <fulmen/ops/attention.h>
#include <fulmen/runtime/registry.h>

#include <memory>
#include <vector>

namespace fulmen::attention {

// check() of what needs no lengths; args becomes canonical.
AttentionDims checked(AttentionArgs& args, AttentionEntry entry);

class HostLengths {
 public:
  HostLengths(const AttentionArgs& given, const Context& context);  // one-dimensional tables, hence contiguous
  AttentionArgs args;

 private:
  std::vector<std::unique_ptr<char[]>> copies_;
};

}  // namespace fulmen::attention
