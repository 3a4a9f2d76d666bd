// SPDX-License-Identifier: Apache-2.0
// The end of an item. The warps' sums meet in shared memory; then each thread has four elements of a row at a time and
//   writes them, normalised                        an item that has its tile for itself
//   folds them into a running total                an item that walks several splits (fixed_split_len)
//   leaves them in a slot                          an item whose tile others share; the last to arrive merges all slots
// Folding and merging are the same function in the same order, so that they give the same bits.
#pragma once
#include <fulmen/cuda/attention/rank_sums.cuh>
#include <fulmen/cuda/ptx/async_copy.cuh>
#include <fulmen/cuda/tile/row.cuh>

namespace fulmen::cuda::batch_attention {

template <class T>
__device__ __forceinline__ void store_piece(void* to, const float (&o)[4], bool aligned) {
  if (aligned) return store_stream<4 * int32_t(sizeof(T))>(to, pack<T, 4>(o));
#pragma unroll
  for (int32_t i = 0; i < 4; ++i) static_cast<T*>(to)[i] = narrow<T>(o[i]);
}

// Where a row of the item's tile belongs.
struct RowOut {
  int32_t qo_idx, head;
  int64_t token;
};
template <class Variant>
__device__ __forceinline__ RowOut row_out(const ParamsOf<Variant>& p, const Item& item, int32_t row) {
  const int32_t packed = item.plan.row_begin + row, qo_idx = p.group.quotient(packed);
  return {qo_idx, item.plan.kv_head * p.group.divisor + packed - qo_idx * p.group.divisor,
          int64_t(item.request.qo_begin) + qo_idx};
}
__device__ __forceinline__ attention::Row row_of(const Item& item, const RowOut& row) {
  return {item.plan.request_idx, row.qo_idx, row.head, item.plan.kv_head, item.request.qo_len, item.request.kv_len};
}
// The last word of a variant that has it.
template <class Variant>
__device__ __forceinline__ void finish_piece(const ParamsOf<Variant>& p, const Item& item, const RowOut& row,
                                             Piece& sum) {
  const attention::Row who = row_of(item, row);
  const float scale = p.variant.update(who, sum.state.m, sum.state.d);
#pragma unroll
  for (int32_t i = 0; i < 4; ++i) sum.o[i] = p.variant.finish(who, sum.o[i], sum.state.m, sum.state.d, scale);
}
// What a row's sums are multiplied with; its sink is taken into the state.
template <class Variant>
__device__ __forceinline__ float row_scale(const ParamsOf<Variant>& p, const Item& item, const RowOut& row,
                                           State& state, float scale) {
  if constexpr (Variant::kSoftmax) {
    if (p.variant.has_sink()) {
      const float sink = p.variant.sink(row_of(item, row));
      scale *= state.merge({sink * math::kLog2e, 1}).keep;
    }
    scale = state.d > 0 ? scale * reciprocal(state.d) : 0;
  }
  return scale;
}

// Four elements of what a level above left of a row, which has so many rows before it.
template <class Variant>
__device__ __forceinline__ Piece piece_above(const ParamsOf<Variant>& p, int32_t level, int64_t row, int32_t column) {
  const auto& above = p.variant.above;
  const float lse = bit_cast<float>(load_coherent_4(above.lse + level * above.lse_level + row));
  Bits<16> o{};
  if (column < p.d_vo) o = load_coherent_16(above.out + level * above.out_level + row * p.d_vo + column);
  return piece_of({lse, 1}, o);
}

// Of a thread's first piece, what the first level above left: asked for while keys are on their way.
template <Key K, class Variant>
struct FirstAbove {
  static constexpr bool kAsks = kOfCascade<Variant> && K.warps_q == 1 && K.m_tiles == 1;
  Piece piece;
  int32_t index = -1;  // none

  __device__ __forceinline__ void ask(const ParamsOf<Variant>& p, const Item& item, int32_t num_above) {
    if (!kAsks || num_above == 0 || item.plan.slot >= 0) return;
    constexpr int32_t kPieces = K.d_vo / 4;
    const int32_t all = item.plan.num_rows * kPieces, shift = last_bit(ctas_per_worker<K>());
    const int32_t share = (all + (1 << shift) - 1) >> shift;  // of a CTA of a cluster
    const int32_t begin = shift > 0 ? int32_t(cluster_rank()) * share : 0, i = begin + fresh_thread();
    if (i >= all || i >= begin + share) return;
    const RowOut to = row_out(p, item, i / kPieces);
    if constexpr (kAsks) piece = piece_above(p, 0, to.token * p.variant.above.num_heads + to.head, i % kPieces * 4);
    index = i;
  }
};

// What a cascade's levels above left of the row, normalised and with their scales, joins its sum. Returns the scale
// that is left for the values. first: of the first level, where it is known.
template <class Variant>
__device__ __forceinline__ float take_above(const ParamsOf<Variant>& p, const RowOut& row, int32_t column, Piece& sum,
                                            const Piece& first, bool is_known) {
  const int32_t num = reinterpret_cast<const Control*>(dynamic_shared())->num_above;
  if (num == 0) return p.v_scale;
#pragma unroll
  for (int32_t i = 0; i < 4; ++i) sum.o[i] *= p.v_scale;
  const auto take = [&](Piece piece) {
    if (piece.state.m == -attention::kInfinity) return;
    piece.state.m *= p.variant.above.to_log2;
    add<Variant>(sum, piece);
  };
  if (is_known) take(first);
#pragma unroll 1
  for (int32_t level = is_known ? 1 : 0; level < num; ++level)
    take(piece_above(p, level, row.token * p.variant.above.num_heads + row.head, column));
  return 1;
}

// Levels above, sink, normalisation, out and lse.
template <class Variant>
__device__ __forceinline__ void write_piece(const ParamsOf<Variant>& p, const Item& item, int32_t row, int32_t column,
                                            Piece& sum, const Piece& above = {}, bool is_known = false) {
  const RowOut to = row_out(p, item, row);
  float scale = p.v_scale;
  if constexpr (kOfCascade<Variant>) scale = take_above(p, to, column, sum, above, is_known);
  if constexpr (!Variant::kFinishes) scale = row_scale(p, item, to, sum.state, scale);
  if constexpr (Variant::kFinishes) finish_piece(p, item, to, sum);
  if (column < p.d_vo) {
#pragma unroll
    for (int32_t i = 0; i < 4; ++i) sum.o[i] *= scale;
    const int64_t at = to.token * p.out_token + to.head * p.out_head + column;
    if (p.out_dtype == DType::kBF16)
      store_piece<bf16>(static_cast<bf16*>(p.out) + at, sum.o, p.out_in_fours);
    else if (p.out_dtype == DType::kF16)
      store_piece<f16>(static_cast<f16*>(p.out) + at, sum.o, p.out_in_fours);
    else
      store_piece<float>(static_cast<float*>(p.out) + at, sum.o, p.out_in_fours);
  }
  if (column == 0 && p.lse != nullptr)
    p.lse[to.token * p.lse_token + to.head * p.lse_head] = sum.state.lse_log2() * p.lse_scale;
}

// A slot holds the sums of a tile's rows. index: among the slots of its kv head.
template <Key K>
struct Slot {
  float* o;
  RowState* states;
  __device__ __forceinline__ Slot(char* workspace, int64_t outputs, int64_t row_states, int64_t first_row)
      : o(reinterpret_cast<float*>(workspace + outputs) + first_row * K.d_vo),
        states(reinterpret_cast<RowState*>(workspace + row_states) + first_row) {}
  __device__ __forceinline__ Slot(char* workspace, const PlanOnDevice& plan, int32_t kv_head, int32_t index)
      : Slot(workspace, plan.slot_outputs, plan.slot_states,
             (int64_t(kv_head) * plan.slots_per_head + index) * plan.slot_rows) {}
  __device__ __forceinline__ float* piece(int32_t row, int32_t column) const { return o + row * K.d_vo + column; }
  __device__ __forceinline__ void put(int32_t row, int32_t column, const Piece& sum) const {
    store_stream<16>(piece(row, column), bits_of(sum.o));
    if (column == 0) states[row] = {sum.state.m, sum.state.d};
  }
};

// The running total of an item that folds, its columns from `begin` on; the last of its splits is written. States are
// kept per piece, as only the thread that wrote one reads it.
template <Key K, class Variant>
__device__ __forceinline__ void fold(const ParamsOf<Variant>& p, const PlanOnDevice& plan, const Item& item,
                                     int32_t begin, bool first, bool last) {
  constexpr int32_t kPieces = K.d_vo / 4;
  const Slot<K> total(p.workspace, plan.totals, 0, int64_t(blockIdx.x) * tile_q(K));
  RowState* states =
      reinterpret_cast<RowState*>(p.workspace + plan.total_states) + int64_t(blockIdx.x) * tile_q(K) * kPieces;
  for_pieces<K>(item.plan.num_rows, begin, [&](int32_t row, int32_t column) {
    RowState& state = states[row * kPieces + column / 4];
    float* o = total.piece(row, column);
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
  // What the others wrote before the barrier is part of what is released here. The last one leaves 0 behind.
  if (fresh_thread() == 0) *flag = count_arrival(arrivals, uint32_t(expected - 1)) + 1 == uint32_t(expected) ? 1 : 0;
  sync_cta();
  return *flag != 0;
}

// Piece i of the rows that lie at `room`, of all slots. Decode tiles never fold: theirs need not have the same bits.
template <Key K, class Variant>
__device__ __forceinline__ void add_slots(Piece& sum, uint32_t room, int32_t i, int32_t rows, int32_t slots) {
  constexpr int32_t kPieces = K.d_vo / 4;
  constexpr uint32_t kPitch = (kPieces + 1) * 16;
  const uint32_t first = room + uint32_t(i / kPieces) * kPitch, step = uint32_t(rows) * kPitch;
  const auto state = [&](int32_t k) {
    return bit_cast<RowState>(load_shared<8>(first + uint32_t(k) * step + kPieces * 16));
  };
  const auto piece = [&](int32_t k) {
    return piece_of(state(k), load_shared<16>(first + uint32_t(k) * step + uint32_t(i % kPieces * 16)));
  };
  if constexpr (K.warps_q == 1 && Variant::kSoftmax) {
    float top = sum.state.d > 0 ? sum.state.m : kLowest;
#pragma unroll 4
    for (int32_t k = 0; k < slots; ++k) top = fmaxf(top, state(k).m);
    const float keep = sum.state.d > 0 ? math::exp2(sum.state.m - top) : 0;
    sum.state.m = top, sum.state.d *= keep;
#pragma unroll
    for (int32_t n = 0; n < 4; ++n) sum.o[n] *= keep;
#pragma unroll 4
    for (int32_t k = 0; k < slots; ++k) {
      const Piece next = piece(k);
      const float weight = math::exp2(next.state.m - top);
      sum.state.d = fmaf(weight, next.state.d, sum.state.d);
#pragma unroll
      for (int32_t n = 0; n < 4; ++n) sum.o[n] = fmaf(weight, next.o[n], sum.o[n]);
    }
  } else {
#pragma unroll 4
    for (int32_t k = 0; k < slots; ++k) add<Variant>(sum, piece(k));
  }
}

// All slots of a tile in the order of their keys, by way of the shared memory of the stages: as many rows of all slots
// as fit are on their way at a time; one row of some slots, if not even one row of all fits.
template <Key K, class Variant>
__device__ __forceinline__ void merge_slots(const ParamsOf<Variant>& p, const PlanOnDevice& plan, const Item& item,
                                            const attention::PlanMerge& merge) {
  constexpr SharedLayout kShared(K);
  constexpr int32_t kPieces = K.d_vo / 4, kChunks = kPieces + 1;  // of 16 bytes; the last is the state
  constexpr int32_t kRoom = (kShared.bytes - kShared.stages) / (kChunks * 16), kThreads = num_threads(K);
  static_assert(kPieces <= kThreads && kRoom > 0);
  const uint32_t room = shared_address(dynamic_shared() + kShared.stages);
  const int32_t num_rows = item.plan.num_rows, num_slots = merge.num_slots;
  const int32_t fit = kRoom / num_slots < num_rows ? kRoom / num_slots : num_rows, step = fit > 0 ? fit : 1;
  const int32_t slot_step = fit > 0 ? num_slots : kRoom;
  const Slot<K> slot(p.workspace, plan, item.plan.kv_head, merge.slot_begin);  // the first; others follow
  const int32_t slot_rows = plan.slot_rows;
#pragma unroll 1
  for (int32_t row = 0; row < num_rows; row += step) {
    const int32_t rows = num_rows - row < step ? num_rows - row : step;
    Piece sum;
#pragma unroll 1
    for (int32_t first = 0; first < num_slots; first += slot_step) {
      const int32_t slots = num_slots - first < slot_step ? num_slots - first : slot_step;
      // Few pieces: each warp, or each half of the CTA, has slots of its own.
      const int32_t pieces = rows * kPieces, shift = pieces <= 32 ? 5 : pieces <= 64 ? 6 : 7, thread = fresh_thread();
      const int64_t slot_bytes = int64_t(slot_rows) * K.d_vo * 4;
      const char* from = reinterpret_cast<const char*>(slot.piece(row, 0)) + (first + (thread >> shift)) * slot_bytes;
#pragma unroll 1
      for (int32_t k = thread >> shift; k < slots; k += kThreads >> shift, from += slot_bytes * (kThreads >> shift))
#pragma unroll 2
        for (int32_t i = thread & ((1 << shift) - 1); i < pieces; i += 1 << shift)
          copy_async_16(room + uint32_t((k * rows + i / kPieces) * kChunks * 16 + i % kPieces * 16), from + i * 16,
                        true);
      commit_copies();
#pragma unroll 1
      for (int32_t i = thread; i < slots * rows; i += kThreads) {  // a thread each: all are on their way at once
        const int32_t k = int32_t(uint32_t(i) / uint32_t(rows));
        const RowState* state = slot.states + int64_t(first + k) * slot_rows + row + i - k * rows;
        store_shared<8>(room + uint32_t((i * kChunks + kPieces) * 16), load_coherent_8(state));
      }
      wait_copies<0>();
      sync_cta();
#pragma unroll 1
      for (int32_t i = fresh_thread(); i < rows * kPieces; i += kThreads) {
        if (first == 0) sum = {};  // else there is one row, and this thread's only piece of it
        add_slots<K, Variant>(sum, room, i, rows, slots);
        if (first + slots == num_slots) write_piece(p, item, row + i / kPieces, i % kPieces * 4, sum);
      }
      sync_cta();
    }
  }
}

// f(row, column, sum) for every piece of the item's rows, from column `begin` on; in a cluster for this CTA's share.
template <Key K, class Variant, class F>
__device__ __forceinline__ void for_sums(int32_t num_rows, int32_t begin, F f) {
  if (ctas_per_worker<K>() > 1) return for_rank_sums<K, Variant>(num_rows, f);
  for_pieces<K>(num_rows, begin, [&](int32_t row, int32_t column) {
    Piece sum = shared_sum<K, Variant>(row, column);
    f(row, column, sum);
  });
}

// Of an item that does not fold, the columns from `begin` on; after the last of a slot the merge of its tile, if all
// the other slots are full.
template <Key K, class Variant>
__device__ __forceinline__ void finish(const ParamsOf<Variant>& p, const PlanOnDevice& plan, const Control& control,
                                       const Item& item, int32_t begin, const FirstAbove<K, Variant>& above) {
  if (item.plan.slot < 0)
    return for_sums<K, Variant>(item.plan.num_rows, begin, [&](int32_t row, int32_t column, Piece& sum) {
      const bool is_known = FirstAbove<K, Variant>::kAsks && row * (K.d_vo / 4) + column / 4 == above.index;
      write_piece(p, item, row, column, sum, above.piece, is_known);
    });
  const int32_t kv_head = item.plan.kv_head;
  const Slot<K> mine(p.workspace, plan, kv_head, item.plan.slot);
  for_sums<K, Variant>(item.plan.num_rows, begin,
                       [&](int32_t row, int32_t column, const Piece& sum) { mine.put(row, column, sum); });
  if (begin < kLastColumns<K>) return;
  const attention::PlanMerge merge = control.merge;
  uint32_t* arrivals = reinterpret_cast<uint32_t*>(p.workspace + plan.arrivals);
  const int32_t expected = merge.num_slots * int32_t(ctas_per_worker<K>());
  if (!arrives_last(arrivals + kv_head * p.merges_per_head + control.merge_index, expected)) return;
  merge_slots<K>(p, plan, item, merge);
}

}  // namespace fulmen::cuda::batch_attention
