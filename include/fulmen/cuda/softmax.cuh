// SPDX-License-Identifier: Apache-2.0
// softmax: largest value, sum of weights, division, from one read of the row. Launched by src/cuda/sampling.cc.
#pragma once
#include <fulmen/cuda/softmax.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/token_filter_row.cuh>
#include <fulmen/cuda/tile/token_write.cuh>

namespace fulmen::cuda::softmax {

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using X = type_of<K.x>;
  using Team = TokenTeam<K.threads, K.cluster>;
  using Weight = TokenWeight<true>;
  Team team;
  const int64_t row = int64_t(blockIdx.x / team.size());
  wait_for_predecessor();
  const TokenSlice<K> slice(team, static_cast<const X*>(p.input.data) + row * p.input.stride, p.input.n);
  float* out = static_cast<float*>(const_cast<void*>(p.out.data)) + row * p.out.stride;
  slice.depart();
  const TokenFilterNumbers none{{{}, 0, kAllTokens}, {nullptr, 0, 1}, {nullptr, 0, 0}, false, false};
  const RowFilter f = RowFilter::of(none, p.temperature.of(row), row, p.input.n);
  team.arrive();
  slice.arrive();
  team.wait();
  TokenTop<K> top;
  top.read(team, slice);
  allow_successor();

  const int32_t status = judge<true>(top.key, f.status);
  if (team.rank() == 0 && threadIdx.x == 0) p.status.set(row, status);
  if (status == TokenStatus::kNan || status == TokenStatus::kEmpty) {
    const float fill = status == TokenStatus::kNan ? bit_cast<float>(0x7fffffffu) : 0.0f;
    return write_row<K.vec>(slice, out, [&](float, int32_t) { return fill; });
  }
  if (f.keeps_first()) {
    const uint32_t first = first_of(team, slice, top.lane_key, top.key);
    return write_row<K.vec>(slice, out, [&](float, int32_t i) { return uint32_t(i) == first ? 1.0f : 0.0f; });
  }
  const Weight weight = Weight::of(float_of(top.key), f.inv_temperature);
  sum_blocks(team, slice, [&](float x, int32_t) { return weight(x); });
  const float scale = float(1.0 / mass_of(total_of(team, slice)));
  write_row<K.vec>(slice, out, [&](float x, int32_t) { return weight(x) * scale; });
}

}  // namespace fulmen::cuda::softmax
