// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/merge_state.h>

#include "src/ffi/convert.h"

namespace fulmen::ffi {
namespace {

LogBase parse_base(const char* op, const String& name) {
  const std::string_view text(name.data(), name.size());
  if (text == "e") return LogBase::kE;
  if (text == "2") return LogBase::k2;
  fail(op, "lse_base", "is \"" + std::string(text) + "\", expected e or 2");
}

}  // namespace

void merge_state_(Tensor v_a, Tensor s_a, Tensor v_b, Tensor s_b, Tensor out, Tensor lse, MaybeTensor mask,
                  String lse_base) {
  const TensorView v = view(v_a);
  merge_state({.v_a = v,
               .s_a = view(s_a),
               .v_b = view(v_b),
               .s_b = view(s_b),
               .out = view(out),
               .lse = view(lse),
               .mask = view(mask),
               .lse_base = parse_base("merge_state", lse_base)},
              context_of(v));
}

void merge_states_(Tensor v, Tensor s, Tensor out, Tensor lse, String lse_base) {
  const TensorView values = view(v);
  merge_states(
      {.v = values, .s = view(s), .out = view(out), .lse = view(lse), .lse_base = parse_base("merge_states", lse_base)},
      context_of(values));
}

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(
    merge_state, "v_a, s_a, v_b, s_b, out, lse, mask, lse_base",
    "attention over two disjoint sets of keys from the results over each; out and lse may be v_a and s_a");
FULMEN_FFI_EXPORT(merge_states, "v, s, out, lse, lse_base",
                  "the same for many sets: v [num_tokens, num_states, heads, dim]");
