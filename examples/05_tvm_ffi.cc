// SPDX-License-Identifier: Apache-2.0
// Loads libfulmen_ffi.so as a TVM-FFI module and calls one function: what any program with TVM-FFI can do without our
// headers. usage: 05_tvm_ffi path/to/libfulmen_ffi.so. All functions and their arguments: docs/ffi.md.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/extra/module.h>

#include <cmath>
#include <cstdio>
#include <vector>

namespace ffi = tvm::ffi;

namespace {

// A contiguous float32 tensor [rows, columns] over memory that the caller keeps.
struct Matrix {
  std::vector<float> values;
  int64_t shape[2], strides[2];
  DLTensor tensor{};
  Matrix(int64_t rows, int64_t columns, float value)
      : values(size_t(rows * columns), value), shape{rows, columns}, strides{columns, 1} {
    tensor.data = values.data();
    tensor.device = {kDLCPU, 0};
    tensor.ndim = 2;
    tensor.dtype = {kDLFloat, 32, 1};
    tensor.shape = shape;
    tensor.strides = strides;
  }
  DLTensor* row() {  // the first row as a tensor of rank 1
    tensor.ndim = 1;
    tensor.shape = shape + 1;
    tensor.strides = strides + 1;
    return &tensor;
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s path/to/libfulmen_ffi.so\n", argv[0]);
    return 2;
  }
  const ffi::Module module = ffi::Module::LoadFromFile(argv[1]);
  const ffi::Function rmsnorm = module->GetFunction("rmsnorm").value();

  Matrix input(2, 8, 3.0f), weight(1, 8, 0.5f), out(2, 8, 0.0f);
  rmsnorm(&input.tensor, weight.row(), &out.tensor, nullptr, 1e-6, 0.0);
  std::printf("rmsnorm of constant rows: %.6f, expected 0.500000\n", double(out.values[0]));

  try {
    rmsnorm(&input.tensor, weight.row(), &out.tensor, nullptr, -1.0, 0.0);
    return 1;
  } catch (const ffi::Error& error) { std::printf("eps -1: %s: %s\n", error.kind().c_str(), error.message().c_str()); }
  return std::abs(out.values[15] - 0.5f) < 1e-5f ? 0 : 1;
}
