// SPDX-License-Identifier: Apache-2.0
// What a cascade is predicted to take in levels and flat, from sums over its requests: the same on the host, which may
// know the lengths, and on the device, which reads them. docs/kernels/cascade_cuda.md has the model.
#pragma once
#include <fulmen/core/portable.h>

namespace fulmen::attention {

inline constexpr int32_t kMostCascadeLevels = 4;  // that the device chooses about

struct CascadeShape {
  int64_t num_qo_heads = 1, num_kv_heads = 1, head_dim = 128, kv_bytes = 2;  // per element of K and V
};

// Over the requests of one level that have queries. T: double, or float on the device.
template <class T>
struct LevelSums {
  T requests = 0, rows = 0;
  T keys = 0, row_keys = 0, padded_keys = 0;  // Σ keys; Σ queries * keys; Σ packed rows, in sixteens, * keys
  T tiles = 0, largest_tile = 0, most_keys = 0;

  FULMEN_FN static T ceil_of(T x) {
    const T whole = T(int64_t(x));
    return whole < x ? whole + 1 : whole;
  }
  FULMEN_FN static T tile_for(T packed) { return T(packed <= 16 ? 16 : packed <= 32 ? 32 : packed <= 64 ? 64 : 128); }
  FULMEN_FN static T larger(T a, T b) { return a < b ? b : a; }
  FULMEN_FN static T smaller(T a, T b) { return b < a ? b : a; }

  // qo_len > 0.
  FULMEN_FN void add(const CascadeShape& s, T qo_len, T kv_len) {
    const T packed = qo_len * T(s.num_qo_heads) / T(s.num_kv_heads), tile = tile_for(packed);
    requests += 1, rows += qo_len;
    keys += kv_len, row_keys += qo_len * kv_len, padded_keys += ceil_of(packed / 16) * 16 * kv_len;
    tiles += ceil_of(packed / tile);
    largest_tile = larger(largest_tile, tile), most_keys = larger(most_keys, kv_len);
  }
};

// Of one H100; fitted to the sweep in docs/kernels/cascade_cuda.md.
template <class T>
struct CascadeModel {
  using Sums = LevelSums<T>;
  static constexpr T kLaunch = T(7.5), kTile = 18, kSlot = T(4.4), kBytesPerUs = T(2.7e6), kAgainPerUs = T(8.4e6),
                     kFlopsPerUs = T(350e6), kWorkers = 264, kSms = 132, kMinSplit = 128, kMargin = T(1.1);
  const CascadeShape& shape;

  FULMEN_FN T heads() const { return T(shape.num_kv_heads); }
  FULMEN_FN T row() const { return T(2 * shape.head_dim) * heads(); }  // elements of a key and its value

  // A launch. again: bytes read before by another request, so that L2 may have them. A tile of many rows takes time to
  // begin and to end, and so does merging what its splits leave.
  FULMEN_FN T launch_us(T bytes, T again, T flops, T tiles, T largest_tile, T most_keys) const {
    const T splits = Sums::smaller(kWorkers / Sums::larger(tiles * heads(), 1), most_keys / kMinSplit);
    const T part = largest_tile / 128;
    return kLaunch + part * (kTile + (splits >= 2 ? splits * kSlot : 0)) +
           Sums::larger(bytes / kBytesPerUs + again / kAgainPerUs, flops / kFlopsPerUs);
  }

  // One request of so few rows that it gets tiles of 16 or 32, which read its keys again each.
  FULMEN_FN T level_us(const Sums& l) const {
    T tiles = l.tiles, tile = l.largest_tile, again = 0;
    const T packed = l.rows * T(shape.num_qo_heads) / heads();
    for (T small = 32; l.requests == 1 && small >= 16; small /= 2) {
      const T n = Sums::ceil_of(packed / small);
      if (2 * n * heads() <= kSms) tiles = n, tile = small, again = (n - 1) * l.keys;
    }
    const T bytes = row() * T(shape.kv_bytes);
    return launch_us(l.keys * bytes, again * bytes, l.padded_keys * row() * 2, tiles, tile, l.most_keys);
  }

  // kMost: of num_levels, known to the compiler where arrays are to be in registers. own: the last level.
  template <int32_t kMost>
  FULMEN_FN T levels_us(const Sums* levels, int32_t num_levels, const Sums& own) const {
    T us = 0;
    for (int32_t i = 0; i < kMost; ++i) {
      if (i >= num_levels) break;
      us += level_us(levels[i]);
    }
    if (num_levels == 1) return us;
    const T rows = own.rows * T(shape.num_qo_heads * shape.head_dim);  // f32, written by one launch and read by another
    return kMargin * (us + rows * (8 * T(num_levels - 1)) / kBytesPerUs);
  }

  // The last level's requests are those of the flat batch; a request above is counted for each that lies in it.
  template <int32_t kMost>
  FULMEN_FN T flat_us(const Sums* levels, int32_t num_levels, const Sums& own) const {
    T keys = own.keys, again = 0, padded = own.padded_keys, largest = own.largest_tile, most = own.most_keys;
    const T mean = own.requests > 0 ? own.rows / own.requests : 1;  // queries of a request
    const T packed = mean * T(shape.num_qo_heads) / heads();
    for (int32_t i = 0; i + 1 < kMost; ++i) {
      if (i + 1 >= num_levels) break;
      const Sums& l = levels[i];
      keys += l.keys, again += l.row_keys / mean - l.keys;
      padded += l.row_keys / mean * Sums::ceil_of(packed / 16) * 16;
      if (l.requests > 0) largest = Sums::larger(largest, Sums::tile_for(packed));
      most += l.most_keys;
    }
    return launch_us(keys * row() * T(shape.kv_bytes), again * row() * T(shape.kv_bytes), padded * row() * 2, own.tiles,
                     largest, most);
  }
};

}  // namespace fulmen::attention
