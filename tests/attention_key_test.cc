// SPDX-License-Identifier: Apache-2.0
// Which kernel of the attention family serves which head dims, on devices of every size of shared memory.
#include <gtest/gtest.h>

#include "src/cuda/attention.h"
#include "src/cuda/device.h"
#include "src/cuda/table.h"
#include "src/jit/source.h"

namespace fulmen::cuda {
namespace {

using batch_attention::Key, batch_attention::SharedLayout, batch_attention::shared_columns;

constexpr int32_t kArchs[] = {75, 80, 86, 87, 89, 90, 100, 103, 110, 120, 121};
constexpr int32_t kTiles[] = {16, 32, 64, 128, 256};

std::vector<std::pair<DType, DType>> dtypes(int32_t arch) {
  std::vector<std::pair<DType, DType>> all;
  for (DType q : {DType::kF16, DType::kBF16})
    for (DType kv : {q, DType::kE4M3, DType::kE5M2})
      if (q == DType::kF16 || arch >= 80) all.emplace_back(q, kv);
  return all;
}

// Tiles of 64 rows are tried whatever a batch wants: where they have a kernel, no head dim is refused.
TEST(AttentionKey, EveryDeviceServesEveryHeadDim) {
  for (int32_t arch : kArchs)
    for (const auto& [q, kv] : dtypes(arch))
      for (int32_t d_qk = 8; d_qk <= 256; d_qk += 8)
        for (int32_t d_vo = 8; d_vo <= 256; d_vo += 8)
          ASSERT_TRUE(attention_key(64, d_qk, d_vo, q, kv, shared_bytes_of(arch), false))
              << "sm_" << arch << " q " << name_of(q) << " kv " << name_of(kv) << " " << d_qk << ", " << d_vo;
}

// What is chosen fits, is a key by the rules, and with one CTA per SM there is a kernel wherever there is one with two.
TEST(AttentionKey, WhatIsChosenFitsAndIsReadBack) {
  for (int32_t arch : kArchs)
    for (const auto& [q, kv] : dtypes(arch))
      for (int32_t d_qk = 16; d_qk <= 256; d_qk += 16)
        for (int32_t d_vo = 16; d_vo <= 256; d_vo += 16)
          for (int32_t tile : kTiles) {
            const auto key = attention_key(tile, d_qk, d_vo, q, kv, shared_bytes_of(arch), false);
            const auto alone = attention_key(tile, d_qk, d_vo, q, kv, shared_bytes_of(arch), true);
            ASSERT_EQ(key.has_value(), alone.has_value()) << tile;
            if (!key) continue;
            ASSERT_EQ(tile_q(*key), tile);
            for (const Key& k : {*key, *alone}) {
              ASSERT_LE(SharedLayout(k).bytes, shared_bytes_of(arch));
              const std::string line = jit::line_of(Attention::kName, k);
              ASSERT_NO_THROW((void)unit_from(line)) << line;
            }
          }
}

// "tile_kv stages columns" of tiles of 64 rows.
std::string small(int32_t arch, int32_t d, DType kv = DType::kF16) {
  const Key k = *attention_key(64, d, d, DType::kF16, kv, shared_bytes_of(arch), false);
  return std::to_string(k.tile_kv) + " " + std::to_string(k.stages) + " " + std::to_string(shared_columns(k));
}

TEST(AttentionKey, SumsPassThroughSharedMemoryInPartsOnlyWhereItIsSmall) {
  EXPECT_EQ(small(75, 128), "32 2 128");
  EXPECT_EQ(small(75, 144), "32 2 144");
  EXPECT_EQ(small(75, 160), "16 3 64");
  EXPECT_EQ(small(75, 192), "16 3 64");
  EXPECT_EQ(small(75, 208), "32 1 64");
  EXPECT_EQ(small(75, 256), "16 1 64");
  EXPECT_EQ(small(75, 256, DType::kE4M3), "32 1 64");
  EXPECT_EQ(small(89, 240), "32 2 240");
  EXPECT_EQ(small(89, 256), "16 3 64");
  EXPECT_EQ(small(120, 256, DType::kE5M2), "32 3 64");
  EXPECT_EQ(small(80, 256), "32 2 256");
  const auto tall = attention_key(128, 128, 128, DType::kF16, DType::kF16, shared_bytes_of(89), false);
  ASSERT_TRUE(tall);
  EXPECT_EQ(shared_columns(*tall), 64);
  for (int32_t arch : {80, 87, 90, 100, 103, 110})
    for (const auto& [q, kv] : dtypes(arch))
      for (int32_t d_qk = 16; d_qk <= 256; d_qk += 16)
        for (int32_t d_vo = 16; d_vo <= 256; d_vo += 16)
          for (int32_t tile : kTiles)
            if (const auto k = attention_key(tile, d_qk, d_vo, q, kv, shared_bytes_of(arch), false)) {
              ASSERT_EQ(shared_columns(*k), k->d_vo) << jit::line_of("", *k);
            }
}

}  // namespace
}  // namespace fulmen::cuda
