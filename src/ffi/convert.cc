// SPDX-License-Identifier: Apache-2.0
#include "src/ffi/convert.h"

#include <tvm/ffi/dtype.h>

#include <utility>

namespace fulmen::ffi {
namespace {

bool parse(DLDataType t, DType* out) {
  if (t.lanes != 1) return false;
  switch (t.code) {
    case kDLFloat:
      if (t.bits != 16 && t.bits != 32 && t.bits != 64) return false;
      return *out = t.bits == 16 ? DType::kF16 : t.bits == 32 ? DType::kF32 : DType::kF64, true;
    case kDLBfloat: return *out = DType::kBF16, t.bits == 16;
    case kDLFloat8_e4m3fn: return *out = DType::kE4M3, true;
    case kDLFloat8_e5m2: return *out = DType::kE5M2, true;
    case kDLBool: return *out = DType::kBool, t.bits == 8;
    case kDLInt:
      if (t.bits != 8 && t.bits != 32 && t.bits != 64) return false;
      return *out = t.bits == 8 ? DType::kI8 : t.bits == 32 ? DType::kI32 : DType::kI64, true;
    case kDLUInt:
      if (t.bits != 8 && t.bits != 32 && t.bits != 64) return false;
      return *out = t.bits == 8 ? DType::kU8 : t.bits == 32 ? DType::kU32 : DType::kU64, true;
  }
  return false;
}

std::string name_of(DLDataType t) {
  if (t.code == kDLComplex) return "complex" + std::to_string(t.bits);  // TVM-FFI has no word for it
  try {
    return std::string(tvm::ffi::DLDataTypeToString(t));
  } catch (const tvm::ffi::Error&) { return "of code " + std::to_string(t.code); }
}

}  // namespace

TensorView view(const Tensor& tensor) {
  TensorView v;
  if (!parse(tensor.dtype(), &v.dtype))
    fail("tensor", "dtype", "is " + name_of(tensor.dtype()) + ", which no operator knows");
  require(tensor.ndim() <= TensorView::kMaxRank, "tensor", "rank", tensor.ndim(), "at most 6");
  v.data = static_cast<char*>(tensor.data_ptr()) + tensor.byte_offset();
  v.rank = tensor.ndim();
  for (int32_t i = 0; i < v.rank; ++i) v.shape[i] = tensor.size(i), v.strides[i] = tensor.stride(i);
  // Frameworks disagree about the strides of a tensor without elements; contiguous ones are as good as any.
  if (v.num_elements() == 0)
    for (int64_t i = v.rank, stride = 1; i-- > 0; stride *= v.shape[i] > 0 ? v.shape[i] : 1) v.strides[i] = stride;
  const DLDevice device = tensor.device();
  // Page-locked host memory is host memory to a CPU kernel.
  v.device_type = device.device_type == kDLCUDAHost ? DeviceType::kCpu : DeviceType(int32_t(device.device_type));
  v.device_id = device.device_id;
  return v;
}

DependentLaunch& dependent_launch_of_calls() {
  thread_local DependentLaunch asked = DependentLaunch::kAsSet;
  return asked;
}

Context context_of(const TensorView& tensor) {
  if (tensor.device_type == DeviceType::kCpu) return {};
  return {.stream = TVMFFIEnvGetStream(int32_t(tensor.device_type), tensor.device_id),
          .dependent_launch = dependent_launch_of_calls()};
}

bool& is_interrupted() {
  thread_local bool interrupted = false;
  return interrupted;
}

void throw_ffi_error(const Error& error) {
  if (std::exchange(is_interrupted(), false)) throw tvm::ffi::EnvErrorAlreadySet();
  switch (error.code) {
    case Code::kInvalidArgument: TVM_FFI_THROW(ValueError) << error.message;
    case Code::kUnsupported: TVM_FFI_THROW(NotImplementedError) << error.message;
    case Code::kInternal: break;
  }
  TVM_FFI_THROW(RuntimeError) << error.message;
}

void throw_out_of_memory() { TVM_FFI_THROW(MemoryError) << "the machine has not the memory that this call needs"; }

std::vector<Export>& exports() {
  static std::vector<Export> all;
  return all;
}

namespace {

// An allocator in FromNDAlloc's sense whose memory is another tensor's, kept alive by it.
struct Alias {
  tvm::ffi::Tensor owner;
  void AllocData(DLTensor* tensor) { tensor->data = static_cast<char*>(owner.data_ptr()) + owner.byte_offset(); }
  void FreeData(DLTensor*) {}
};

}  // namespace

// How NumPy, whose DLPack knows neither bfloat16 nor FP8, passes them.
tvm::ffi::Tensor reinterpret_(tvm::ffi::Tensor tensor, DLDataType dtype) {
  const DLDataType old = tensor.dtype();
  if (old.bits * old.lanes != dtype.bits * dtype.lanes)
    fail("reinterpret", "dtype", "has another size than the tensor's");
  return tvm::ffi::Tensor::FromNDAllocStrided(Alias{tensor}, tensor.shape(), tensor.strides(), dtype, tensor.device());
}

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(reinterpret, "tensor, dtype", "the same memory under another dtype of the same size");
