// SPDX-License-Identifier: Apache-2.0
// What every file of this folder is written with: TVM-FFI's tensors as fulmen::TensorView, fulmen::Error as the FFI's
// typed errors, and one macro that exports a function and lists it for docs/ffi.md.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/error.h>
#include <fulmen/core/tensor_view.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/optional.h>
#include <tvm/ffi/string.h>

#include <limits>
#include <new>
#include <string>
#include <type_traits>
#include <vector>

namespace fulmen::ffi {

using Tensor = tvm::ffi::TensorView;             // borrowed for the call
using MaybeTensor = tvm::ffi::Optional<Tensor>;  // None: the op's optional tensor is not given
using String = tvm::ffi::String;

// An op's view of a tensor. Throws kInvalidArgument on a dtype, rank or device that no TensorView can name.
TensorView view(const Tensor& tensor);
inline TensorView view(const MaybeTensor& tensor) { return tensor.has_value() ? view(*tensor) : TensorView{}; }

// What calls of this thread ask of dependent launch.
DependentLaunch& dependent_launch_of_calls();

// The stream that the caller's framework set for the tensor's device; CPU calls need none.
Context context_of(const TensorView& tensor);

// FFI integers are 64 bits wide: no silent truncation on the way to a 32-bit field.
inline int32_t to_i32(const char* op, const char* argument, int64_t value) {
  require(value >= std::numeric_limits<int32_t>::min() && value <= std::numeric_limits<int32_t>::max(), op, argument,
          value, "an integer of 32 bits");
  return int32_t(value);
}

// Of this thread: Python has an exception of a signal's (Ctrl-C) to raise, whatever the call's own error says.
bool& is_interrupted();

[[noreturn]] void throw_ffi_error(const Error& error);
[[noreturn]] void throw_out_of_memory();

template <auto kFunction>
struct Guarded;
template <class R, class... A, R (*kFunction)(A...)>
struct Guarded<kFunction> {
  static R call(A... args) {
    try {
      return kFunction(args...);
    } catch (const Error& error) { throw_ffi_error(error); } catch (const std::bad_alloc&) {
      throw_out_of_memory();
    }
  }
};

template <void (*kFunction)(tvm::ffi::PackedArgs, tvm::ffi::Any*)>
int call_packed(const TVMFFIAny* args, int32_t num_args, TVMFFIAny* result) {
  TVM_FFI_SAFE_CALL_BEGIN();
  try {
    kFunction(tvm::ffi::PackedArgs(reinterpret_cast<const tvm::ffi::AnyView*>(args), num_args),
              reinterpret_cast<tvm::ffi::Any*>(result));
  } catch (const Error& error) { throw_ffi_error(error); } catch (const std::bad_alloc&) {
    throw_out_of_memory();
  }
  TVM_FFI_SAFE_CALL_END();
}

// An argument's type as PyTorch's operator schemas spell it; "object" for what they cannot name.
template <class T>
constexpr const char* type_name() {
  if constexpr (std::is_same_v<T, Tensor>)
    return "Tensor";
  else if constexpr (std::is_same_v<T, MaybeTensor>)
    return "Tensor?";
  else if constexpr (std::is_same_v<T, String>)
    return "str";
  else if constexpr (std::is_same_v<T, bool>)
    return "bool";
  else if constexpr (std::is_same_v<T, int64_t>)
    return "int";
  else if constexpr (std::is_same_v<T, double>)
    return "float";
  else
    return "object";
}

// One exported function, for the list that the module itself exports as `list_functions`.
struct Export {
  const char *name, *arguments, *doc;
  int32_t num_arguments;
  std::vector<const char*> types;  // of the arguments; empty for a function of PackedArgs
};
std::vector<Export>& exports();
inline bool add_export(const char* name, const char* arguments, const char* doc, int32_t num_arguments) {
  exports().push_back({name, arguments, doc, num_arguments, {}});
  return true;
}
template <class R, class... A>
bool add_export(R (*)(A...), const char* name, const char* arguments, const char* doc) {
  exports().push_back({name, arguments, doc, int32_t(sizeof...(A)), {type_name<A>()...}});
  return true;
}

}  // namespace fulmen::ffi

// Exports fulmen::ffi::name_ as the module's function `name`. arguments: the names of all, in order, comma separated.
#define FULMEN_FFI_EXPORT(name, arguments, doc)                                               \
  TVM_FFI_DLL_EXPORT_TYPED_FUNC(name, &::fulmen::ffi::Guarded<&::fulmen::ffi::name##_>::call) \
  [[maybe_unused]] static const bool kExported_##name =                                       \
      ::fulmen::ffi::add_export(&::fulmen::ffi::name##_, #name, arguments, doc)

// The same for a function of PackedArgs: more arguments than a typed signature reads well with.
#define FULMEN_FFI_EXPORT_PACKED(name, arguments, num_arguments, doc)                                \
  extern "C" TVM_FFI_DLL_EXPORT int __tvm_ffi_##name(void*, const TVMFFIAny* args, int32_t num_args, \
                                                     TVMFFIAny* result) {                            \
    return ::fulmen::ffi::call_packed<&::fulmen::ffi::name##_>(args, num_args, result);              \
  }                                                                                                  \
  [[maybe_unused]] static const bool kExported_##name = ::fulmen::ffi::add_export(#name, arguments, doc, num_arguments)
