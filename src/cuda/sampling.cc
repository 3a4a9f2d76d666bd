// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/sampling.h"

#include <fulmen/cuda/row_shape.h>

#include "src/cuda/ids.h"
#include "src/cuda/token_rows.h"

namespace fulmen::cuda {
namespace {

static_assert(int32_t(RowStatus::kNan) == TokenStatus::kNan && int32_t(RowStatus::kEmpty) == TokenStatus::kEmpty &&
              int32_t(RowStatus::kInfinite) == TokenStatus::kInfinite &&
              int32_t(RowStatus::kBadParameter) == TokenStatus::kBadParameter);

RowFloats floats_of(const TensorView& t, float value) {
  return {t.defined() ? t.as<const float>() : nullptr, t.defined() ? t.strides[0] : 0, value};
}
RowIds row_ids_of(const TensorView& t, int64_t value) { return {ids_of(t), t.defined() ? t.strides[0] : 0, value}; }
RowWords words_of(const TensorView& t, uint64_t value) {
  if (!t.defined()) return {nullptr, 0, value};
  return {t.as<const uint64_t>(), t.shape[0] == 1 ? 0 : t.strides[0], value};
}
TokenRandom random_of(const RandomSource& r) {
  return {words_of(r.seed_arr, r.seed), words_of(r.offset_arr, r.offset),
          r.seed_arr.defined() && r.seed_arr.shape[0] != 1};
}
TokenFilterNumbers filter_of(const TokenFilter& f) {
  return {row_ids_of(f.top_k_arr, f.top_k), floats_of(f.top_p_arr, f.top_p), floats_of(f.min_p_arr, f.min_p),
          f.order == FilterOrder::kJoint, f.keep_ties};
}
StatusOutput status_of(const TensorView& t) {
  return {t.defined() ? t.as<int32_t>() : nullptr, t.defined() ? t.strides[0] : 0};
}
constexpr int64_t kFewCandidates = 96;  // of top_k

// Filters of one number for all rows that a kernel of one way serves.
TokenPath path_of(const TokenFilter& f, int64_t n) {
  if (f.top_k_arr.defined()) return TokenPath::kAny;
  const bool by_mass = f.top_p_arr.defined() || f.top_p < 1, by_value = f.min_p_arr.defined() || f.min_p > 0;
  if (f.top_k >= n) return by_mass ? TokenPath::kSearch : by_value ? TokenPath::kValue : TokenPath::kSum;
  const bool mass_of_row = by_mass && f.order == FilterOrder::kJoint;
  return f.top_k > kMostListedByOne || mass_of_row || f.keep_ties ? TokenPath::kAny : TokenPath::kList;
}

// Of the k largest: what each CTA of a cluster may hold, or one has a list for; sorted: the list is where they are
// sorted.
TokenPath path_of(int64_t k, bool sorted, const TeamShape& s) {
  const int64_t most = s.size > 1 ? kLocalList : sorted ? kTokenList : kMostListedByOne;
  return k <= most ? TokenPath::kList : TokenPath::kSearch;
}

// Keys of every way named.
std::vector<TokenKey> with_paths(const std::vector<TokenKey>& keys, std::initializer_list<TokenPath> paths) {
  std::vector<TokenKey> all;
  for (TokenPath path : paths)
    for (TokenKey k : keys) k.path = path, all.push_back(k);
  return all;
}

TokenOutput output_of(const TensorView& t) { return {t.data, t.strides[0], size_of(t.dtype) == 8}; }
TokenMatrix matrix_of(const TensorView& t) { return {t.data, t.strides[0], int32_t(t.shape[1])}; }

}  // namespace

runtime::Refusal Sample::refuses(const Args& a) { return refuses_tokens(a.out.shape[0], a.input.shape[1]); }

Work<sample::Key, sample::Params> Sample::work(const Args& a, const Device& device) {
  const TokenPath path = path_of(a.filter, a.input.shape[1]);
  const int64_t num_rows = a.out.shape[0];
  TeamShape s = team_for(device, num_rows, a.input.shape[1], {&a.input}, false,
                         path == TokenPath::kSearch || path == TokenPath::kSum);
  s.path = path;
  // Many rows of few candidates, or none: twice as many at a time, of which some read while others draw.
  const bool few = path == TokenPath::kSum || (path == TokenPath::kList && a.filter.top_k <= kFewCandidates);
  if (few && s.size == 1 && s.threads == 512 && num_rows > 2 * device.num_sms) s.threads = 256;
  return {.key = s.key(a.input.dtype, a.values == TokenValues::kLogits),
          .params = {.input = matrix_of(a.input),
                     .num_rows = a.input.shape[0],
                     .indices = row_ids_of(a.indices, 0),
                     .filter = filter_of(a.filter),
                     .random = random_of(a.random),
                     .temperature = floats_of(a.temperature_arr, a.temperature),
                     .out = output_of(a.out),
                     .status = status_of(a.status),
                     .valid = a.valid.defined() ? a.valid.as<uint8_t>() : nullptr,
                     .valid_stride = a.valid.defined() ? a.valid.strides[0] : 0},
          .shape = s.launch(a.out.shape[0]),
          .persistent = false};
}

std::vector<TokenKey> Sample::common_keys() {
  std::vector<TokenKey> keys =
      with_paths(token_keys({false, true}, false),
                 {TokenPath::kSum, TokenPath::kValue, TokenPath::kList, TokenPath::kSearch, TokenPath::kAny});
  std::erase_if(keys, [](const TokenKey& k) {
    return k.threads == 256 && k.path != TokenPath::kList && k.path != TokenPath::kSum;
  });
  return keys;
}

runtime::Refusal FilterTokens::refuses(const Args& a) { return refuses_tokens(a.out.shape[0], a.out.shape[1]); }

Work<token_filter::Key, token_filter::Params> FilterTokens::work(const Args& a, const Device& device) {
  TeamShape s = team_for(device, a.out.shape[0], a.input.shape[1], {&a.input, &a.out});
  s.path = path_of(a.filter, a.input.shape[1]);
  if (s.path == TokenPath::kSum || s.path == TokenPath::kValue) s.path = TokenPath::kSearch;
  return {.key = s.key(a.input.dtype, a.values == TokenValues::kLogits),
          .params = {.input = matrix_of(a.input),
                     .out = matrix_of(a.out),
                     .filter = filter_of(a.filter),
                     .status = status_of(a.status)},
          .shape = s.launch(a.out.shape[0]),
          .persistent = false};
}

std::vector<TokenKey> FilterTokens::common_keys() {
  return with_paths(token_keys({false, true}), {TokenPath::kSearch, TokenPath::kList, TokenPath::kAny});
}

runtime::Refusal Softmax::refuses(const Args& a) { return refuses_tokens(a.out.shape[0], a.out.shape[1]); }

Work<softmax::Key, softmax::Params> Softmax::work(const Args& a, const Device& device) {
  const TeamShape s = team_for(device, a.out.shape[0], a.logits.shape[1], {&a.logits, &a.out});
  return {.key = s.key(a.logits.dtype, true),
          .params = {.input = matrix_of(a.logits),
                     .out = matrix_of(a.out),
                     .temperature = floats_of(a.temperature_arr, a.temperature),
                     .status = status_of(a.status)},
          .shape = s.launch(a.out.shape[0]),
          .persistent = false};
}

std::vector<TokenKey> Softmax::common_keys() { return token_keys({true}); }

runtime::Refusal TopK::refuses(const Args& a) { return refuses_tokens(a.input.shape[0], a.input.shape[1]); }

Work<top_k::Key, top_k::Params> TopK::work(const Args& a, const Device& device) {
  TeamShape s = team_for(device, a.input.shape[0], a.input.shape[1], {&a.input});
  s.path = path_of(a.values.shape[1], a.sorted, s);
  return {.key = s.key(a.input.dtype, false),
          .params = {.input = matrix_of(a.input),
                     .values = a.values.data,
                     .values_stride = a.values.strides[0],
                     .indices = output_of(a.indices),
                     .k = int32_t(a.values.shape[1]),
                     .sorted = a.sorted,
                     .large_index = a.tie_break == TieBreak::kLargeIndex},
          .shape = s.launch(a.input.shape[0]),
          .persistent = false};
}

std::vector<TokenKey> TopK::common_keys() {
  return with_paths(token_keys({false}), {TokenPath::kSearch, TokenPath::kList});
}

runtime::Refusal TopKTransform::refuses(const Args& a) { return refuses_tokens(a.input.shape[0], a.input.shape[1]); }

Work<top_k_transform::Key, top_k_transform::Params> TopKTransform::work(const Args& a, const Device& device) {
  TeamShape s = team_for(device, a.input.shape[0], a.input.shape[1], {&a.input});
  if (a.row_starts.defined()) s.vec = 1;  // windows start anywhere
  s.path = path_of(a.out.shape[1], false, s);
  const TensorView& pages = a.page_table;
  return {.key = s.key(a.input.dtype, false),
          .params = {.input = matrix_of(a.input),
                     .lengths = row_ids_of(a.lengths, 0),
                     .row_starts = row_ids_of(a.row_starts, 0),
                     .row_to_batch = row_ids_of(a.row_to_batch, 0),
                     .page_starts = row_ids_of(a.page_starts, 0),
                     .offsets = row_ids_of(a.offsets, 0),
                     .page_table = ids_of(pages),
                     .page_stride = pages.defined() ? pages.strides[0] : 0,
                     .batch_size = pages.defined() ? pages.shape[0] : 0,
                     .max_pages = pages.defined() ? pages.shape[1] : 0,
                     .page_size = a.page_size,
                     .out = output_of(a.out),
                     .places = a.places.defined() ? output_of(a.places) : TokenOutput{nullptr, 0, false},
                     .k = int32_t(a.out.shape[1]),
                     .large_index = a.tie_break == TieBreak::kLargeIndex},
          .shape = s.launch(a.input.shape[0]),
          .persistent = false};
}

std::vector<TokenKey> TopKTransform::common_keys() {
  return with_paths(token_keys({false}), {TokenPath::kSearch, TokenPath::kList});
}

runtime::Refusal ChainSpeculativeSampling::refuses(const Args& a) {
  if (a.out.shape[1] > 0x7fffffff) return "more than 2147483646 drafted tokens";
  return refuses_tokens(a.out.shape[0], a.target_probs.shape[2]);
}

Work<chain_speculative_sampling::Key, chain_speculative_sampling::Params> ChainSpeculativeSampling::work(
    const Args& a, const Device& device) {
  TeamShape s = team_for(device, a.out.shape[0], a.target_probs.shape[2], {});
  const TensorView &draft = a.draft_probs, &target = a.target_probs, &ids = a.draft_token_ids;
  return {.key = s.key(DType::kF32, false),
          .params = {.draft = draft.as<const float>(),
                     .target = target.as<const float>(),
                     .draft_stride = draft.strides[0],
                     .draft_step = draft.strides[1],
                     .target_stride = target.strides[0],
                     .target_step = target.strides[1],
                     .tokens = row_ids_of(ids, 0),
                     .token_step = ids.strides[1],
                     .out = output_of(a.out),
                     .out_step = a.out.strides[1],
                     .accepted = a.accepted_num.defined() ? a.accepted_num.as<int32_t>() : nullptr,
                     .emitted = a.emitted_num.defined() ? a.emitted_num.as<int32_t>() : nullptr,
                     .accepted_stride = a.accepted_num.defined() ? a.accepted_num.strides[0] : 0,
                     .emitted_stride = a.emitted_num.defined() ? a.emitted_num.strides[0] : 0,
                     .status = status_of(a.status),
                     .random = random_of(a.random),
                     .num_draft = int32_t(draft.shape[1]),
                     .vocab_size = int32_t(target.shape[2])},
          .shape = s.launch(a.out.shape[0]),
          .persistent = false};
}

std::vector<TokenKey> ChainSpeculativeSampling::common_keys() {
  std::vector<TokenKey> keys = token_keys({false});
  std::erase_if(keys, [](const TokenKey& k) { return k.x != DType::kF32; });
  for (TokenKey& k : keys) k.vec = 1;
  return keys;
}

}  // namespace fulmen::cuda
