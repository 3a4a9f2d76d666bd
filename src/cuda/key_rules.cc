// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/key_rules.h"

#include <fulmen/core/error.h>
#include <fulmen/cuda/row_shape.h>

#include <algorithm>
#include <string>

#include "src/cuda/attention.h"
#include "src/jit/source.h"

namespace fulmen::cuda {
namespace {

// "1, 2, 4 or 8"
std::string words(std::initializer_list<int32_t> numbers) {
  std::string text;
  size_t left = numbers.size();
  for (int32_t n : numbers) text += std::to_string(n) + (--left > 1 ? ", " : left == 1 ? " or " : "");
  return text;
}

DTypes with_fp8(DType t) { return of(t) | kFp8; }

// Rows that lie in a team's registers: choose_row_shape's answers.
void check_rows(int32_t vec, int32_t vecs, int32_t lanes, DType x, const KeyRules& rules) {
  rules.vec("vec", vec, x);
  rules.one_of("vecs", vecs, {1, 2, 3, 4, 6, 8});
  rules.one_of("lanes", lanes, {8, 16, 32, 128, 256, 512, 1024});
}

}  // namespace

void KeyRules::only(bool ok, std::string_view field, std::string_view got, std::string_view expected) const {
  if (!ok) fail(op, field, std::string("is ").append(got).append(", expected ").append(expected));
}
void KeyRules::one_of(std::string_view field, DType got, DTypes allowed) const {
  only(allowed.has(got), field, name_of(got), to_string(allowed));
}
void KeyRules::one_of(std::string_view field, int32_t got, std::initializer_list<int32_t> allowed) const {
  only(std::find(allowed.begin(), allowed.end(), got) != allowed.end(), field, std::to_string(got), words(allowed));
}
void KeyRules::multiple(std::string_view field, int32_t got, int32_t of, int32_t most) const {
  only(got > 0 && got <= most && got % of == 0, field, std::to_string(got),
       "a multiple of " + std::to_string(of) + " up to " + std::to_string(most));
}
void KeyRules::vec(std::string_view field, int32_t got, DType of) const {
  size_of(of) == 4 ? one_of(field, got, {1, 2, 4}) : one_of(field, got, {1, 2, 4, 8});
}

void check_key(const NormKey& k, const KeyRules& rules) {
  rules.one_of("x", k.x, kFloats);
  rules.one_of("weight", k.weight, of(k.x) | kF32);
  rules.one_of("out", k.out, with_fp8(k.x));
  check_rows(k.vec, k.vecs, k.lanes, k.x, rules);
}

void check_key(const TokenKey& k, const KeyRules& rules) {
  const auto is = [&](std::string_view op) { return rules.op == op; };
  const bool ranks = is("top_k") || is("top_k_transform"), draws = is("chain_speculative_sampling");
  rules.one_of("x", k.x, draws ? kF32 : kFloats);
  rules.one_of("vec", k.vec, {1, draws ? 1 : 16 / size_of(k.x)});
  const bool may_be_small = is("sample") && !k.cluster;
  rules.only(k.threads != 256 || may_be_small, "threads", "256", "128 or 512: 256 are for sample without clusters");
  rules.one_of("threads", k.threads, {128, 256, 512});
  rules.only(!k.logits || !(ranks || draws), "logits", "1", "0");
  rules.only(k.logits || !is("softmax"), "logits", "0", "1");
  rules.only(!k.resident || !is("sample"), "resident", "1", "0");
  if (is("softmax") || draws) rules.only(k.path == TokenPath::kAny, "path", name_of(k.path), "any");
  if (ranks)
    rules.only(k.path == TokenPath::kList || k.path == TokenPath::kSearch, "path", name_of(k.path), "list or search");
  const bool filters = k.path != TokenPath::kSum && k.path != TokenPath::kValue;
  if (is("token_filter")) rules.only(filters, "path", name_of(k.path), "any, list or search");
}

void check_key(const act_and_mul::Key& k, const KeyRules& rules) {
  rules.one_of("x", k.x, kFloats);
  rules.vec("vec", k.vec, k.x);
}

void check_key(const append_paged_kv_cache::Key& k, const KeyRules& rules) {
  rules.one_of("vec_bytes", k.vec_bytes, {1, 2, 4, 8, 16});
  rules.one_of("batch", k.batch, {1, 4});
}

void check_key(const attention_prepare::Key& k, const KeyRules& rules) {
  using namespace attention_prepare;
  rules.one_of("threads", k.threads, {kFewThreads, kSomeThreads, kManyThreads});
  rules.one_of("tiles", k.tiles, {k.threads == kFewThreads ? 1 : k.threads == kSomeThreads ? kTilesPerThread : 0});
}

// The key is what attention_key makes of some tile on a device whose shared memory it just fits.
void check_key(const batch_attention::Key& k, const KeyRules& rules) {
  rules.one_of("q", k.q, of(DType::kF16, DType::kBF16));
  rules.one_of("kv", k.kv, with_fp8(k.q));
  rules.multiple("d_qk", k.d_qk, 16, batch_attention::kMaxHeadDim);
  rules.multiple("d_vo", k.d_vo, 16, batch_attention::kMaxHeadDim);
  rules.one_of("m_tiles", k.m_tiles, {1, 2});
  rules.one_of("warps_q", k.warps_q, {1, 4, 8});
  rules.one_of("tile_kv", k.tile_kv, {16, 32, 64, 192});
  rules.one_of("block_kv", k.block_kv, {16, 32});
  rules.one_of("stages", k.stages, {1, 2, 3});
  constexpr int32_t kHopper = 232448;
  std::string likely;
  for (int32_t tile : {16, 32, 64, 128, 256})
    for (bool alone : {false, true}) {
      const auto made = [&](int32_t shared_bytes) {
        return attention_key(tile, k.d_qk, k.d_vo, k.q, k.kv, shared_bytes, alone);
      };
      if (made(batch_attention::SharedLayout(k).bytes) == k) return;
      const std::optional<batch_attention::Key> other = made(kHopper);
      if (!other || other->m_tiles != k.m_tiles || other->warps_q != k.warps_q) continue;
      std::string line = jit::line_of("", *other);
      line.erase(0, line.find(" tile_kv="));
      if (likely.find(line) == likely.npos) likely.append(likely.empty() ? "" : ", or").append(line);
    }
  if (likely.empty()) fail(rules.op, "m_tiles, warps_q", "have no kernel for these head dims and dtypes");
  fail(rules.op, "tile_kv, block_kv, stages", "have no kernel together, expected such as" + likely);
}

void check_key(const choose_cascade::Key& k, const KeyRules& rules) {
  rules.one_of("threads", k.threads, {choose_cascade::Key{}.threads});
}
void check_key(const get_batch_indices_positions::Key& k, const KeyRules& rules) {
  rules.one_of("threads", k.threads, {get_batch_indices_positions::Key{}.threads});
}
void check_key(const get_seq_lens::Key& k, const KeyRules& rules) {
  rules.one_of("threads", k.threads, {get_seq_lens::Key{}.threads});
}

void check_key(const merge_states::Key& k, const KeyRules& rules) {
  rules.one_of("v", k.v, kFloats);
  rules.one_of("out", k.out, kFloats);
  rules.vec("vec", k.vec, k.v);
  rules.one_of("vecs", k.vecs, {1, 2, 4, 8, 16, 32});
  rules.one_of("lanes", k.lanes, {4, 8, 16, 32});
  rules.one_of("batch", k.batch, {2, k.vecs <= 4 ? 4 : 1});
}

void check_key(const packbits::Key& k, const KeyRules& rules) { rules.one_of("vec", k.vec, {1, 8, 16}); }

void check_key(const per_tensor_quant_fp8::Key& k, const KeyRules& rules) {
  rules.one_of("x", k.x, kFloats);
  rules.one_of("out", k.out, kFp8);
  k.step == per_tensor_quant_fp8::Step::kScale ? rules.one_of("vec", k.vec, {1}) : rules.vec("vec", k.vec, k.x);
}

void check_key(const per_token_group_quant_fp8::Key& k, const KeyRules& rules) {
  rules.one_of("x", k.x, kFloats);
  rules.one_of("out", k.out, kFp8);
  check_rows(k.vec, k.vecs, k.lanes, k.x, rules);
}

void check_key(const rope::Key& k, const KeyRules& rules) {
  rules.one_of("x", k.x, kFloats);
  rules.one_of("q_out", k.q_out, with_fp8(k.x));
  rules.one_of("kv_out", k.kv_out, with_fp8(k.x));
  rules.one_of("cache", k.cache, kFloats);
  rules.vec("vec", k.vec, k.x);
}

void check_key(const segment_packbits::Key& k, const KeyRules& rules) {
  const bool packs = k.step == segment_packbits::Step::kPack;
  rules.only(packs || !k.little, "little", "1", "0 where step is offsets");
}

}  // namespace fulmen::cuda
