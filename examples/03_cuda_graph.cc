// SPDX-License-Identifier: Apache-2.0
// A decode step in a CUDA graph: captured once, replayed with other lengths and other pages, without planning again.
// The plan is made on the GPU by a kernel inside the graph, from the tables as they are at each replay.
//
// Queries are zero here, so a row's output is the mean of the values that it sees, and each value holds its position:
// a request of n keys must get (n - 1) / 2. The program needs the CUDA driver only; without one it says so and ends.
#include <dlfcn.h>
#include <fulmen/attention/call.h>
#include <fulmen/core/error.h>

#include <cstdint>
#include <cstdio>
#include <vector>

namespace {

using namespace fulmen;

// The part of the driver that this program calls.
struct Driver {
  void* library = dlopen("libcuda.so.1", RTLD_NOW);
  template <class... A>
  void call(const char* name, A... args) const {
    const auto function = reinterpret_cast<int (*)(A...)>(dlsym(library, name));
    const int result = function == nullptr ? -1 : function(args...);
    if (result != 0) throw Error(Code::kInternal, std::string(name) + " returned " + std::to_string(result));
  }
};
const Driver cu;

// A tensor in the GPU's memory; the program keeps it to its end.
template <class T>
TensorView on_gpu(const std::vector<T>& values, std::initializer_list<int64_t> shape) {
  uint64_t address = 0;
  cu.call("cuMemAlloc_v2", &address, values.size() * sizeof(T));
  cu.call("cuMemcpyHtoD_v2", address, static_cast<const void*>(values.data()), values.size() * sizeof(T));
  TensorView t = view_of(reinterpret_cast<T*>(address), shape);
  t.device_type = DeviceType::kCuda;
  return t;
}
template <class T>
void overwrite(const TensorView& t, const std::vector<T>& values) {
  cu.call("cuMemcpyHtoD_v2", uint64_t(t.data), static_cast<const void*>(values.data()), values.size() * sizeof(T));
}

constexpr int64_t kBatch = 3, kHeads = 8, kKvHeads = 2, kDim = 64, kPage = 16, kPages = 64, kMaxPages = 20;

// Requests of these lengths in pages from `first_page` on.
void set_tables(AttentionArgs& args, const std::vector<int32_t>& lens, int32_t first_page) {
  std::vector<int32_t> table(kBatch * kMaxPages, 0);
  for (int64_t b = 0; b < kBatch; ++b)
    for (int64_t i = 0; i < kMaxPages; ++i) table[size_t(b * kMaxPages + i)] = int32_t((first_page + i) % kPages);
  overwrite(args.block_tables, table);
  overwrite(args.seq_lens, lens);
  std::vector<f16> values(kPages * kPage * kKvHeads * kDim);  // each page holds its place in the table
  for (int64_t page = 0; page < kPages; ++page)
    for (int64_t i = 0; i < kPage * kKvHeads * kDim; ++i)
      values[size_t(page * kPage * kKvHeads * kDim + i)] =
          to_f16(float((page - first_page + kPages) % kPages * kPage + i / (kKvHeads * kDim)));
  overwrite(args.v, values);
}

void decode() {
  int32_t device = 0;
  void *context = nullptr, *stream = nullptr, *graph = nullptr, *replay = nullptr;
  cu.call("cuInit", 0u);
  cu.call("cuDeviceGet", &device, 0);
  cu.call("cuDevicePrimaryCtxRetain", &context, device);
  cu.call("cuCtxSetCurrent", context);
  cu.call("cuStreamCreate", &stream, 1u);

  AttentionArgs args;
  args.q = on_gpu(std::vector<f16>(kBatch * kHeads * kDim), {kBatch, kHeads, kDim});
  args.k = on_gpu(std::vector<f16>(kPages * kPage * kKvHeads * kDim), {kPages, kPage, kKvHeads, kDim});
  args.v = on_gpu(std::vector<f16>(kPages * kPage * kKvHeads * kDim), {kPages, kPage, kKvHeads, kDim});
  args.block_tables = on_gpu(std::vector<int32_t>(kBatch * kMaxPages), {kBatch, kMaxPages});
  args.seq_lens = on_gpu(std::vector<int32_t>(kBatch), {kBatch});
  args.out = on_gpu(std::vector<float>(kBatch * kHeads * kDim), {kBatch, kHeads, kDim});

  attention::BatchAttention batch({.stream = stream});
  batch.plan_on_device(args);  // shapes and options; lengths are read by the GPU
  args.workspace = on_gpu(std::vector<uint8_t>(size_t(batch.workspace_bytes())), {batch.workspace_bytes()});
  batch.run(args);  // compiles what no cache holds: not a thing to do while capturing

  cu.call("cuStreamBeginCapture_v2", stream, 0);
  for (int32_t layer = 0; layer < 4; ++layer) batch.run(args);  // the first one of a capture plans as well
  cu.call("cuStreamEndCapture", stream, &graph);
  cu.call("cuGraphInstantiateWithFlags", &replay, graph, 0ull);

  const std::vector<int32_t> steps[] = {{5, 17, 1}, {300, 0, 44}, {1, 2, 319}};
  for (const std::vector<int32_t>& lens : steps) {
    set_tables(args, lens, lens[0] % 7);
    cu.call("cuGraphLaunch", replay, stream);
    cu.call("cuStreamSynchronize", stream);
    std::vector<float> out(kBatch * kHeads * kDim);
    cu.call("cuMemcpyDtoH_v2", static_cast<void*>(out.data()), uint64_t(args.out.data), out.size() * sizeof(float));
    for (int64_t b = 0; b < kBatch; ++b)
      std::printf("request %ld, %3d keys: mean position %6.2f\n", long(b), lens[size_t(b)],
                  double(out[size_t(b * kHeads * kDim)]));
  }
}

}  // namespace

int main() {
  if (cu.library == nullptr) return std::printf("no CUDA driver on this machine: nothing to capture\n"), 0;
  try {
    decode();
  } catch (const std::exception& e) {
    std::printf("%s\n", e.what());
    return 1;
  }
  return 0;
}
