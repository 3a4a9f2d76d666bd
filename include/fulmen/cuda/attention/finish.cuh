// SPDX-License-Identifier: Apache-2.0
// The end of an item. The warps' sums meet in shared memory; then each thread has four elements of a row at a time and
//   writes them, normalised                        an item that has its tile for itself
//   folds them into a running total                an item that walks several splits (fixed_split_len)
//   leaves them in a slot                          an item whose tile others share; the last to arrive merges all slots
// Folding and merging are the same function in the same order, so that they give the same bits.
#pragma once
#include <fulmen/attention/state.h>
#include <fulmen/cuda/attention/softmax.cuh>
#include <fulmen/cuda/ptx/async_copy.cuh>
#include <fulmen/cuda/ptx/cluster.cuh>
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

// Workers take items of the plan: CTAs, or clusters, whose CTAs share the keys of each item.
template <Key K>
__device__ __forceinline__ uint32_t ctas_per_worker() {
  if constexpr (K.warps_q > 1) return 1;
  return cluster_size();
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

// Of a row, over the warps that have sums of it, in the order of their keys' tiles.
template <Key K, class Variant>
__device__ __forceinline__ Piece shared_sum(int32_t row, int32_t column) {
  constexpr SharedLayout kShared(K);
  const RowState* states = reinterpret_cast<const RowState*>(dynamic_shared() + kShared.states);
  const uint32_t from = shared_address(dynamic_shared() + kShared.stages);
  Piece sum;
  constexpr int32_t kRows = K.m_tiles * 16;
  const int32_t num = K.warps_q == 1 ? kWarps : reinterpret_cast<const Control*>(dynamic_shared())->spread;
#pragma unroll(K.warps_q == 1 ? kWarps : 1)
  for (int32_t warp = 0; warp < num; ++warp) {
    const int32_t at = warp * kRows + row;
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
                                           State& state) {
  float scale = p.v_scale;
  if constexpr (Variant::kSoftmax) {
    if (p.variant.has_sink()) {
      const float sink = p.variant.sink(row_of(item, row));
      scale *= state.merge({sink * math::kLog2e, 1}).keep;
    }
    scale = state.d > 0 ? scale * reciprocal(state.d) : 0;
  }
  return scale;
}

// Sink, normalisation, out and lse.
template <class Variant>
__device__ __forceinline__ void write_piece(const ParamsOf<Variant>& p, const Item& item, int32_t row, int32_t column,
                                            Piece& sum) {
  const RowOut to = row_out(p, item, row);
  const float scale = Variant::kFinishes ? p.v_scale : row_scale(p, item, to, sum.state);
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

// The running total of an item that folds; the last of its splits is written. States are kept per piece, as only the
// thread that wrote one reads it.
template <Key K, class Variant>
__device__ __forceinline__ void fold(const ParamsOf<Variant>& p, const PlanOnDevice& plan, const Item& item, bool first,
                                     bool last) {
  constexpr int32_t kPieces = K.d_vo / 4;
  const Slot<K> total(p.workspace, plan.totals, 0, int64_t(blockIdx.x) * tile_q(K));
  RowState* states =
      reinterpret_cast<RowState*>(p.workspace + plan.total_states) + int64_t(blockIdx.x) * tile_q(K) * kPieces;
  for_pieces<K>(item.plan.num_rows, [&](int32_t row, int32_t column) {
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

// All slots of a tile in the order of their keys, by way of the shared memory of the stages: as many rows of all slots
// as fit are on their way at a time; one row of some slots, if not even one row of all fits.
template <Key K, class Variant>
__device__ __forceinline__ void merge_slots(const ParamsOf<Variant>& p, const PlanOnDevice& plan, const Item& item,
                                            const attention::PlanMerge& merge) {
  constexpr SharedLayout kShared(K);
  constexpr int32_t kPieces = K.d_vo / 4, kChunks = kPieces + 1;  // of 16 bytes; the last is the state
  constexpr int32_t kRoom = (kShared.bytes - kShared.stages) / (kChunks * 16), kThreads = kWarps * 32;
  static_assert(kPieces <= kThreads && kRoom > 0);
  const uint32_t room = shared_address(dynamic_shared() + kShared.stages);
  const int32_t num_rows = item.plan.num_rows, num_slots = merge.num_slots;
  const int32_t fit = kRoom / num_slots < num_rows ? kRoom / num_slots : num_rows, step = fit > 0 ? fit : 1;
  const int32_t slot_step = fit > 0 ? num_slots : kRoom;
#pragma unroll 1
  for (int32_t row = 0; row < num_rows; row += step) {
    const int32_t rows = num_rows - row < step ? num_rows - row : step;
    Piece sum;
#pragma unroll 1
    for (int32_t first = 0; first < num_slots; first += slot_step) {
      const int32_t slots = num_slots - first < slot_step ? num_slots - first : slot_step;
      // A slot's rows follow one another. Few pieces: each warp, or each half of the CTA, has slots of its own.
      const int32_t pieces = rows * kPieces, groups = pieces <= 32 ? 4 : pieces <= 64 ? 2 : 1, size = kThreads / groups;
#pragma unroll 1
      for (int32_t k = fresh_thread() / size; k < slots; k += groups) {
        const Slot<K> slot(p.workspace, plan, item.plan.kv_head, merge.slot_begin + first + k);
        const char* from = reinterpret_cast<const char*>(slot.piece(row, 0));
#pragma unroll 2
        for (int32_t i = fresh_thread() % size; i < pieces; i += size)
          copy_async_16(room + uint32_t((k * rows + i / kPieces) * kChunks * 16 + i % kPieces * 16), from + i * 16,
                        true);
      }
      commit_copies();
#pragma unroll 1
      for (int32_t i = fresh_thread(); i < slots * rows;
           i += kThreads) {  // a thread each: all are on their way at once
        const int32_t k = int32_t(uint32_t(i) / uint32_t(rows));
        const Slot<K> slot(p.workspace, plan, item.plan.kv_head, merge.slot_begin + first + k);
        store_shared<8>(room + uint32_t((i * kChunks + kPieces) * 16),
                        load_coherent_8(slot.states + row + i - k * rows));
      }
      wait_copies<0>();
      sync_cta();
#pragma unroll 1
      for (int32_t i = fresh_thread(); i < rows * kPieces; i += kThreads) {
        if (first == 0) sum = {};  // else there is one row, and this thread's only piece of it
#pragma unroll 4
        for (int32_t k = 0; k < slots; ++k) {
          const uint32_t from = room + uint32_t((k * rows + i / kPieces) * kChunks * 16);
          const RowState state = bit_cast<RowState>(load_shared<8>(from + kPieces * 16));
          add<Variant>(sum, piece_of(state, load_shared<16>(from + uint32_t(i % kPieces * 16))));
        }
        if (first + slots == num_slots) write_piece(p, item, row + i / kPieces, i % kPieces * 4, sum);
      }
      sync_cta();
    }
  }
}

// Sums of the CTAs of a cluster that share an item's keys, each of its part of them.
template <Key K>
struct RankSums {
  static constexpr int32_t kPieces = K.d_vo / 4;
  static constexpr SharedLayout kShared = SharedLayout(K);
  __device__ __forceinline__ static uint32_t* piece(int32_t i) {
    return reinterpret_cast<uint32_t*>(dynamic_shared() + kShared.sums + i * 16);
  }
  __device__ __forceinline__ static uint32_t* state(int32_t row) {
    return reinterpret_cast<uint32_t*>(dynamic_shared() + kShared.sums + tile_q(K) * K.d_vo * 4 + row * 8);
  }
  __device__ __forceinline__ static void put(int32_t row, int32_t column, const Piece& sum) {
    store_shared<16>(shared_address(piece(row * kPieces + column / 4)), bits_of(sum.o));
    const Bits<8> own{bit_cast<uint32_t>(sum.state.m), bit_cast<uint32_t>(sum.state.d)};
    if (column == 0) store_shared<8>(shared_address(state(row)), own);
  }
  // Of all ranks, in the order of their keys; eight are on their way at a time.
  template <class Variant>
  __device__ __forceinline__ static Piece total(int32_t i) {
    const uint32_t size = cluster_size();
    Piece sum;
#pragma unroll 1
    for (uint32_t first = 0; first < size; first += 8) {
      uint32_t o[8][4], s[8][2];
#pragma unroll
      for (uint32_t k = 0; k < 8; ++k) {
        const uint32_t rank = first + k < size ? first + k : first;
        load_remote_4(piece(i), rank, o[k]);
        load_remote_2(state(i / kPieces), rank, s[k]);
      }
#pragma unroll
      for (uint32_t k = 0; k < 8; ++k) {
        if (first + k >= size) break;
        add<Variant>(sum, piece_of({bit_cast<float>(s[k][0]), bit_cast<float>(s[k][1])},
                                   Bits<16>{o[k][0], o[k][1], o[k][2], o[k][3]}));
      }
    }
    return sum;
  }
};

// f(row, column, sum) for every piece of the item's rows; in a cluster for this CTA's share of them.
template <Key K, class Variant, class F>
__device__ __forceinline__ void for_sums(int32_t num_rows, F f) {
  if (ctas_per_worker<K>() == 1)
    return for_pieces<K>(num_rows, [&](int32_t row, int32_t column) {
      Piece sum = shared_sum<K, Variant>(row, column);
      f(row, column, sum);
    });
  using Sums = RankSums<K>;
  for_pieces<K>(num_rows,
                [&](int32_t row, int32_t column) { Sums::put(row, column, shared_sum<K, Variant>(row, column)); });
  sync_cluster();
  const int32_t all = num_rows * Sums::kPieces, shift = last_bit(cluster_size());
  const int32_t share = (all + (1 << shift) - 1) >> shift, begin = int32_t(cluster_rank()) * share;
  const int32_t end = begin + share < all ? begin + share : all;
#pragma unroll 1
  for (int32_t i = begin + fresh_thread(); i < end; i += kWarps * 32) {
    Piece sum = Sums::template total<Variant>(i);
    f(i / Sums::kPieces, i % Sums::kPieces * 4, sum);
  }
  sync_cluster();  // nobody leaves, or starts anew, before all have read
}

template <Key K, class Variant>
__device__ __forceinline__ void finish(const ParamsOf<Variant>& p, const PlanOnDevice& plan, const Control& control,
                                       const Item& item) {
  if (item.plan.slot < 0)
    return for_sums<K, Variant>(
        item.plan.num_rows, [&](int32_t row, int32_t column, Piece& sum) { write_piece(p, item, row, column, sum); });
  const int32_t kv_head = item.plan.kv_head;
  const Slot<K> mine(p.workspace, plan, kv_head, item.plan.slot);
  for_sums<K, Variant>(item.plan.num_rows,
                       [&](int32_t row, int32_t column, const Piece& sum) { mine.put(row, column, sum); });
  const attention::PlanMerge merge = control.merge;
  uint32_t* arrivals = reinterpret_cast<uint32_t*>(p.workspace + plan.arrivals);
  const int32_t expected = merge.num_slots * int32_t(ctas_per_worker<K>());
  if (!arrives_last(arrivals + kv_head * p.merges_per_head + control.merge_index, expected)) return;
  merge_slots<K>(p, plan, item, merge);
}

}  // namespace fulmen::cuda::batch_attention
