// SPDX-License-Identifier: Apache-2.0
// What the functions of attention share: plans and variants as objects, and arguments by position.
#pragma once
#include <fulmen/attention/flashinfer_code.h>

#include "src/ffi/convert.h"

namespace fulmen::ffi {

// Throws where the number of arguments is another.
void expect(const tvm::ffi::PackedArgs& args, int32_t n, const char* function);
inline TensorView tensor(tvm::ffi::AnyView arg) { return view(arg.cast<MaybeTensor>()); }
inline float number(tvm::ffi::AnyView arg) { return float(arg.cast<double>()); }
// K and V as one array [num_pages, 2, …], given for both: its halves. Splitting it in Python takes longer than the
// call.
void split_cache(AttentionArgs* a);

// A planned batch: the plan, and the arguments that run() does not repeat, with the tensors behind them kept alive.
class PlanObject : public tvm::ffi::Object {
 public:
  explicit PlanObject(const Context& context) : batch(context) {}
  mutable attention::BatchAttention batch;  // where its plan lies changes from run to run
  AttentionArgs args;
  std::vector<tvm::ffi::Tensor> kept;
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("fulmen.AttentionPlan", PlanObject, tvm::ffi::Object);
};
class Plan : public tvm::ffi::ObjectRef {
 public:
  explicit Plan(tvm::ffi::ObjectPtr<PlanObject> p) : tvm::ffi::ObjectRef(p) {}
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NOTNULLABLE(Plan, tvm::ffi::ObjectRef, PlanObject);
};

class VariantObject : public tvm::ffi::Object {
 public:
  attention::FlashInferVariant variant;
  attention::VariantCode code;
  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("fulmen.FlashInferVariant", VariantObject, tvm::ffi::Object);
};
class Variant : public tvm::ffi::ObjectRef {
 public:
  explicit Variant(tvm::ffi::ObjectPtr<VariantObject> p) : tvm::ffi::ObjectRef(p) {}
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NOTNULLABLE(Variant, tvm::ffi::ObjectRef, VariantObject);
};

}  // namespace fulmen::ffi
