// SPDX-License-Identifier: Apache-2.0
// CPU rope. A work item is one token: its angles once, then every head of q and k. Called by src/cpu/levels/rope.cc.
#pragma once
#include <fulmen/cpu/for_dtype.h>
#include <fulmen/cpu/index_checks.h>
#include <fulmen/cpu/rope_angles.h>
#include <fulmen/cpu/simd.h>

#include <cstring>

namespace fulmen::cpu {

// Every position must be a row of cos_sin_cache.
inline void check_pos_ids(std::string_view op, const TensorView& pos_ids, const TensorView& cos_sin_cache) {
  if (!cos_sin_cache.defined()) return;
  const int64_t max_position = cos_sin_cache.shape[0];
  const Ids positions(pos_ids);
  for (int64_t t = 0; t < pos_ids.shape[0]; ++t)
    if (positions[t] < 0 || positions[t] >= max_position)
      fail_at(op, "pos_ids", t, positions[t],
              "0 to " + std::to_string(max_position - 1) + ", the rows of cos_sin_cache");
}

inline void check_rope_positions(const RopeArgs& a, const RopeDims& d) {
  if (a.indptr.defined()) check_indptr("rope", "indptr", a.indptr, d.nnz);
  if (a.pos_ids.defined()) return check_pos_ids("rope", a.pos_ids, a.cos_sin_cache);
  if (!a.cos_sin_cache.defined()) return;
  const std::string expected = "0 to " + std::to_string(d.max_position - 1) + ", the rows of cos_sin_cache";
  const Ids indptr(a.indptr), offsets(a.offsets);
  for (int64_t b = 0; b < d.batch_size; ++b) {
    const int64_t len = indptr[b + 1] - indptr[b];
    if (len > 0 && (offsets[b] < 0 || offsets[b] > d.max_position - len))
      fail_at("rope", "offsets", b, offsets[b], "positions of " + std::to_string(len) + " tokens in " + expected);
  }
}

// Positions of tokens visited in order.
class RopePositions {
 public:
  RopePositions(const RopeArgs& a, const RopeDims& d)
      : by_id_(a.pos_ids.defined()),
        ids_(by_id_ ? a.pos_ids : a.offsets),
        indptr_(a.indptr),
        batch_size_(d.batch_size) {}
  // False: no request owns token t.
  bool find(int64_t t, int64_t* position) const {
    if (by_id_) return *position = ids_[t], true;
    if (batch_size_ == 0 || t < indptr_[0] || t >= indptr_[batch_size_]) return false;
    const int64_t b = request_of(indptr_, batch_size_, t);
    *position = ids_[b] + (t - indptr_[b]);
    return true;
  }

 private:
  bool by_id_;
  Ids ids_, indptr_;
  int64_t batch_size_;
};

}  // namespace fulmen::cpu

FULMEN_CPU_BEGIN

struct RopeTable {  // of one token, padded to whole registers
  float cos[kMaxRotaryDim + kLanes], sin[kMaxRotaryDim + kLanes];
};

// For interleaved pairs every cos stands twice, and the sines alternate in sign.
inline void interleave_table(RopeTable* table, int64_t num_pairs) {
  for (int64_t i = num_pairs; i-- > 0;) {
    const float c = table->cos[i], s = table->sin[i];
    table->cos[2 * i] = table->cos[2 * i + 1] = c;
    table->sin[2 * i] = -s, table->sin[2 * i + 1] = s;
  }
}

// Pairs (x_i, x_{i+half}); out may be x.
template <class T, class O>
void rotate_halves(const T* x, O* out, const RopeTable& t, int64_t half) {
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const F32 a = load(x + i), b = load(x + half + i), c = load(t.cos + i), s = load(t.sin + i);
    store(out + i, a * c - b * s);
    store(out + half + i, fma(b, c, a * s));
  }
  if (const int32_t left = int32_t(half - i); left > 0) {
    const F32 a = load_n(x + i, left), b = load_n(x + half + i, left), c = load(t.cos + i), s = load(t.sin + i);
    store_n(out + i, a * c - b * s, left);
    store_n(out + half + i, fma(b, c, a * s), left);
  }
}

// Pairs (x_2i, x_2i+1); out may be x. Registers hold whole pairs, because rotary_dim is even.
template <class T, class O>
void rotate_pairs(const T* x, O* out, const RopeTable& t, int64_t rotary_dim) {
  int64_t i = 0;
  for (; i + kLanes <= rotary_dim; i += kLanes) {
    const F32 a = load(x + i);
    store(out + i, fma(swap_pairs(a), load(t.sin + i), a * load(t.cos + i)));
  }
  if (const int32_t left = int32_t(rotary_dim - i); left > 0) {
    const F32 a = load_n(x + i, left);
    store_n(out + i, fma(swap_pairs(a), load(t.sin + i), a * load(t.cos + i)), left);
  }
}

// The angles of one token.
inline void fill_rope_table(const RopeArgs& a, const uint64_t* turns, int64_t position, int64_t num_pairs,
                            RopeTable* table) {
  if (!a.cos_sin_cache.defined()) return rope_angles(position, turns, num_pairs, table->cos, table->sin);
  for_dtype<float, f16, bf16>(a.cos_sin_cache.dtype, [&]<class C>(C) {
    const C* row = a.cos_sin_cache.as<const C>() + position * a.cos_sin_cache.strides[0];
    for (int64_t i = 0; i < num_pairs; i += kLanes) {
      const int32_t left = int32_t(num_pairs - i < kLanes ? num_pairs - i : kLanes);
      store(table->cos + i, load_n(row + i, left));
      store(table->sin + i, load_n(row + num_pairs + i, left));
    }
  });
}

template <class T>
void rotate_heads(const TensorView& in, const TensorView& out, int64_t token, const RopeTable& table, const RopeArgs& a,
                  const RopeDims& d) {
  const T* x = in.as<const T>() + token * in.strides[0];
  T* y = out.as<T>() + token * out.strides[0];
  const size_t rest = size_t(d.head_dim - d.rotary_dim) * sizeof(T);
  for (int64_t head = 0; head < in.shape[1]; ++head, x += in.strides[1], y += out.strides[1]) {
    if (a.interleave)
      rotate_pairs(x, y, table, d.rotary_dim);
    else
      rotate_halves(x, y, table, d.rotary_dim / 2);
    if (rest > 0 && x != y) std::memcpy(y + d.rotary_dim, x + d.rotary_dim, rest);
  }
}

template <class T>
void rope_tokens(const RopeArgs& a, const RopeDims& d, const Executor& executor) {
  check_rope_positions(a, d);
  uint64_t turns[kMaxRotaryDim / 2];
  const int64_t num_pairs = d.rotary_dim / 2;
  if (!a.cos_sin_cache.defined()) rope_frequencies(a, d.rotary_dim, turns);
  const RopePositions positions(a, d);
  const int64_t elements = (d.num_qo_heads + d.num_kv_heads) * d.head_dim;
  parallel_chunks(executor, d.nnz, 1 + 4096 / (elements + 1), [&](int64_t begin, int64_t end, int32_t) {
    RopeTable table;
    for (int64_t t = begin; t < end; ++t) {
      int64_t position = 0;
      if (!positions.find(t, &position)) continue;
      fill_rope_table(a, turns, position, num_pairs, &table);
      if (a.interleave) interleave_table(&table, num_pairs);
      rotate_heads<T>(a.q, a.q_out, t, table, a, d);
      if (a.k.defined()) rotate_heads<T>(a.k, a.k_out, t, table, a, d);
    }
  });
}

inline void rope(const RopeArgs& a, const RopeDims& d, const Executor& executor) {
  for_dtype<float, f16, bf16>(a.q.dtype, [&]<class T>(T) { rope_tokens<T>(a, d, executor); });
}

FULMEN_CPU_END
