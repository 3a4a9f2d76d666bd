// SPDX-License-Identifier: Apache-2.0
// Users' texts on the CPU: the host's compiler makes a library of each, at its first use; it is kept in the cache, and
// in memory for ever. A text knows no dtypes: kernels hand it floats.
#pragma once
#include <fulmen/attention/call.h>
#include <fulmen/attention/variant_table.h>
#include <fulmen/core/context.h>
#include <fulmen/cpu/text/elementwise_unit.h>
#include <fulmen/ops/elementwise.h>

namespace fulmen::cpu {

// Throw Error: kUnsupported without a compiler, kInvalidArgument where the text does not compile.
const attention::VariantTable& table_of(const attention::VariantCode& code, CpuLevel level);
const text::ElementwiseTable& table_of(const ElementwiseArgs& args, CpuLevel level);

// The bytes of a variant where its table may read them.
class VariantFields {
 public:
  VariantFields(const attention::VariantCode& code, const attention::VariantTable& table);
  const void* data() const { return bytes_; }

 private:
  static constexpr int64_t kMostBytes = 4096;
  alignas(64) char bytes_[kMostBytes];
};

}  // namespace fulmen::cpu
