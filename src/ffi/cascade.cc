// SPDX-License-Identifier: Apache-2.0
#include <fulmen/attention/cascade.h>

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

void merge_states_(Tensor v, Tensor s, Tensor out, Tensor lse, String lse_base, MaybeTensor mask) {
  const TensorView values = view(v);
  merge_states({.v = values,
                .s = view(s),
                .out = view(out),
                .lse = view(lse),
                .lse_base = parse_base("merge_states", lse_base),
                .mask = view(mask)},
               context_of(values));
}

// lens, bounds, num_qo_heads, num_kv_heads, head_dim, kv_size, flat
void cascade_cost_(tvm::ffi::PackedArgs args, tvm::ffi::Any* result) {
  if (args.size() != 7) TVM_FFI_THROW(TypeError) << "cascade_cost: got " << args.size() << " arguments, expected 7";
  const TensorView lens = view(args[0].cast<Tensor>()), bounds = view(args[1].cast<Tensor>());
  for (const TensorView* t : {&lens, &bounds})
    if (t->dtype != DType::kI32 || t->device_type != DeviceType::kCpu || t->strides[t->rank - 1] != 1)
      fail("cascade_cost", t == &lens ? "lens" : "bounds", "is no contiguous int32 tensor in host memory");
  std::vector<attention::PlanRequest> requests;
  for (int64_t i = 0; i < lens.shape[0]; ++i)
    requests.push_back({0, lens.as<const int32_t>()[2 * i], lens.as<const int32_t>()[2 * i + 1]});
  std::vector<std::span<const attention::PlanRequest>> levels;
  for (int64_t i = 0; i + 1 < bounds.shape[0]; ++i) {
    const int64_t begin = bounds.as<const int32_t>()[i], end = bounds.as<const int32_t>()[i + 1];
    if (begin < 0 || end < begin || end > lens.shape[0]) fail("cascade_cost", "bounds", "leave lens");
    levels.emplace_back(requests.data() + begin, size_t(end - begin));
  }
  const attention::CascadeShape shape{args[2].cast<int64_t>(), args[3].cast<int64_t>(), args[4].cast<int64_t>(),
                                      args[5].cast<int64_t>()};
  *result = attention::predicted_us(levels, shape, args[6].cast<bool>());
}

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(
    merge_state, "v_a, s_a, v_b, s_b, out, lse, mask, lse_base",
    "attention over two disjoint sets of keys from the results over each; out and lse may be v_a and s_a");
FULMEN_FFI_EXPORT(merge_states, "v, s, out, lse, lse_base, mask",
                  "the same for many sets: v [num_tokens, num_states, heads, dim]");
FULMEN_FFI_EXPORT_PACKED(
    cascade_cost, "lens, bounds, num_qo_heads, num_kv_heads, head_dim, kv_size, flat", 7,
    "predicted microseconds of an H100; lens: int32 [n, 2], numbers of queries and of keys; "
    "bounds: where each level's begin; flat: of the same with a table of all its keys per request");
