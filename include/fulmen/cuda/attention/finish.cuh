// SPDX-License-Identifier: Apache-2.0
// The end of an item. The warps' sums meet in shared memory; then each thread has four elements of a row at a time and
//   writes them, normalised                        an item that has its tile for itself
//   folds them into a running total                an item that walks several splits (fixed_split_len)
//   leaves them in a slot                          an item whose tile others share; the last to arrive merges all slots
// Folding and merging are the same function in the same order, so that they give the same bits.
#pragma once
#include <fulmen/attention/state.h>
#include <fulmen/cuda/attention/softmax.cuh>
#include <fulmen/cuda/ptx/math.cuh>
#include <fulmen/cuda/tile/row.cuh>

namespace fulmen::cuda::batch_attention {

using State = attention::State<float>;

struct Piece {  // four elements of a row's sum
  State state;
  float o[4] = {};
};

// Takes in the keys after those that are in `sum`.
template <class Variant>
__device__ __forceinline__ void add(Piece& sum, const Piece& next) {
  State::Factors f{1, 1};
  if constexpr (Variant::kSoftmax)
    f = sum.state.merge(next.state);
  else
    sum.state.m = 0, sum.state.d = fmaxf(sum.state.d, next.state.d);
#pragma unroll
  for (int32_t i = 0; i < 4; ++i) sum.o[i] = fmaf(sum.o[i], f.keep, next.o[i] * f.add);
}

__device__ __forceinline__ Piece piece_of(RowState state, const Bits<16>& o) {
  Piece p;
  p.state.m = state.m, p.state.d = state.d;
#pragma unroll
  for (int32_t i = 0; i < 4; ++i) p.o[i] = bit_cast<float>(o.word[i]);
  return p;
}
__device__ __forceinline__ Bits<16> bits_of(const float (&o)[4]) {
  Bits<16> b;
#pragma unroll
  for (int32_t i = 0; i < 4; ++i) b.word[i] = bit_cast<uint32_t>(o[i]);
  return b;
}

// A warp's sums to shared memory. All warps are done with the stages.
template <Key K>
__device__ __forceinline__ void share_sums(const States<K>& states, const Outputs<K>& out) {
  constexpr SharedLayout kShared(K);
  const int32_t thread = fresh_thread(), lane = thread % 32, g = lane / 4, t = lane % 4;
  const int32_t first = thread / 32 * (K.warps_q == 1 ? tile_q(K) : K.m_tiles * 16);
  RowState* to_states = reinterpret_cast<RowState*>(dynamic_shared() + kShared.states);
  float* to = reinterpret_cast<float*>(dynamic_shared() + kShared.stages);
#pragma unroll
  for (int32_t m = 0; m < K.m_tiles; ++m)
#pragma unroll
    for (int32_t half = 0; half < 2; ++half) {
      const int32_t row = first + m * 16 + half * 8 + g;
      float d = states.d[m][half];
      d += shuffle_xor(d, 1);
      d += shuffle_xor(d, 2);
      if (t == 0) to_states[row] = {states.m[m][half], d};
      float* o = to + row * kShared.output_pitch;
#pragma unroll
      for (int32_t n = 0; n < Outputs<K>::kTiles; n += 2)
#pragma unroll
        for (int32_t i = 0; i < 4; ++i) {  // element 2t + i % 2 of tile n + i / 2
          const int32_t column = kNarrow<K> ? n * 8 + 4 * t + i % 2 * 2 + i / 2 : (n + i / 2) * 8 + 2 * t + i % 2;
          o[column] = out.o[m][n + i / 2][half * 2 + i % 2];
        }
    }
}

// Of a row, over the groups in the order of their keys' tiles.
template <Key K, class Variant>
__device__ __forceinline__ Piece shared_sum(int32_t row, int32_t column) {
  constexpr SharedLayout kShared(K);
  const RowState* states = reinterpret_cast<const RowState*>(dynamic_shared() + kShared.states);
  const uint32_t from = shared_address(dynamic_shared() + kShared.stages);
  Piece sum;
#pragma unroll
  for (int32_t group = 0; group < num_groups(K); ++group) {
    const int32_t at = group * tile_q(K) + row;
    add<Variant>(sum, piece_of(states[at], load_shared<16>(from + uint32_t((at * kShared.output_pitch + column) * 4))));
  }
  return sum;
}

// f(row, column) for every piece of the item's rows; a thread always gets the same ones.
template <Key K, class F>
__device__ __forceinline__ void for_pieces(int32_t num_rows, F f) {
  constexpr int32_t kPieces = K.d_vo / 4;
#pragma unroll 1
  for (int32_t i = fresh_thread(); i < num_rows * kPieces; i += kWarps * 32) f(i / kPieces, i % kPieces * 4);
}

template <class T>
__device__ __forceinline__ void store_piece(void* to, const float (&o)[4], bool aligned) {
  if (aligned) return store_stream<4 * int32_t(sizeof(T))>(to, pack<T, 4>(o));
#pragma unroll
  for (int32_t i = 0; i < 4; ++i) static_cast<T*>(to)[i] = narrow<T>(o[i]);
}

// Sink, normalisation, out and lse.
template <class Variant>
__device__ __forceinline__ void write_piece(const ParamsOf<Variant>& p, const Item& item, int32_t row, int32_t column,
                                            Piece& sum) {
  const int32_t packed = item.plan.row_begin + row, qo_idx = p.group.quotient(packed);
  const int32_t head = item.plan.kv_head * p.group.divisor + packed - qo_idx * p.group.divisor;
  const int64_t token = item.request.qo_begin + qo_idx;
  float scale = p.v_scale;
  [[maybe_unused]] const attention::Row who{item.plan.request_idx, qo_idx,          head, item.plan.kv_head,
                                            item.request.qo_len,   item.request.kv_len};
  if constexpr (Variant::kFinishes) {
    const float keep = p.variant.update(who, sum.state.m, sum.state.d);
#pragma unroll
    for (int32_t i = 0; i < 4; ++i) sum.o[i] = p.variant.finish(who, sum.o[i], sum.state.m, sum.state.d, keep);
  } else if constexpr (Variant::kSoftmax) {
    if (p.variant.has_sink()) {
      scale *= sum.state.merge({p.variant.sink(who) * math::kLog2e, 1}).keep;
    }
    scale = sum.state.d > 0 ? scale * reciprocal(sum.state.d) : 0;
  }
  if (column < p.d_vo) {
#pragma unroll
    for (int32_t i = 0; i < 4; ++i) sum.o[i] *= scale;
    const int64_t at = token * p.out_token + head * p.out_head + column;
    if (p.out_dtype == DType::kBF16)
      store_piece<bf16>(static_cast<bf16*>(p.out) + at, sum.o, p.out_in_fours);
    else if (p.out_dtype == DType::kF16)
      store_piece<f16>(static_cast<f16*>(p.out) + at, sum.o, p.out_in_fours);
    else
      store_piece<float>(static_cast<float*>(p.out) + at, sum.o, p.out_in_fours);
  }
  if (column == 0 && p.lse != nullptr)
    p.lse[token * p.lse_token + head * p.lse_head] = sum.state.lse_log2() * p.lse_scale;
}

// A slot holds the sums of a tile's rows.
template <Key K>
struct Slot {
  float* o;
  RowState* states;
  __device__ __forceinline__ Slot(char* workspace, int64_t outputs, int64_t row_states, int32_t index)
      : o(reinterpret_cast<float*>(workspace + outputs) + int64_t(index) * tile_q(K) * K.d_vo),
        states(reinterpret_cast<RowState*>(workspace + row_states) + int64_t(index) * tile_q(K)) {}
  __device__ __forceinline__ Piece get(int32_t row, int32_t column) const {
    return piece_of(bit_cast<RowState>(load_coherent_8(states + row)), load_coherent_16(o + row * K.d_vo + column));
  }
  __device__ __forceinline__ void put(int32_t row, int32_t column, const Piece& sum) const {
    store_stream<16>(o + row * K.d_vo + column, bits_of(sum.o));
    if (column == 0) states[row] = {sum.state.m, sum.state.d};
  }
};

// The running total of an item that folds; the last of its splits is written. States are kept per piece, as only the
// thread that wrote one reads it.
template <Key K, class Variant>
__device__ __forceinline__ void fold(const ParamsOf<Variant>& p, const PlanOnDevice& plan, const Item& item, bool first,
                                     bool last) {
  constexpr int32_t kPieces = K.d_vo / 4;
  const Slot<K> total(p.workspace, plan.totals, 0, int32_t(blockIdx.x));
  RowState* states =
      reinterpret_cast<RowState*>(p.workspace + plan.total_states) + int64_t(blockIdx.x) * tile_q(K) * kPieces;
  for_pieces<K>(item.plan.num_rows, [&](int32_t row, int32_t column) {
    RowState& state = states[row * kPieces + column / 4];
    float* o = total.o + row * K.d_vo + column;
    Piece sum;
    if (!first) sum = piece_of(state, load_coherent_16(o));
    add<Variant>(sum, shared_sum<K, Variant>(row, column));
    if (last) return write_piece(p, item, row, column, sum);
    state = {sum.state.m, sum.state.d};
    store_stream<16>(o, bits_of(sum.o));
  });
}

// True in the CTA that is the last to arrive at its tile's merge.
__device__ __forceinline__ bool arrives_last(uint32_t* arrivals, int32_t expected) {
  uint32_t* flag = &reinterpret_cast<Control*>(dynamic_shared())->is_last;
  sync_cta();
  if (fresh_thread() == 0) {  // what the others wrote before the barrier is part of what its fence releases
    fence_device();
    *flag = fetch_add(arrivals, 1) + 1 == uint32_t(expected) ? 1 : 0;
    if (*flag != 0) *arrivals = 0;  // for the next launch
    fence_device();
  }
  sync_cta();
  return *flag != 0;
}

// All slots of a tile in the order of their keys, a batch of them on its way at a time.
template <Key K, class Variant>
__device__ __forceinline__ Piece merged_slots(const ParamsOf<Variant>& p, const PlanOnDevice& plan,
                                              const attention::PlanMerge& merge, int32_t kv_head, int32_t row,
                                              int32_t column) {
  constexpr int32_t kBatch = 8;
  Piece sum;
#pragma unroll 1
  for (int32_t first = 0; first < merge.num_slots; first += kBatch) {
    Piece part[kBatch];
#pragma unroll
    for (int32_t i = 0; i < kBatch; ++i) {
      const int32_t slot =
          kv_head * p.slots_per_head + merge.slot_begin + (first + i < merge.num_slots ? first + i : 0);
      part[i] = Slot<K>(p.workspace, plan.slot_outputs, plan.slot_states, slot).get(row, column);
    }
#pragma unroll
    for (int32_t i = 0; i < kBatch; ++i)
      if (first + i < merge.num_slots) add<Variant>(sum, part[i]);
  }
  return sum;
}

template <Key K, class Variant>
__device__ __forceinline__ void finish(const ParamsOf<Variant>& p, const PlanOnDevice& plan, const Item& item) {
  if (item.plan.slot < 0) {
    for_pieces<K>(item.plan.num_rows, [&](int32_t row, int32_t column) {
      Piece sum = shared_sum<K, Variant>(row, column);
      write_piece(p, item, row, column, sum);
    });
    return;
  }
  const int32_t kv_head = item.plan.kv_head;
  const Slot<K> mine(p.workspace, plan.slot_outputs, plan.slot_states, kv_head * p.slots_per_head + item.plan.slot);
  for_pieces<K>(item.plan.num_rows,
                [&](int32_t row, int32_t column) { mine.put(row, column, shared_sum<K, Variant>(row, column)); });
  const int32_t index = reinterpret_cast<const int32_t*>(p.workspace + plan.merge_of_slot)[item.plan.slot];
  const attention::PlanMerge merge = reinterpret_cast<const attention::PlanMerge*>(p.workspace + plan.merges)[index];
  uint32_t* arrivals = reinterpret_cast<uint32_t*>(p.workspace + plan.arrivals);
  if (!arrives_last(arrivals + kv_head * p.merges_per_head + index, merge.num_slots)) return;
  for_pieces<K>(item.plan.num_rows, [&](int32_t row, int32_t column) {
    Piece sum = merged_slots<K, Variant>(p, plan, merge, kv_head, row, column);
    write_piece(p, item, row, column, sum);
  });
}

}  // namespace fulmen::cuda::batch_attention
