// SPDX-License-Identifier: Apache-2.0
// A vector of i32 or i64 numbers, told apart at run time: ids are read or written once per token or row.
#pragma once
#include <fulmen/core/portable.h>

namespace fulmen::cuda {

struct IdVector {
  const void* data = nullptr;
  bool wide = false;  // i64

  // Two halves and no branch: the low one's address is the same sum for both, the high one is read where there is one.
  FULMEN_FN int64_t operator[](int64_t i) const {
    const int32_t* p = static_cast<const int32_t*>(data) + (i << int32_t(wide));
    const int32_t low = p[0];
    return int64_t(uint64_t(int64_t(wide ? p[1] : low >> 31)) << 32 | uint32_t(low));
  }
  // The low half of a number: all of it where it names something that exists.
  FULMEN_FN int32_t low(int64_t i) const { return static_cast<const int32_t*>(data)[wide ? 2 * i : i]; }
  FULMEN_FN void set(int64_t i, int64_t value) const {  // of an output
    if (wide)
      static_cast<int64_t*>(const_cast<void*>(data))[i] = value;
    else
      static_cast<int32_t*>(const_cast<void*>(data))[i] = int32_t(value);
  }
};

// A number as it was loaded, and what it is: what is made of it at once would wait for it before the next is asked for.
struct Halves {
  int32_t low = 0, high = 0;
};
FULMEN_FN Halves load_halves(const IdVector& v, int32_t i) {
  const int32_t* from = static_cast<const int32_t*>(v.data) + (int64_t(i) << int32_t(v.wide));
  return {from[0], v.wide ? from[1] : 0};
}
FULMEN_FN int64_t number(const IdVector& v, const Halves& x) {
  return int64_t(uint64_t(int64_t(v.wide ? x.high : x.low >> 31)) << 32 | uint32_t(x.low));
}

}  // namespace fulmen::cuda
