// SPDX-License-Identifier: Apache-2.0
// Attention with a variant in FlashInfer's form, and two batches, with variants or without, at once.
#include <memory>
#include <optional>
#include <sstream>

#include "src/ffi/attention.h"

namespace fulmen::ffi {
namespace {

using tvm::ffi::PackedArgs;

// "sink float, mask uint8_t"
std::vector<attention::FlashInferVariant::Extra> extras(const String& list) {
  std::vector<attention::FlashInferVariant::Extra> all;
  std::istringstream words{std::string(list.data(), list.size())};
  for (std::string name, type; words >> name >> type;) {
    if (type.back() == ',') type.pop_back();
    all.push_back({name, type});
  }
  return all;
}

struct ElementType {
  const char* name;
  DType dtype, or_dtype;
};
constexpr ElementType kElementTypes[] = {
    {"float", DType::kF32, DType::kF32},         {"double", DType::kF64, DType::kF64},
    {"half", DType::kF16, DType::kF16},          {"__half", DType::kF16, DType::kF16},
    {"nv_bfloat16", DType::kBF16, DType::kBF16}, {"__nv_bfloat16", DType::kBF16, DType::kBF16},
    {"int", DType::kI32, DType::kU32},           {"int32_t", DType::kI32, DType::kU32},
    {"uint32_t", DType::kU32, DType::kI32},      {"int64_t", DType::kI64, DType::kU64},
    {"uint64_t", DType::kU64, DType::kI64},      {"int8_t", DType::kI8, DType::kI8},
    {"uint8_t", DType::kU8, DType::kBool},       {"bool", DType::kBool, DType::kU8}};

// A text reads an extra tensor as an array of what it was declared to hold.
void check_extra(const attention::FlashInferVariant::Extra& extra, const TensorView& x, const TensorView& q) {
  if (!x.defined()) return;
  for (const ElementType& t : kElementTypes)
    if (extra.type == t.name && x.dtype != t.dtype && x.dtype != t.or_dtype)
      fail("attention", extra.name,
           "has dtype " + std::string(name_of(x.dtype)) + ", its type in the variant is " + t.name);
  if (x.device_type != q.device_type || x.device_id != q.device_id)
    fail("attention", extra.name, "is on another device than q");
  int64_t stride = 1;
  for (int32_t i = x.rank - 1; i >= 0; stride *= x.shape[i--])
    if (x.shape[i] > 1 && x.strides[i] != stride) fail("attention", extra.name, "is not contiguous");
}

}  // namespace

Variant flashinfer_variant_(String name, String text, String tensors, String scalars) {
  auto v = tvm::ffi::make_object<VariantObject>();
  v->variant = {std::string(name), std::string(text), extras(tensors), extras(scalars)};
  v->code = attention::code_of(v->variant);
  return Variant(v);
}

namespace {

// A variant with what args give it, from args[at] on; at: moves past that.
struct FilledVariant {
  std::vector<char> fields;
  attention::VariantCode code;
  FilledVariant(const Variant& variant, const Plan& plan, const AttentionArgs& a, const PackedArgs& args, int32_t* at) {
    const attention::FlashInferVariant& v = variant->variant;
    std::vector<const void*> tensors;
    std::vector<double> scalars;
    for (const attention::FlashInferVariant::Extra& extra : v.tensors) {
      const TensorView x = tensor(args[(*at)++]);
      check_extra(extra, x, a.q);
      tensors.push_back(x.data);
    }
    for (size_t i = 0; i < v.scalars.size(); ++i) scalars.push_back(args[(*at)++].cast<double>());
    const attention::PlanConfig& c = plan->batch.plan().header.config;
    fields = attention::fields_of(v, {c.num_qo_heads, c.num_kv_heads, a.options.window_left, c.causal != 0}, tensors,
                                  scalars);
    code = variant->code;
    code.fields = fields.data(), code.num_bytes = int64_t(fields.size());
  }
  FilledVariant(const FilledVariant&) = delete;
  FilledVariant& operator=(const FilledVariant&) = delete;
};

int32_t num_extras(const Variant& v) { return int32_t(v->variant.tensors.size() + v->variant.scalars.size()); }

// One of two batches, from args[at] on: plan, q, k, v, out, lse, sinks, workspace, q_scale, k_scale, v_scale, variant
// or None, and what that gets.
struct Half {
  static constexpr int32_t kNumArguments = 12;
  Plan plan;
  AttentionArgs args;
  std::optional<FilledVariant> variant;

  Half(const PackedArgs& all, int32_t* at) : plan(all[*at].cast<Plan>()), args(plan->args) {
    int32_t i = *at + 1;
    args.q = tensor(all[i++]), args.k = tensor(all[i++]), args.v = tensor(all[i++]), args.out = tensor(all[i++]);
    args.lse = tensor(all[i++]);
    if (const TensorView sinks = tensor(all[i++]); sinks.defined()) args.sinks = sinks;
    args.workspace = tensor(all[i++]);
    args.options.q_scale = number(all[i++]), args.options.k_scale = number(all[i++]);
    args.options.v_scale = number(all[i++]);
    split_cache(&args);
    if (const auto v = all[i++].cast<tvm::ffi::Optional<Variant>>(); v.has_value()) {
      if (i + num_extras(*v) > all.size()) expect(all, i + num_extras(*v), "attention_run_beside");
      variant.emplace(*v, plan, args, all, &i);
    }
    *at = i;
  }
  const attention::VariantCode* code() const { return variant ? &variant->code : nullptr; }
};

}  // namespace

// plan, variant, q, k, v, out, lse, workspace, then the variant's tensors and scalars.
void attention_run_variant_(PackedArgs args, tvm::ffi::Any*) {
  int32_t at = 8;
  const Plan plan = args[0].cast<Plan>();
  const Variant variant = args[1].cast<Variant>();
  expect(args, at + num_extras(variant), "attention_run_variant");
  AttentionArgs a = plan->args;
  a.q = tensor(args[2]), a.k = tensor(args[3]), a.v = tensor(args[4]), a.out = tensor(args[5]);
  a.lse = tensor(args[6]), a.workspace = tensor(args[7]);
  split_cache(&a);
  const FilledVariant filled(variant, plan, a, args, &at);
  plan->batch.use(context_of(a.q));
  std::unique_ptr<uint8_t[]> own;
  if (a.q.device_type == DeviceType::kCpu && !a.workspace.defined()) {
    const int64_t num_bytes = plan->batch.workspace_bytes();
    own.reset(new uint8_t[size_t(num_bytes)]);
    a.workspace = view_of(own.get(), {num_bytes});
  }
  plan->batch.run(a, &filled.code);
}

// Two Halves.
void attention_run_beside_(PackedArgs args, tvm::ffi::Any*) {
  if (args.size() < 2 * Half::kNumArguments) expect(args, 2 * Half::kNumArguments, "attention_run_beside");
  int32_t at = 0;
  const Half mine(args, &at);
  if (args.size() < at + Half::kNumArguments) expect(args, at + Half::kNumArguments, "attention_run_beside");
  const Half other(args, &at);
  expect(args, at, "attention_run_beside");
  mine.plan->batch.use(context_of(mine.args.q)), other.plan->batch.use(context_of(other.args.q));
  mine.plan->batch.run_beside(mine.args, other.plan->batch, other.args, mine.code(), other.code());
}

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT_PACKED(
    attention_run_beside,
    "plan, q, k, v, out, lse, sinks, workspace, q_scale, k_scale, v_scale, variant, extras, other_plan, other_q, "
    "other_k, other_v, other_out, other_lse, other_sinks, other_workspace, other_q_scale, other_k_scale, "
    "other_v_scale, other_variant, other_extras",
    26,
    "runs two plans, on a GPU at once where the first has few rows per request, was made by attention_plan_beside and "
    "that pays; else the other first. Variants: None, or one whose tensors and scalars follow it, each an argument");
FULMEN_FFI_EXPORT(
    flashinfer_variant, "name, text, tensors, scalars",
    "a variant in FlashInfer's form, compiled at its first run; tensors and scalars: what it gets besides, "
    "as 'name type, ...' with C++ types");
FULMEN_FFI_EXPORT_PACKED(attention_run_variant, "plan, variant, q, k, v, out, lse, workspace, extras", 9,
                         "runs a plan with a variant; extras: its tensors, None for one that is not given, then its "
                         "scalars, each an argument; workspace None: of the stream's memory, or the call's own");
