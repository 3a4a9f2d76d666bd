// SPDX-License-Identifier: Apache-2.0
// Attention of many rows (prefill, append): tiles of K and V are packed once and shared by all rows of the block.
//
//   per block of kKeyBlock keys:        K -> panels [head_dim][kPanel keys],  V -> panels [key][kPanel columns]
//     per strip of kStripRows rows:     S = Q K^T (gemm_tile), softmax step of every row in place, O += P V (gemm_tile)
//
// A strip's register tiles compute only the keys that one of their rows sees, so that causal work stays near its half.
#pragma once
#include <fulmen/cpu/attention/gemm_tile.h>
#include <fulmen/cpu/attention/pack.h>
#include <fulmen/cpu/attention/query_block.h>
#include <fulmen/cpu/attention/softmax.h>

#include <cstring>

FULMEN_CPU_BEGIN

inline constexpr int32_t kStripTiles = 4, kStripRows = kStripTiles * kTileRows;
inline constexpr int32_t kScoreStride = kKeyBlock + 16;  // floats; no power of two: rows spread over L1's sets

struct ManyRowsScratch {
  float *zero_row, *keys, *values, *s, *rotated;
  bf16 *q_bf16, *p_bf16;
  attention::KvRange* ranges;
  ManyRowsScratch(const QueryBlock& block, Scratch& scratch) {
    const int32_t width_qk = padded_head_dim(block.head_dim_qk), width_vo = padded_head_dim(block.head_dim_vo);
    zero_row = scratch.take<float>(width_qk > width_vo ? width_qk : width_vo);
    keys = scratch.take<float>(kKeyBlock * width_qk);
    values = scratch.take<float>(kKeyBlock * width_vo);
    s = scratch.take<float>(kStripRows * kScoreStride);
    p_bf16 = scratch.take<bf16>(kStripRows * kScoreStride);
    rotated = scratch.take<float>(kKeyBlock * width_qk);
    q_bf16 = scratch.take<bf16>(int64_t(block.num_rows) * width_qk);
    ranges = scratch.take<attention::KvRange>(block.num_rows);
  }
};

template <class T, class Variant, bool kDot>
struct ManyRows {
  const Variant& variant;
  const QueryBlock& block;
  const KvRows<T>&k, &v;
  const KeyRope& rope;
  const BlockOutput& out;
  ManyRowsScratch scratch;

  void run(attention::KvRange kv) {
    const attention::KvRange in = visible_ranges(variant, block.rows, block.num_rows, kv, scratch.ranges);
    const int32_t width_qk = padded_head_dim(block.head_dim_qk), width_vo = padded_head_dim(block.head_dim_vo);
    std::memset(scratch.zero_row, 0, size_t(width_qk > width_vo ? width_qk : width_vo) * sizeof(float));
    for (int32_t r = 0; r < block.num_rows; ++r) {
      out.state[r] = {};
      std::memset(out.o + r * out.o_stride, 0, size_t(width_vo) * sizeof(float));
    }
    if constexpr (kDot) {
      for (int32_t r = 0; r < block.num_rows; ++r) {
        narrow_pairs(block.q + r * block.q_stride, width_qk, scratch.q_bf16 + int64_t(r) * width_qk);
      }
    }
    for (int32_t begin = in.begin; begin < in.end; begin += kKeyBlock) {
      const int32_t n = in.end - begin < kKeyBlock ? in.end - begin : kKeyBlock;
      pack(begin, n);
      for (int32_t r = 0; r < block.num_rows; r += kStripRows) {
        strip(r, block.num_rows - r < kStripRows ? block.num_rows - r : kStripRows, begin, n);
      }
    }
  }

  void pack(int32_t begin, int32_t n) {
    const T* rows[kKeyBlock];
    const auto pad_rows = [&](auto** list, auto* zero) {
      for (int32_t i = n; i < kKeyBlock; ++i) list[i] = zero;
    };
    k.rows(begin, n, rows);
    pad_rows(rows, reinterpret_cast<const T*>(scratch.zero_row));
    if (rope.cos != nullptr) {
      rotate_keys(rope, rows, 0, begin, n, block.head_dim_qk, scratch.rotated);
      const float* rotated[kKeyBlock];
      for (int32_t i = 0; i < n; ++i) rotated[i] = scratch.rotated + int64_t(i) * padded_head_dim(block.head_dim_qk);
      pad_rows(rotated, static_cast<const float*>(scratch.zero_row));
      pack_keys<false>(rotated, n, block.head_dim_qk, scratch.keys);
    } else {
      pack_keys<kDot>(rows, n, block.head_dim_qk, scratch.keys);
    }
    v.rows(begin, n, rows);
    pad_rows(rows, reinterpret_cast<const T*>(scratch.zero_row));
    pack_values<kDot>(rows, n, block.head_dim_vo, scratch.values);
  }

  // What a register tile of rows sees of the current key block, relative to its begin; empty: begin >= end.
  struct Tile {
    int32_t first, rows, begin, end;
  };

  Tile tile_of(int32_t first, int32_t rows, int32_t begin, int32_t n) const {
    Tile tile = {first, rows, n, 0};
    for (int32_t r = first; r < first + rows; ++r) {
      const attention::KvRange in = scratch.ranges[r];
      const int32_t a = in.begin - begin > 0 ? in.begin - begin : 0, z = in.end - begin < n ? in.end - begin : n;
      if (a >= z) continue;
      tile.begin = a < tile.begin ? a : tile.begin, tile.end = z > tile.end ? z : tile.end;
    }
    return tile;
  }

  void strip(int32_t first, int32_t rows, int32_t begin, int32_t n) {
    Tile tiles[kStripTiles];
    int32_t num_tiles = 0, end = 0, start = n;
    for (int32_t r = 0; r < rows; r += kTileRows) {
      const Tile tile = tile_of(first + r, rows - r < kTileRows ? rows - r : kTileRows, begin, n);
      if (tile.begin >= tile.end) continue;
      start = tile.begin < start ? tile.begin : start, end = tile.end > end ? tile.end : end;
      tiles[num_tiles++] = tile;
    }
    const int32_t width_qk = padded_head_dim(block.head_dim_qk);
    const float* const q = kDot ? reinterpret_cast<const float*>(scratch.q_bf16) : block.q;
    const int64_t q_stride = kDot ? width_qk / 2 : block.q_stride;
    const int32_t depth = kDot ? block.head_dim_qk / 2 : block.head_dim_qk;
    for (int32_t j = start / kPanel * kPanel; j < end; j += kPanel) {
      const float* const panel = scratch.keys + int64_t(j) * (kDot ? width_qk / 2 : width_qk);
      for (int32_t i = 0; i < num_tiles; ++i) {
        const Tile& tile = tiles[i];
        if (tile.end <= j || tile.begin >= j + kPanel) continue;
        float* const s = scratch.s + (tile.first - first) * kScoreStride + j;
        gemm_rows<kDot>(tile.rows, q + tile.first * q_stride, q_stride, panel, depth, s, kScoreStride, false);
      }
    }
    for (int32_t i = 0; i < num_tiles; ++i) {
      for (int32_t r = 0; r < tiles[i].rows; ++r) weigh(tiles[i], tiles[i].first + r, first, begin);
    }
    add(tiles, num_tiles, first);
  }

  void weigh(const Tile& tile, int32_t r, int32_t first, int32_t begin) {
    const int32_t start = tile.begin / kPanel * kPanel, end = (tile.end + kLanes - 1) / kLanes * kLanes;
    const attention::KvRange in = scratch.ranges[r];
    const int32_t base = begin + start;
    const attention::KvRange here = {(in.begin > base ? in.begin : base) - base,
                                     (in.end < begin + tile.end ? in.end : begin + tile.end) - base};
    float* const s = scratch.s + (r - first) * kScoreStride + start;
    if (here.begin >= here.end) {
      std::memset(s, 0, size_t(end - start) * sizeof(float));
    } else {
      const float keep = softmax_step(variant, block.rows[r], base, s, end - start, here, out.state[r]);
      if (keep != 1.f) scale_row(out.o + r * out.o_stride, padded_head_dim(block.head_dim_vo), keep);
    }
    if constexpr (kDot) narrow_pairs(s, end - start, scratch.p_bf16 + (r - first) * kScoreStride + start);
  }

  void add(const Tile* tiles, int32_t num_tiles, int32_t first) {
    const float* const p = kDot ? reinterpret_cast<const float*>(scratch.p_bf16) : scratch.s;
    constexpr int32_t kUnit = kDot ? 2 : 1, kStride = kScoreStride / kUnit;
    for (int32_t column = 0; column < block.head_dim_vo; column += kPanel) {
      const float* const panel = scratch.values + int64_t(column) * (kKeyBlock / kUnit);
      for (int32_t i = 0; i < num_tiles; ++i) {
        const Tile& tile = tiles[i];
        const int32_t begin = tile.begin / kUnit, end = (tile.end + kUnit - 1) / kUnit;
        gemm_rows<kDot>(tile.rows, p + (tile.first - first) * kStride + begin, kStride, panel + begin * kPanel,
                        end - begin, out.o + tile.first * out.o_stride + column, out.o_stride, true);
      }
    }
  }
};

FULMEN_CPU_END
