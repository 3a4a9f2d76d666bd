// SPDX-License-Identifier: Apache-2.0
// elementwise: an operator of your own, given as the text of a function body, compiled when it is first called.
//   out[i] = narrow(text(a[i], b[i], c[i], d[i], s))
// a, b, c, d are the elements as float, s the numbers; the text returns a float and may call what CUDA's math library
// has (expf, rsqrtf, …). An FP8 out saturates. A row that is the same for all tokens is a view with stride 0. Compiled
// by NVRTC for a GPU, by the host's C++ compiler for the CPU: docs/your_own_operator.md.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

struct ElementwiseArgs {
  static constexpr int32_t kNumbers = 8;

  std::string_view text;   // "return a / (1 + expf(-a)) * b * s[0];"
  std::string_view name;   // of the text, in compile errors and lists of kernels; a C identifier
  TensorView a;            // [num_tokens, num_heads?, n] float or FP8
  TensorView b;            // like a, optional
  TensorView c;            // like a, optional, only after b
  TensorView d;            // like a, optional, only after c
  TensorView out;          // like a, written; may be an input itself
  float s[kNumbers] = {};  // what the text calls s
};

inline constexpr OpSchema kElementwiseSchema{
    "elementwise",
    {
        {"a", "num_tokens num_heads? n", kFloats | kFp8, Access::kRead, Presence::kRequired, "the text's a"},
        {"b", "num_tokens num_heads? n", kFloats | kFp8, Access::kRead, Presence::kOptional, "the text's b"},
        {"c", "num_tokens num_heads? n", kFloats | kFp8, Access::kRead, Presence::kOptional, "the text's c"},
        {"d", "num_tokens num_heads? n", kFloats | kFp8, Access::kRead, Presence::kOptional, "the text's d"},
        {"out", "num_tokens num_heads? n", kFloats | kFp8, Access::kWrite, Presence::kRequired,
         "may be a, b, c or d itself", "a b c d"},
    }};

struct ElementwiseDims {
  int64_t num_tokens, num_heads, n;
};

ElementwiseDims check(const ElementwiseArgs& args);  // throws Error{kInvalidArgument}
// Throws Error{kInvalidArgument} that starts with your text's own line where it does not compile.
void elementwise(const ElementwiseArgs& args, const Context& context = {});

inline Cost cost(const ElementwiseArgs& args) {
  const double written = double(args.out.num_elements()) * size_of(args.out.dtype);
  Cost cost{.bytes = written, .bytes_written = written};
  for (const TensorView* t : {&args.a, &args.b, &args.c, &args.d})
    if (t->defined()) cost.bytes += double(t->num_elements()) * size_of(t->dtype);
  return cost;
}

}  // namespace fulmen
