// SPDX-License-Identifier: Apache-2.0
// Turns a fuzzer's bytes into values; past the end everything is 0. Sizes are mostly small, sometimes absurd.
#pragma once
#include <fulmen/core/error.h>
#include <fulmen/core/tensor_view.h>

#include <cstdlib>
#include <cstring>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace fulmen::fuzz {

struct Input {
  const uint8_t* data;
  size_t left;

  template <class T>
  T take() {
    T value{};
    const size_t n = left < sizeof(T) ? left : sizeof(T);
    std::memcpy(&value, data, n);
    data += n, left -= n;
    return value;
  }
  uint8_t byte() { return take<uint8_t>(); }
  int32_t below(int32_t end) { return byte() % end; }
  int64_t size() {
    const uint8_t b = byte();
    return b < 240 ? b % 12 : b < 250 ? take<int32_t>() : take<int64_t>();
  }
  TensorView tensor(void* memory) {
    TensorView t;
    if (below(4) != 0) memory = no_memory(uint32_t(below(255)));  // else shared with others
    t.data = below(16) == 0 ? nullptr : static_cast<char*>(memory) + (below(16) == 0 ? 1 : 0);
    t.dtype = DType(below(kNumDTypes));
    t.rank = below(TensorView::kMaxRank + 2) - 1;
    if (t.rank > TensorView::kMaxRank) t.rank = TensorView::kMaxRank;
    int64_t stride = 1;
    for (int32_t i = t.rank; i-- > 0;) {
      t.shape[i] = size();
      t.strides[i] = below(8) == 0 ? size() : stride;
      if (__builtin_mul_overflow(stride, t.shape[i], &stride)) stride = 1;
    }
    t.device_type = below(32) == 0 ? DeviceType::kCuda : DeviceType::kCpu;
    return t;
  }
};

// f may refuse its input with the typed error of a wrong call, and with nothing else.
template <class F>
bool accepts(F f) {
  try {
    f();
    return true;
  } catch (const Error& e) {
    if (e.code != Code::kInvalidArgument) std::abort();
    return false;
  }
}

inline void expect(bool ok) {
  if (!ok) std::abort();
}

}  // namespace fulmen::fuzz
