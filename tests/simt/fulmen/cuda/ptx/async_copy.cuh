// SPDX-License-Identifier: Apache-2.0
// Copies happen when they are awaited, so that a missing wait shows; or at once, so that a missing barrier before them
// does.
#pragma once
#include <fulmen/cuda/ptx/shared.cuh>

#include <deque>
#include <map>
#include <vector>

namespace fulmen::cuda {

struct PendingCopy {
  uint32_t to;
  const void* from;
  bool valid;
};
// Of each fiber: groups, the last of them open.
inline std::deque<std::vector<PendingCopy>>& pending_copies() {
  static std::map<const void*, std::deque<std::vector<PendingCopy>>> all;
  auto& mine = all[simt::runtime().self()];
  if (mine.empty()) mine.emplace_back();
  return mine;
}

inline void finish_copy(const PendingCopy& c) {
  Bits<16> bits{};
  if (c.valid) std::memcpy(&bits, c.from, 16);
  store_shared<16>(c.to, bits);
}
inline void copy_async_16(uint32_t to, const void* from, bool valid) {
  if (valid) check_aligned<16>(from);
  const PendingCopy copy{to, from, valid};
  if (simt::runtime().copies_early()) return finish_copy(copy);
  pending_copies().back().push_back(copy);
}
inline void commit_copies() { pending_copies().emplace_back(); }
template <int32_t kPending>
void wait_copies() {
  auto& groups = pending_copies();
  while (groups.size() > kPending + 1) {
    for (const PendingCopy& c : groups.front()) finish_copy(c);
    groups.pop_front();
  }
}

}  // namespace fulmen::cuda
