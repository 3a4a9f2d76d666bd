// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/table.h"

#include "src/cuda/activation.h"
#include "src/cuda/attention.h"
#include "src/cuda/attention_prepare.h"
#include "src/cuda/bits.h"
#include "src/cuda/cascade_attention.h"
#include "src/cuda/choose_cascade.h"
#include "src/cuda/elementwise.h"
#include "src/cuda/merge.h"
#include "src/cuda/norm.h"
#include "src/cuda/page.h"
#include "src/cuda/page_tables.h"
#include "src/cuda/quantization.h"
#include "src/cuda/rope.h"
#include "src/cuda/sampling.h"

namespace fulmen::cuda {
namespace {

template <class... Ops>
struct Table {
  template <class Op>
  static runtime::KernelRow row() {
    static const std::string kernel = std::string("cuda/") + Op::kName;
    return {Op::kName, kernel, &refuses<Op>, &launch_op<Op>, &prepare_op<Op>};
  }
  static std::vector<runtime::KernelRow> rows() { return {row<Ops>()...}; }
  template <class Op>
  static void add_family(std::vector<Family>& all) {
    if constexpr (
        !requires { Op::kKernel; } && requires { &Op::common_keys; })
      all.push_back(family<Op>());
  }
  static std::vector<Family> families() {
    std::vector<Family> all;
    (add_family<Ops>(all), ...);
    add_family<AttentionPrepare>(all);
    add_family<CascadeAttention>(all);
    return all;
  }
};

using All =
    Table<RmsNorm, FusedAddRmsNorm, LayerNorm, ActAndMul, Rope, RopeQuantizeFp8, RopeAppendPagedKvCache,
          AppendPagedKvCache, AppendPagedMlaKvCache, MergeState, MergeStates, PerTensorQuantFp8, PerTokenGroupQuantFp8,
          PackBits, SegmentPackBits, GetBatchIndicesPositions, GetSeqLens, Elementwise, Sample, FilterTokens, Softmax,
          TopK, TopKTransform, ChainSpeculativeSampling, Attention, ChooseCascade>;

}  // namespace

const std::vector<runtime::KernelRow>& rows() {
  static const auto* all = new std::vector<runtime::KernelRow>(All::rows());
  return *all;
}

const std::vector<Family>& families() {
  static const auto* all = new std::vector<Family>(All::families());
  return *all;
}

jit::Unit unit_from(std::string_view line) {
  const std::string_view op = line.substr(0, line.find(' '));
  for (const Family& f : families())
    if (f.name == op) return f.unit(line);
  std::string names;
  for (const Family& f : families()) names.append(names.empty() ? "" : ", ").append(f.name);
  fail("key", "'" + std::string(line) + "'", "is of no kernel, expected one of " + names);
}

}  // namespace fulmen::cuda
