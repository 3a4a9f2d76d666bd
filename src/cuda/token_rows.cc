// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/token_rows.h"

#include <fulmen/cuda/row_shape.h>

#include <algorithm>

namespace fulmen::cuda {
namespace {

constexpr int64_t kSliceBytes = 68 << 10;  // two CTAs of this and what is beside it fit an SM of 228 KB
constexpr int64_t kShortRow = 4096;

// Whether what is compiled for the device may use clusters.
bool has_clusters(const Device& device) {
  const std::string& target = device.targets.front();
  const size_t digits = target.find_first_of("0123456789");
  return digits == target.npos || std::stoi(target.substr(digits)) >= 90;
}

bool aligned(const TensorView& t) {
  const uint64_t size = uint64_t(size_of(t.dtype));
  return ((uint64_t(t.data) | (t.shape[0] > 1 ? uint64_t(t.strides[0]) * size : 0)) & 15) == 0;
}

}  // namespace

TeamShape team_for(const Device& device, int64_t num_rows, int64_t n, std::initializer_list<const TensorView*> tensors,
                   bool keeps, bool searches) {
  const int32_t element_bytes = tensors.size() == 0 ? 4 : size_of((*tensors.begin())->dtype);
  TeamShape s{.threads = n <= kShortRow ? 128 : 512};
  if (tensors.size() > 0 && n % 4 == 0 &&
      std::all_of(tensors.begin(), tensors.end(), [](auto* t) { return aligned(*t); }))
    s.vec = 16 / element_bytes;
  const auto bytes = [&](int32_t size) { return TokenLayout::bytes(int32_t(n), size, element_bytes, true); };
  if (has_clusters(device) && n > kShortRow) {
    while (keeps && s.size < kMaxTeam && bytes(s.size) - TokenLayout::row(int32_t(n)) > kSliceBytes) s.size *= 2;
    // few rows: more SMs read each
    const int64_t places = device.num_sms * (searches ? 2 : 1);
    while (s.size < kMaxTeam && num_rows * s.size * 2 <= places && n / s.size > 2 * kShortRow) s.size *= 2;
  }
  s.resident = keeps && bytes(s.size) <= device.max_shared_bytes;
  s.shared_bytes = int32_t(TokenLayout::bytes(int32_t(n), s.size, element_bytes, s.resident));
  return s;
}

std::string refuses_tokens(int64_t num_rows, int64_t n) {
  constexpr int64_t kMost = int64_t(kMaxTokenBlocks) * kTokenBlock;
  if (n > kMost) return "rows of " + std::to_string(n) + " elements exceed " + std::to_string(kMost);
  return num_rows > 0x7fffffff / kMaxTeam ? "more than 268435455 rows" : "";
}

std::vector<TokenKey> token_keys(std::initializer_list<bool> logits, bool keeps) {
  std::vector<TokenKey> keys;
  for (DType t : {DType::kBF16, DType::kF16, DType::kF32})
    for (bool l : logits)
      for (bool cluster : {false, true})  // without clusters such rows exceed shared memory
        for (int32_t threads : {512, 256})
          if (threads == 512 || (!keeps && !cluster))
            keys.push_back({.x = t,
                            .vec = 16 / size_of(t),
                            .threads = threads,
                            .logits = l,
                            .cluster = cluster,
                            .resident = keeps && cluster});
  return keys;
}

}  // namespace fulmen::cuda
