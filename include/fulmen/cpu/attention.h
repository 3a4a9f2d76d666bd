// SPDX-License-Identifier: Apache-2.0
// CPU attention: walks a plan's work list on an executor, one kernel for every entry point and every variant.
//
//   item:   pack Q rows of one (request, kv head) to f32 → attend_block over the item's keys → out and lse, or a slot
//   merge:  fold the slots of one tile in the order of their keys → out and lse
//
// Header-only users bring their own variant:
//   fulmen::cpu::FULMEN_CPU_NS::attention(args, dims, plan, variant, workspace, bytes, executor);
// Called by src/cpu/levels/attention.cc with AnyVariant: attention::Standard, or what a user gave as text.
#pragma once
#include <fulmen/attention/call.h>
#include <fulmen/core/carver.h>
#include <fulmen/cpu/attention/any_variant.h>
#include <fulmen/cpu/attention/block.h>
#include <fulmen/cpu/for_dtype.h>
#include <fulmen/cpu/simd.h>

#include <algorithm>
#include <cmath>

FULMEN_CPU_BEGIN

using attention::AttentionCall;
using attention::KvRange;
using attention::PlanItem;
using attention::PlanMerge;
using attention::PlanRequest;
using attention::PlanView;
using attention::Row;
using State = attention::State<float>;

// How this backend wants its work cut. tile_q: K and V are packed once per tile, so larger is faster until tiles are
// too few to go round; it must not depend on the threads where bits must not.
inline void configure(const AttentionArgs& args, int32_t num_workers, attention::PlanConfig& config) {
  config.num_workers = num_workers;
  config.tile_q = args.options.fixed_split_len > 0 || num_workers <= 8 ? 256 : 128;
  config.tile_kv = 64;
  config.min_split_len = 256;
  // A token's heads are neighbours in a token-major cache: decode reads them together.
  const TensorView& k = args.k;
  config.span_rows = kFewRows;
  config.span_heads = k.strides[k.rank - 2] < k.strides[k.rank - 3] ? int32_t(k.shape[k.rank - 2]) : 1;
  config.row_cost = 1;
  config.key_cost = 8;
}

// Partial results of some rows: states and, beside them, o [rows][o_stride].
struct Partial {
  State* state;
  float* o;
};

// The slices of the workspace. num_rows: of the largest item, over all its kv heads.
struct AttentionMemory {
  int64_t num_rows = 0, max_span = 1, max_tile = 0, q_stride, o_stride, block_bytes;
  float *q, *o;                // [worker][2?][num_rows][stride]; o twice, for folding
  Row* rows;                   // [worker][num_rows]
  State* state;                // [worker][2][num_rows]
  uint8_t* block;              // [worker][block_bytes]
  State* slot_state;           // [slot][num_rows]
  float* slot_o;               // [slot][num_rows][o_stride]
  float *rope_cos, *rope_sin;  // [max kv_len][head_dim_qk / 2]
  int64_t rope_len = 0;

  AttentionMemory(const AttentionArgs& args, const AttentionDims& dims, const PlanView& plan, int32_t num_workers,
                  Carver& c)
      : q_stride(padded_head_dim(int32_t(dims.head_dim_qk))), o_stride(padded_head_dim(int32_t(dims.head_dim_vo))) {
    for (const PlanItem& i : plan.items()) {
      num_rows = std::max(num_rows, int64_t(i.num_rows) * i.num_kv_heads);
      max_tile = std::max<int64_t>(max_tile, i.num_rows), max_span = std::max<int64_t>(max_span, i.num_kv_heads);
    }
    if (args.options.rope_theta > 0)
      for (const PlanRequest& r : plan.requests()) rope_len = std::max<int64_t>(rope_len, r.kv_len);
    block_bytes =
        block_scratch_bytes(int32_t(max_tile), int32_t(dims.head_dim_qk), int32_t(dims.head_dim_vo), int32_t(max_span));
    block_bytes = (block_bytes + Carver::kAlign - 1) / Carver::kAlign * Carver::kAlign;
    q = c.take<float>("queries", num_workers * num_rows * q_stride);
    o = c.take<float>("outputs", num_workers * 2 * num_rows * o_stride);
    rows = c.take<Row>("rows", num_workers * num_rows);
    state = c.take<State>("states", num_workers * 2 * num_rows);
    block = c.take<uint8_t>("kernel scratch", num_workers * block_bytes);
    slot_state = c.take<State>("partial states", plan.header.num_slots * num_rows);
    slot_o = c.take<float>("partial outputs", plan.header.num_slots * num_rows * o_stride);
    rope_cos = c.take<float>("cosines", rope_len * (dims.head_dim_qk / 2));
    rope_sin = c.take<float>("sines", rope_len * (dims.head_dim_qk / 2));
  }
  Partial worker(int64_t thread, int64_t which) const {
    const int64_t at = (thread * 2 + which) * num_rows;
    return {state + at, o + at * o_stride};
  }
  Partial slot(int64_t slot) const { return {slot_state + slot * num_rows, slot_o + slot * num_rows * o_stride}; }
};

inline int64_t attention_workspace_bytes(const AttentionArgs& args, const AttentionDims& dims, const PlanView& plan,
                                         int32_t num_workers) {
  Carver measure("batch_attention");
  AttentionMemory(args, dims, plan, num_workers, measure);
  return measure.bytes();
}

// dst[0..padded) = src[0..n), then zeros.
template <class T>
void widen_row(const T* src, int64_t n, float* dst, int64_t padded) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(dst + i, load(src + i));
  for (; i < padded; i += kLanes) store(dst + i, n > i ? load_n(src + i, int32_t(n - i)) : zeros());
}

// dst[0..n) = src[0..n) * scale.
template <class T>
void write_row(const float* src, float scale, T* dst, int64_t n) {
  const F32 s = splat(scale);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(dst + i, load(src + i) * s);
  if (i < n) store_n(dst + i, load_n(src + i, int32_t(n - i)) * s, int32_t(n - i));
}

// x rotated by `angles` of position 1 times `position`, halves split; in double, where a position of 10M loses nothing.
inline void rotate_query(float* x, int64_t head_dim, double position, const AttentionOptions& options) {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const double angle = position / double(options.rope_scale) *
                         std::pow(double(options.rope_theta), -2.0 * double(i) / double(head_dim));
    const float cos = float(std::cos(angle)), sin = float(std::sin(angle)), lo = x[i], hi = x[i + half];
    x[i] = lo * cos - hi * sin;
    x[i + half] = hi * cos + lo * sin;
  }
}

// Products of bf16 pairs instead of widened floats: exact where q has no more bits than bf16; the weights of V are then
// rounded to bf16, which semantics allow and the oracle's bound includes. AMD's cores run the instruction at full rate,
// twice the products of an f32 FMA; Intel's, as far as measured, at half of that, where widening is as fast.
inline bool pays_bf16_dot(const AttentionArgs& args) {
  const DType q = args.q.dtype;
  const bool exact = q == DType::kBF16 || q == DType::kE4M3 || q == DType::kE5M2;
  return kHasBf16Dot && exact && args.k.dtype == DType::kBF16 && args.options.rope_theta <= 0 && is_amd();
}

template <class Variant>
class AttentionRun {
 public:
  AttentionRun(const AttentionArgs& args, const AttentionDims& dims, const PlanView& plan, const Variant& variant,
               const AttentionMemory& memory)
      : args_(args),
        dims_(dims),
        plan_(plan),
        variant_(variant),
        memory_(memory),
        group_(plan.header.config.group_size()),
        use_bf16_dot_(pays_bf16_dot(args)) {}

  void fill_rope(const Executor& executor) const {
    const int64_t half = dims_.head_dim_qk / 2;
    const double d = double(dims_.head_dim_qk);
    parallel_chunks(executor, memory_.rope_len, 16, [&](int64_t begin, int64_t end, int32_t) {
      for (int64_t i = 0; i < half; ++i) {
        const double step =
            std::pow(double(args_.options.rope_theta), -2.0 * double(i) / d) / double(args_.options.rope_scale);
        for (int64_t t = begin; t < end; ++t) {
          memory_.rope_cos[t * half + i] = float(std::cos(double(t) * step));
          memory_.rope_sin[t * half + i] = float(std::sin(double(t) * step));
        }
      }
    });
  }

  template <class T>
  void run_item(const PlanItem& item, int64_t thread) const {
    pack_queries(item, thread);
    const bool direct = item.slot < 0;
    const Partial total = direct ? memory_.worker(thread, 0) : memory_.slot(item.slot);
    int32_t begin = item.kv_begin;
    for (bool first = true; first || begin < item.kv_end; first = false) {
      const int64_t next = item.split_len > 0 ? (int64_t(begin) / item.split_len + 1) * item.split_len : item.kv_end;
      const int32_t end = int32_t(std::min<int64_t>(next, item.kv_end));
      const Partial part = first ? total : memory_.worker(thread, 1);
      attend<T>(item, {begin, end}, thread, part);
      if (!first) fold(total, part, rows_of(item));
      begin = end;
    }
    if (direct) finish(item, memory_.rows + thread * memory_.num_rows, total);
  }

  void run_merge(const PlanMerge& merge, int64_t thread) const {
    const Partial total = memory_.slot(merge.slot_begin);
    for (int32_t s = 1; s < merge.num_slots; ++s) fold(total, memory_.slot(merge.slot_begin + s), rows_of(merge));
    Row* rows = memory_.rows + thread * memory_.num_rows;
    fill_rows(merge, rows);
    finish(merge, rows, total);
  }

 private:
  // Work: PlanItem or PlanMerge. Rows are [num_kv_heads][num_rows].
  template <class Work>
  static int32_t rows_of(const Work& work) {
    return work.num_kv_heads * work.num_rows;
  }
  template <class Work>
  void fill_rows(const Work& work, Row* rows) const {
    const PlanRequest& r = plan_.requests()[size_t(work.request_idx)];
    for (int32_t m = 0; m < rows_of(work); ++m) {
      const int32_t packed = work.row_begin + m % work.num_rows, kv_head = work.kv_head + m / work.num_rows;
      rows[m] = {work.request_idx, packed / group_, kv_head * group_ + packed % group_, kv_head, r.qo_len, r.kv_len};
    }
  }

  void pack_queries(const PlanItem& item, int64_t thread) const {
    Row* rows = memory_.rows + thread * memory_.num_rows;
    float* q = memory_.q + thread * memory_.num_rows * memory_.q_stride;
    fill_rows(item, rows);
    const int64_t first = plan_.requests()[size_t(item.request_idx)].qo_begin;
    for_dtype<float, f16, bf16, e4m3, e5m2>(args_.q.dtype, [&]<class T>(T) {
      for (int32_t m = 0; m < rows_of(item); ++m) {
        const T* src = args_.q.as<const T>() + (first + rows[m].qo_idx) * args_.q.strides[0] +
                       rows[m].qo_head * args_.q.strides[1];
        widen_row(src, dims_.head_dim_qk, q + m * memory_.q_stride, memory_.q_stride);
      }
    });
    if (args_.options.rope_theta <= 0) return;
    for (int32_t m = 0; m < rows_of(item); ++m)
      rotate_query(q + m * memory_.q_stride, dims_.head_dim_qk,
                   double(rows[m].kv_len) - rows[m].qo_len + rows[m].qo_idx, args_.options);
  }

  template <class T>
  KvRows<T> kv_rows(const TensorView& x, const PlanItem& item) const {
    const int64_t b = item.request_idx;
    const auto id = [b](const TensorView& t) {
      return t.dtype == DType::kI64 ? t.as<const int64_t>()[b] : t.as<const int32_t>()[b];
    };
    KvRows<T> rows;
    rows.base = x.as<const T>() + item.kv_head * x.strides[x.rank - 2];
    rows.stride_token = x.strides[x.rank - 3];
    rows.stride_head = x.strides[x.rank - 2];
    if (!dims_.paged()) {
      if (args_.kv_indptr.defined()) rows.base += id(args_.kv_indptr) * rows.stride_token;
      return rows;
    }
    const TensorView& table = args_.block_tables.defined() ? args_.block_tables : args_.kv_indices;
    const int64_t offset = args_.block_tables.defined() ? b * table.strides[0] : id(args_.kv_indptr);
    rows.stride_page = x.strides[0];
    rows.wide_ids = table.dtype == DType::kI64;
    rows.page_ids = static_cast<const char*>(table.data) + offset * size_of(table.dtype);
    rows.page_size = int32_t(dims_.page_size);
    return rows;
  }

  template <class T>
  void attend(const PlanItem& item, KvRange keys, int64_t thread, const Partial& out) const {
    const QueryBlock block{.q = memory_.q + thread * memory_.num_rows * memory_.q_stride,
                           .rows = memory_.rows + thread * memory_.num_rows,
                           .q_stride = memory_.q_stride,
                           .num_rows = item.num_rows,
                           .head_dim_qk = int32_t(dims_.head_dim_qk),
                           .head_dim_vo = int32_t(dims_.head_dim_vo),
                           .num_kv_heads = item.num_kv_heads,
                           .use_bf16_dot = use_bf16_dot_};
    KeyRope rope;
    if (args_.options.rope_theta > 0) rope = {memory_.rope_cos, memory_.rope_sin, int32_t(dims_.head_dim_qk)};
    attend_block<T>(variant_, block, kv_rows<T>(args_.k, item), kv_rows<T>(args_.v, item), keys, rope,
                    memory_.block + thread * memory_.block_bytes, {out.state, out.o, memory_.o_stride});
  }

  // total = total merged with the keys after it. One function for folds and merges, so that both give the same bits.
  void fold(const Partial& total, const Partial& part, int32_t num_rows) const {
    for (int32_t m = 0; m < num_rows; ++m) {
      float* o = total.o + m * memory_.o_stride;
      const float* add = part.o + m * memory_.o_stride;
      const State::Factors f = attention::join_states(is_softmax(variant_), total.state[m], part.state[m]);
      const F32 keep = splat(f.keep), scale = splat(f.add);
      for (int64_t i = 0; i < memory_.o_stride; i += kLanes)
        store(o + i, fma(load(o + i), keep, load(add + i) * scale));
    }
  }

  // Normalises, adds the sink, or what else the variant does; writes out and lse.
  template <class Work>
  void finish(const Work& work, const Row* rows, const Partial& total) const {
    const int64_t first = plan_.requests()[size_t(work.request_idx)].qo_begin;
    const float to_base = args_.options.lse_base == LogBase::k2 ? 1.f : math::kLn2;
    for (int32_t m = 0; m < rows_of(work); ++m) {
      const int64_t row = first + rows[m].qo_idx, head = rows[m].qo_head;
      State s = total.state[m];
      const float scale = finish_row(variant_, rows[m], total.o + m * memory_.o_stride, int32_t(dims_.head_dim_vo),
                                     args_.options.v_scale, s);
      for_dtype<float, f16, bf16, e4m3, e5m2>(args_.out.dtype, [&]<class T>(T) {
        write_row(total.o + m * memory_.o_stride, scale,
                  args_.out.as<T>() + row * args_.out.strides[0] + head * args_.out.strides[1], dims_.head_dim_vo);
      });
      if (args_.lse.defined())
        args_.lse.as<float>()[row * args_.lse.strides[0] + head * args_.lse.strides[1]] = s.lse_log2() * to_base;
    }
  }

  const AttentionArgs& args_;
  const AttentionDims& dims_;
  const PlanView& plan_;
  const Variant& variant_;
  const AttentionMemory& memory_;
  const int32_t group_;
  const bool use_bf16_dot_;
};

// args: canonical and checked; plan: of these lengths; workspace: attention_workspace_bytes(), any contents.
template <class Variant>
void attention(const AttentionArgs& args, const AttentionDims& dims, const PlanView& plan, const Variant& variant,
               void* workspace, int64_t workspace_bytes, const Executor& executor) {
  Carver carver("batch_attention", workspace, workspace_bytes);
  const AttentionMemory memory(args, dims, plan, executor.num_threads, carver);
  const AttentionRun<Variant> run(args, dims, plan, variant, memory);
  if (memory.rope_len > 0) run.fill_rope(executor);
  for_dtype<float, f16, bf16, e4m3, e5m2>(args.k.dtype, [&]<class T>(T) {
    parallel_for(executor, plan.header.num_items,
                 [&](int64_t i, int32_t thread) { run.template run_item<T>(plan.items()[size_t(i)], thread); });
  });
  parallel_for(executor, plan.header.num_merges,
               [&](int64_t i, int32_t thread) { run.run_merge(plan.merges()[size_t(i)], thread); });
}

FULMEN_CPU_END
