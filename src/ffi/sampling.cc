// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/chain_speculative_sampling.h>
#include <fulmen/ops/sample.h>
#include <fulmen/ops/softmax.h>
#include <fulmen/ops/token_filter.h>
#include <fulmen/ops/top_k.h>
#include <fulmen/ops/top_k_transform.h>

#include "src/ffi/convert.h"

namespace fulmen::ffi {
namespace {

TokenValues parse_values(const char* op, const String& name) {
  const std::string_view text(name.data(), name.size());
  if (text == "probs") return TokenValues::kProbs;
  if (text == "logits") return TokenValues::kLogits;
  fail(op, "values", "is \"" + std::string(text) + "\", expected probs or logits");
}

TokenFilter filter_of(int64_t top_k, double top_p, double min_p, const MaybeTensor& top_k_arr,
                      const MaybeTensor& top_p_arr, const MaybeTensor& min_p_arr, bool joint, bool keep_ties) {
  return {.top_k = top_k,
          .top_p = float(top_p),
          .min_p = float(min_p),
          .top_k_arr = view(top_k_arr),
          .top_p_arr = view(top_p_arr),
          .min_p_arr = view(min_p_arr),
          .order = joint ? FilterOrder::kJoint : FilterOrder::kTopKFirst,
          .keep_ties = keep_ties};
}

// FFI integers are signed; a seed is its 64 bits.
RandomSource random_of(int64_t seed, int64_t offset, const MaybeTensor& seed_arr, const MaybeTensor& offset_arr) {
  return {
      .seed = uint64_t(seed), .offset = uint64_t(offset), .seed_arr = view(seed_arr), .offset_arr = view(offset_arr)};
}

}  // namespace

void sample_(Tensor input, MaybeTensor indices, Tensor out, MaybeTensor valid, MaybeTensor status, int64_t top_k,
             double top_p, double min_p, MaybeTensor top_k_arr, MaybeTensor top_p_arr, MaybeTensor min_p_arr,
             bool joint, bool keep_ties, int64_t seed, int64_t offset, MaybeTensor seed_arr, MaybeTensor offset_arr,
             String values, double temperature, MaybeTensor temperature_arr) {
  const TensorView x = view(input);
  sample({.input = x,
          .indices = view(indices),
          .out = view(out),
          .valid = view(valid),
          .status = view(status),
          .filter = filter_of(top_k, top_p, min_p, top_k_arr, top_p_arr, min_p_arr, joint, keep_ties),
          .random = random_of(seed, offset, seed_arr, offset_arr),
          .values = parse_values("sample", values),
          .temperature = float(temperature),
          .temperature_arr = view(temperature_arr)},
         context_of(x));
}

void token_filter_(Tensor input, Tensor out, MaybeTensor status, int64_t top_k, double top_p, double min_p,
                   MaybeTensor top_k_arr, MaybeTensor top_p_arr, MaybeTensor min_p_arr, bool joint, bool keep_ties,
                   String values) {
  const TensorView x = view(input);
  token_filter({.input = x,
                .out = view(out),
                .status = view(status),
                .filter = filter_of(top_k, top_p, min_p, top_k_arr, top_p_arr, min_p_arr, joint, keep_ties),
                .values = parse_values("token_filter", values)},
               context_of(x));
}

void softmax_(Tensor logits, Tensor out, MaybeTensor status, double temperature, MaybeTensor temperature_arr) {
  const TensorView x = view(logits);
  softmax({.logits = x,
           .out = view(out),
           .status = view(status),
           .temperature = float(temperature),
           .temperature_arr = view(temperature_arr)},
          context_of(x));
}

void top_k_(Tensor input, Tensor values, Tensor indices, bool sorted, bool large_index_first) {
  const TensorView x = view(input);
  top_k({.input = x,
         .values = view(values),
         .indices = view(indices),
         .sorted = sorted,
         .tie_break = large_index_first ? TieBreak::kLargeIndex : TieBreak::kSmallIndex},
        context_of(x));
}

void top_k_transform_(Tensor input, Tensor lengths, MaybeTensor row_starts, MaybeTensor page_table,
                      MaybeTensor row_to_batch, MaybeTensor page_starts, MaybeTensor offsets, Tensor out,
                      MaybeTensor places, int64_t page_size, bool large_index_first) {
  const TensorView x = view(input);
  top_k_transform({.input = x,
                   .lengths = view(lengths),
                   .row_starts = view(row_starts),
                   .page_table = view(page_table),
                   .row_to_batch = view(row_to_batch),
                   .page_starts = view(page_starts),
                   .offsets = view(offsets),
                   .out = view(out),
                   .places = view(places),
                   .page_size = page_size,
                   .tie_break = large_index_first ? TieBreak::kLargeIndex : TieBreak::kSmallIndex},
                  context_of(x));
}

void chain_speculative_sampling_(Tensor draft_probs, Tensor draft_token_ids, Tensor target_probs, Tensor out,
                                 MaybeTensor accepted_num, MaybeTensor emitted_num, MaybeTensor status, int64_t seed,
                                 int64_t offset, MaybeTensor seed_arr, MaybeTensor offset_arr) {
  const TensorView x = view(target_probs);
  chain_speculative_sampling({.draft_probs = view(draft_probs),
                              .draft_token_ids = view(draft_token_ids),
                              .target_probs = x,
                              .out = view(out),
                              .accepted_num = view(accepted_num),
                              .emitted_num = view(emitted_num),
                              .status = view(status),
                              .random = random_of(seed, offset, seed_arr, offset_arr)},
                             context_of(x));
}

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(
    sample,
    "input, indices, out, valid, status, top_k, top_p, min_p, top_k_arr, top_p_arr, min_p_arr, joint, keep_ties, "
    "seed, offset, seed_arr, offset_arr, values, temperature, temperature_arr",
    "one token per row from what the filter leaves; values: probs or logits; status: RowStatus per row");
FULMEN_FFI_EXPORT(token_filter,
                  "input, out, status, top_k, top_p, min_p, top_k_arr, top_p_arr, min_p_arr, joint, keep_ties, values",
                  "keeps the likeliest tokens: renormalises probs, or sets the other logits to -inf");
FULMEN_FFI_EXPORT(softmax, "logits, out, status, temperature, temperature_arr", "probabilities of each row of logits");
FULMEN_FFI_EXPORT(top_k, "input, values, indices, sorted, large_index_first",
                  "the k largest values of each row and their indices");
FULMEN_FFI_EXPORT(top_k_transform,
                  "input, lengths, row_starts, page_table, row_to_batch, page_starts, offsets, out, places, page_size, "
                  "large_index_first",
                  "where a sparse attention finds the k best-scored tokens of each row's window");
FULMEN_FFI_EXPORT(
    chain_speculative_sampling,
    "draft_probs, draft_token_ids, target_probs, out, accepted_num, emitted_num, status, seed, offset, seed_arr, "
    "offset_arr",
    "verifies drafted tokens; accepted_num and emitted_num are added to");
