// SPDX-License-Identifier: Apache-2.0
// What differs between host compilers, nvcc and NVRTC. The only header with such preprocessor branches.
#pragma once

#if defined(__CUDACC_RTC__)
using int8_t = signed char;
using int16_t = short;
using int32_t = int;
using int64_t = long long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long long;
#else
#include <cstdint>
#endif

// FULMEN_FN: a small function that host and device code both call.
#if defined(__CUDACC__)
#define FULMEN_FN __host__ __device__ __forceinline__
#else
#define FULMEN_FN inline
#endif

#if defined(__GNUC__) && !defined(__CUDACC__)
#define FULMEN_RESTRICT __restrict__
#else
#define FULMEN_RESTRICT
#endif

namespace fulmen {
// Reads the bits of one type as another of the same size, in constant expressions too.
template <class To, class From>
FULMEN_FN constexpr To bit_cast(const From& from) {
  return __builtin_bit_cast(To, from);
}
}  // namespace fulmen
