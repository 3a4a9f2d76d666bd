// SPDX-License-Identifier: Apache-2.0
// One kernel source, compiled once per instruction set without -march: every kernel header stands between
// FULMEN_CPU_BEGIN and FULMEN_CPU_END, which open namespace fulmen::cpu::<level> and switch the compiler's target.
// The build compiles src/cpu/*.cc once per level with FULMEN_CPU_LEVEL_ID = 0..3. Header-only users who define nothing
// get the level that their own compiler flags allow. Standard headers must be included before BEGIN, so that no inline
// function of theirs is compiled for an instruction set that the machine may lack.
#pragma once

#if !defined(FULMEN_CPU_LEVEL_ID)
#if defined(__AVX512BF16__) && defined(__AVX512VBMI__)
#define FULMEN_CPU_LEVEL_ID 3
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define FULMEN_CPU_LEVEL_ID 2
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define FULMEN_CPU_LEVEL_ID 1
#else
#define FULMEN_CPU_LEVEL_ID 0
#endif
#endif

#if FULMEN_CPU_LEVEL_ID == 0
#define FULMEN_CPU_NS scalar
#define FULMEN_CPU_TARGET
#elif FULMEN_CPU_LEVEL_ID == 1
#define FULMEN_CPU_NS avx2
#define FULMEN_CPU_TARGET "avx2,fma,f16c,bmi,bmi2,lzcnt,popcnt"
#elif FULMEN_CPU_LEVEL_ID == 2
#define FULMEN_CPU_NS avx512
#define FULMEN_CPU_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2,lzcnt,popcnt"
#else
#define FULMEN_CPU_NS avx512_bf16
#define FULMEN_CPU_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16,avx2,fma,f16c,bmi,bmi2,lzcnt,popcnt"
#endif

#define FULMEN_PRAGMA(text) _Pragma(#text)
#if FULMEN_CPU_LEVEL_ID == 0
#define FULMEN_CPU_BEGIN namespace fulmen::cpu::FULMEN_CPU_NS {
#define FULMEN_CPU_END }
#else
#if defined(__GNUC__) && !defined(__clang__)
// g++ 12 warns inside its own intrinsics, which start from a variable initialised with itself.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#if defined(__clang__)
#define FULMEN_CPU_PUSH(t) FULMEN_PRAGMA(clang attribute push(__attribute__((target(t))), apply_to = function))
#define FULMEN_CPU_BEGIN FULMEN_CPU_PUSH(FULMEN_CPU_TARGET) namespace fulmen::cpu::FULMEN_CPU_NS {
#define FULMEN_CPU_END \
  }                    \
  FULMEN_PRAGMA(clang attribute pop)
#else
#define FULMEN_CPU_PUSH(t) FULMEN_PRAGMA(GCC push_options) FULMEN_PRAGMA(GCC target(t))
#define FULMEN_CPU_BEGIN FULMEN_CPU_PUSH(FULMEN_CPU_TARGET) namespace fulmen::cpu::FULMEN_CPU_NS {
#define FULMEN_CPU_END \
  }                    \
  FULMEN_PRAGMA(GCC pop_options)
#endif
#endif
