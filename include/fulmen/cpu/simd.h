// SPDX-License-Identifier: Apache-2.0
// The SIMD vocabulary of the CPU kernels: F32 (a register of floats), I32, Mask, and the same free functions at every
// level. Which registers stand behind them is decided by cpu/level.h; kernels never name an intrinsic unless they are
// a fast path of one level.
//   load(const T*)         kLanes elements of float, f16, bf16, e4m3 or e5m2, widened
//   load_n(const T*, n)    the first n <= kLanes; the other lanes are 0 and their memory is not touched
//   store(T*, x), store_n  narrowed, rounding to nearest even; FP8 saturates
//   fma(a, b, c)           a * b + c
//   compress(p, x, bits)   stores the lanes whose bit is set, in order, and says how many; may write kLanes elements
//   reduce_add_each(x)     the sums of kLanes registers, one per lane; transpose(x) turns kLanes registers around
//   swap_lanes<n>(x)       lane i from lane i ^ n
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cpu/level.h>

#include <cmath>
#include <cstring>

#if FULMEN_CPU_LEVEL_ID == 0
#include <fulmen/cpu/simd_scalar.h>
#elif FULMEN_CPU_LEVEL_ID == 1
#include <fulmen/cpu/simd_avx2.h>
#else
#include <fulmen/cpu/simd_avx512.h>
#endif
#include <fulmen/cpu/simd_math.h>
