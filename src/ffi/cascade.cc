// SPDX-License-Identifier: Apache-2.0
#include <fulmen/attention/cascade.h>
#include <fulmen/attention/cascade_choice.h>

#include "src/ffi/convert.h"

namespace fulmen::ffi {
namespace {

LogBase parse_base(const char* op, const String& name) {
  const std::string_view text(name.data(), name.size());
  if (text == "e") return LogBase::kE;
  if (text == "2") return LogBase::k2;
  fail(op, "lse_base", "is \"" + std::string(text) + "\", expected e or 2");
}

// The tensors that a choice reads and writes, kept alive.
class ChoiceObject : public tvm::ffi::Object {
 public:
  attention::CascadeChoice choice;
  mutable attention::MadePlan made;
  std::vector<tvm::ffi::Tensor> kept;
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("fulmen.CascadeChoice", ChoiceObject, tvm::ffi::Object);
};
class Choice : public tvm::ffi::ObjectRef {
 public:
  explicit Choice(tvm::ffi::ObjectPtr<ChoiceObject> p) : tvm::ffi::ObjectRef(p) {}
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NOTNULLABLE(Choice, tvm::ffi::ObjectRef, ChoiceObject);
};

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

// num_qo_heads, num_kv_heads, head_dim, kv_size, page_size, causal, total_q; what is written for the last launch; then
// of each level qo_indptr, kv_indptr, kv_indices, last_page_len and rows.
void cascade_choice_(tvm::ffi::PackedArgs args, tvm::ffi::Any* result) {
  constexpr int32_t kFirst = 11, kTables = 5;
  const int32_t num_levels = (args.size() - kFirst) / kTables;
  if (num_levels < 2 || num_levels > attention::kMostCascadeLevels || args.size() != kFirst + kTables * num_levels)
    TVM_FFI_THROW(TypeError) << "cascade_choice: got " << args.size() << " arguments; docs/ffi.md lists them";
  auto choice = tvm::ffi::make_object<ChoiceObject>();
  const auto tensor = [&](int32_t i) {
    if (args[i] == nullptr) return TensorView{};
    choice->kept.push_back(args[i].cast<tvm::ffi::Tensor>());
    return view(args[i].cast<Tensor>());
  };
  attention::CascadeChoice& c = choice->choice;
  c.shape = {args[0].cast<int64_t>(), args[1].cast<int64_t>(), args[2].cast<int64_t>(), args[3].cast<int64_t>()};
  c.page_size = args[4].cast<int64_t>(), c.causal = args[5].cast<bool>();
  c.total_q = args[6].cast<int64_t>();
  c.kv_indptr = tensor(7), c.last_page_len = tensor(8), c.page_ids = tensor(9), c.num_above = tensor(10);
  for (int32_t i = kFirst; i < args.size(); i += kTables)
    c.levels.push_back({tensor(i), tensor(i + 1), tensor(i + 2), tensor(i + 3), tensor(i + 4)});
  *result = Choice(choice);
}
// q: a call without a tensor has no stream.
void cascade_choose_(Choice choice, Tensor q) {
  attention::CascadeChoice c = choice->choice;
  c.made = &choice->made;
  attention::choose_cascade(c, context_of(view(q)));
}
void cascade_forget_lengths_(Choice choice) { choice->made.workspace = nullptr; }

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(
    merge_state, "v_a, s_a, v_b, s_b, out, lse, mask, lse_base",
    "attention over two disjoint sets of keys from the results over each; out and lse may be v_a and s_a");
FULMEN_FFI_EXPORT(merge_states, "v, s, out, lse, lse_base, mask",
                  "the same for many sets: v [num_tokens, num_states, heads, dim]");
FULMEN_FFI_EXPORT_PACKED(
    cascade_choice,
    "num_qo_heads, num_kv_heads, head_dim, kv_size, page_size, causal, total_q, kv_indptr, last_page_len, page_ids, "
    "num_above, levels",
    12,
    "returns what cascade_choose works with; levels: of each qo_indptr, kv_indptr, kv_indices, last_page_len and rows "
    "(None for the last); written, all int32: rows (a qo_indptr, or zeros where no level above is run), tables for the "
    "last level, and how many levels above it are run");
FULMEN_FFI_EXPORT(cascade_choose, "choice, q",
                  "chooses between levels and one flat pass on the device, unless that was done for these lengths");
FULMEN_FFI_EXPORT(cascade_forget_lengths, "choice", "lengths have changed: the next cascade_choose chooses again");
FULMEN_FFI_EXPORT_PACKED(
    cascade_cost, "lens, bounds, num_qo_heads, num_kv_heads, head_dim, kv_size, flat", 7,
    "predicted microseconds of an H100; lens: int32 [n, 2], numbers of queries and of keys; "
    "bounds: where each level's begin; flat: of the same with a table of all its keys per request");
