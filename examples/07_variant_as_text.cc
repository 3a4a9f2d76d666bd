// SPDX-License-Identifier: Apache-2.0
// An attention variant given as text, as a user of a server might send it: compiled when it is first run, by the host's
// C++ compiler for tensors in host memory, by NVRTC for those on a GPU.
//
// The variant: a bias per head and distance from a table (as in T5), and a sink that takes weight but has no value.
#include <fulmen/attention/call.h>

#include <cstdio>
#include <vector>

namespace {

using namespace fulmen;

constexpr const char* kText = R"(struct RelativeBias : Defaults {
  const float* bias;  // [num_qo_heads, num_buckets]
  float sm_scale, sink_logit;
  int32_t num_buckets;

  FULMEN_FN KvRange visible(Row row) const { return {0, causal_end(row)}; }
  FULMEN_FN bool changes_logits() const { return true; }
  FULMEN_FN float logit(Row row, int32_t kv_idx, float x) const {
    const int32_t distance = row.kv_len - row.qo_len + row.qo_idx - kv_idx;  // of keys before the row: > 0
    const int32_t bucket = distance < 0 ? 0 : distance < num_buckets ? distance : num_buckets - 1;
    return x * sm_scale + bias[row.qo_head * num_buckets + bucket];
  }
  FULMEN_FN float scale_log2() const { return math::kLog2e; }  // logit() returns natural-log units
  FULMEN_FN bool has_sink() const { return true; }
  FULMEN_FN float sink(Row) const { return sink_logit; }
};
)";

// The text's fields, in its order.
struct Fields {
  const float* bias;
  float sm_scale, sink_logit;
  int32_t num_buckets;
};

}  // namespace

int main() {
  constexpr int64_t kTokens = 64, kHeads = 4, kKvHeads = 2, kDim = 64, kBuckets = 8;
  std::vector<float> q(kTokens * kHeads * kDim), k(kTokens * kKvHeads * kDim), v(k.size()), out(q.size());
  for (size_t i = 0; i < q.size(); ++i) q[i] = float(i * 37 % 101) / 50 - 1;
  for (size_t i = 0; i < k.size(); ++i)
    k[i] = float(i * 53 % 97) / 48 - 1, v[i] = float(i % kDim == 0 ? i / (kKvHeads * kDim) : 0);
  std::vector<float> bias(kHeads * kBuckets);
  for (size_t i = 0; i < bias.size(); ++i) bias[i] = -0.5f * float(i % kBuckets) * float(i / kBuckets);
  const std::vector<int32_t> indptr = {0, int32_t(kTokens)};  // one request

  const AttentionArgs args{.q = view_of(q.data(), {kTokens, kHeads, kDim}),
                           .k = view_of(k.data(), {kTokens, kKvHeads, kDim}),
                           .v = view_of(v.data(), {kTokens, kKvHeads, kDim}),
                           .qo_indptr = view_of(indptr.data(), {2}),
                           .kv_indptr = view_of(indptr.data(), {2}),
                           .out = view_of(out.data(), {kTokens, kHeads, kDim}),
                           .options = {.causal = true}};  // spares work; what a row sees is visible()'s to say
  const Fields fields{bias.data(), 0.125f, -2.f, int32_t(kBuckets)};
  try {
    attention::run_variant(args, {"RelativeBias", kText, &fields, sizeof fields});
  } catch (const Error& e) {
    std::printf("%s\n", e.what());  // no compiler, or a mistake in the text with its line first
    return e.code == Code::kUnsupported ? 0 : 1;
  }
  // v holds each key's position in its first column: the result is the mean position that a row attends to.
  for (int64_t head = 0; head < kHeads; ++head)
    std::printf("head %ld: the last token attends to position %.2f on average\n", long(head),
                double(out[size_t(((kTokens - 1) * kHeads + head) * kDim)]));
  return 0;
}
