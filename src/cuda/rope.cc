// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/rope.h"

#include <fulmen/cuda/row_shape.h>

#include <cmath>
#include <cstring>

#include "src/cuda/ids.h"
#include "src/cuda/page.h"

namespace fulmen::cuda {
namespace {

// What frequencies depend on; a model asks for the same ones at every layer, so the last answer is kept per thread.
struct FrequencyKey {
  double theta, scale, low, high, context;
  int64_t rotary_dim;
};

void fill(const RopeArgs& a, int64_t rotary_dim, rope::Frequencies* f) {
  constexpr double kTwoPi = 6.283185307179586;
  f->step_log2 = -2 * std::log2(a.rope_theta) / double(rotary_dim);
  f->rope_scale = a.rope_scale;
  f->low_freq_factor = a.low_freq_factor, f->high_freq_factor = a.high_freq_factor;
  f->old_context_len = double(a.old_context_len);
  for (int64_t i = 0; i < std::min<int64_t>(rotary_dim / 2, rope::kTable); ++i) {
    const double base = std::exp2(f->step_log2 * double(i));
    double freq = base / a.rope_scale;
    if (a.old_context_len > 0) {
      const double turns = base * f->old_context_len / kTwoPi;
      const double smooth =
          std::clamp((turns - a.low_freq_factor) / (a.high_freq_factor - a.low_freq_factor), 0.0, 1.0);
      freq = (1 - smooth) * freq + smooth * base;
    }
    const double fraction = freq / kTwoPi;
    f->table[i] = uint64_t(std::ldexp(fraction - std::floor(fraction), 64));
  }
}

const rope::Frequencies& frequencies_of(const RopeArgs& a, int64_t rotary_dim) {
  thread_local FrequencyKey last{};
  thread_local rope::Frequencies frequencies{};
  const FrequencyKey key{a.rope_theta, a.rope_scale, a.low_freq_factor, a.high_freq_factor, double(a.old_context_len),
                         rotary_dim};
  if (std::memcmp(&key, &last, sizeof key) != 0) {
    fill(a, rotary_dim, &frequencies);
    last = key;
  }
  return frequencies;
}

// The launch has checked the call: this only reads it.
int64_t checked_rotary_dim(const RopeArgs& a) {
  if (a.rotary_dim != 0) return a.rotary_dim;
  return a.cos_sin_cache.defined() ? a.cos_sin_cache.shape[1] : a.q.shape[2];
}

bool same_place(const TensorView& x, const TensorView& out) {
  return x.data == out.data && x.strides[0] == out.strides[0] && x.strides[1] == out.strides[1];
}

// The params of a call, segment by segment.
struct Tokens {
  rope::Params params{};
  rope::Key key;
  int32_t vec = 16;

  Tokens(const RopeArgs& a, int64_t nnz, int64_t rotary_dim) {
    params.num_pairs = int32_t(rotary_dim / 2), params.nnz = nnz;
    params.q_scale = params.kv_scale = 1;
    params.pos_ids = ids_of(a.pos_ids), params.indptr = ids_of(a.indptr), params.offsets = ids_of(a.offsets);
    params.batch_size = a.offsets.defined() ? a.offsets.shape[0] : 0;
    key = {.x = a.q.dtype, .q_out = a.q.dtype, .kv_out = a.q.dtype, .interleave = a.interleave};
    if (a.cos_sin_cache.defined()) {
      key.from_cache = true, key.cache = a.cos_sin_cache.dtype;
      params.cache = a.cos_sin_cache.data, params.cache_stride = a.cos_sin_cache.strides[0];
      params.max_position = a.cos_sin_cache.shape[0];
    } else if (rotary_dim > 0) {
      params.frequencies = frequencies_of(a, rotary_dim);
    }
    vec = 16 / size_of(a.q.dtype);
  }

  // `width` elements from element `begin` on of every head. out: [nnz, heads, dim] or [num_pages, page_size, heads,
  // dim].
  void add(int32_t index, const TensorView& x, const TensorView& out, int64_t begin, int64_t width) {
    if (!x.defined() || width == 0 || x.shape[1] == 0) return;
    const int32_t paged = out.rank == 4;
    params.segment[index] = {.x = x.as<const char>() + begin * size_of(x.dtype),
                             .out = out.as<char>() + begin * size_of(out.dtype),
                             .x_token = x.strides[0],
                             .x_head = x.strides[1],
                             .out_token = out.strides[paged],
                             .out_head = out.strides[paged + 1],
                             .out_page = paged ? out.strides[0] : 0,
                             .num_heads = int32_t(x.shape[1]),
                             .width = int32_t(width),
                             .groups = 0};
    vec = std::min({vec, vec_of(x, begin), vec_of(out, begin)});
    const int64_t part = rope::is_turned(index) ? width / 2 : width;
    while (part % vec != 0) vec /= 2;
  }

  Work<rope::Key, rope::Params> work() {
    int32_t passes = 0;
    for (int32_t i = 0; i < rope::kNumSegments; ++i) {
      rope::Segment& s = params.segment[i];
      s.groups = std::max(1, (s.width + 2 * vec - 1) / (2 * vec));
      params.first_pass[i] = passes;
      passes += (s.num_heads * s.groups + 31) / 32;
    }
    params.first_pass[rope::kNumSegments] = passes;
    params.parts = int32_t(math::ceil_div(passes, rope::kBatch));
    key.vec = vec;
    const int64_t ctas = math::ceil_div(params.nnz * params.parts, int64_t(rope::kThreads / 32));
    return {.key = key,
            .params = params,
            .shape = {.grid = uint32_t(ctas), .num_threads = rope::kThreads},
            .persistent = false};
  }

 private:
  // The most elements that every vector of these heads may have.
  static int32_t vec_of(const TensorView& t, int64_t begin) {
    const uint64_t size = uint64_t(size_of(t.dtype));
    uint64_t bits = uint64_t(t.data) | uint64_t(begin) * size;
    for (int32_t i = 0; i + 1 < t.rank; ++i)
      if (t.shape[i] > 1) bits |= uint64_t(t.strides[i]) * size;
    return max_vec(bits, int32_t(size));
  }
};

std::string refuses_heads(std::initializer_list<const TensorView*> tensors, int64_t nnz) {
  int64_t elements = 0;
  for (const TensorView* t : tensors)
    if (t->defined()) elements += t->shape[1] * t->shape[2];
  if (elements > 1 << 30) return "a token has more than 2^30 elements";
  const int64_t parts = 3 + elements / (32 * rope::kBatch);  // at most, with a single element per piece
  return nnz > (int64_t(rope::kThreads / 32) << 31) / parts ? "too many tokens for one grid" : "";
}

}  // namespace

static_assert(rope::kMostPairs == kMaxRotaryDim / 2);

runtime::Refusal Rope::refuses(const Args& a) { return refuses_heads({&a.q, &a.k}, a.q.shape[0]); }

Work<rope::Key, rope::Params> Rope::work(const Args& a, const Device&) {
  const int64_t rotary_dim = checked_rotary_dim(a), rest = a.q.shape[2] - rotary_dim;
  Tokens tokens(a, a.q.shape[0], rotary_dim);
  tokens.add(rope::kQTurned, a.q, a.q_out, 0, rotary_dim);
  tokens.add(rope::kKTurned, a.k, a.k_out, 0, rotary_dim);
  if (!same_place(a.q, a.q_out)) tokens.add(rope::kQCopied, a.q, a.q_out, rotary_dim, rest);
  if (a.k.defined() && !same_place(a.k, a.k_out)) tokens.add(rope::kKCopied, a.k, a.k_out, rotary_dim, rest);
  return tokens.work();
}

runtime::Refusal RopeQuantizeFp8::refuses(const Args& a) {
  return refuses_heads({&a.q_rope, &a.k_rope, &a.q_nope, &a.k_nope}, a.q_rope.shape[0]);
}

Work<rope::Key, rope::Params> RopeQuantizeFp8::work(const Args& a, const Device&) {
  const int64_t rope_dim = a.q_rope.shape[2];
  Tokens tokens(rope_args(a.q_rope, a.k_rope, a.pos_ids, a.cos_sin_cache, a.angles), a.q_rope.shape[0], rope_dim);
  tokens.key.q_out = tokens.key.kv_out = a.q_rope_out.dtype;
  tokens.params.q_scale = a.q_scale, tokens.params.kv_scale = a.kv_scale;
  tokens.add(rope::kQTurned, a.q_rope, a.q_rope_out, 0, rope_dim);
  tokens.add(rope::kKTurned, a.k_rope, a.k_rope_out, 0, rope_dim);
  if (a.q_nope.defined()) tokens.add(rope::kQCopied, a.q_nope, a.q_nope_out, 0, a.q_nope.shape[2]);
  if (a.k_nope.defined()) tokens.add(rope::kKCopied, a.k_nope, a.k_nope_out, 0, a.k_nope.shape[2]);
  return tokens.work();
}

runtime::Refusal RopeAppendPagedKvCache::refuses(const Args& a) {
  if (a.k_rope_cache.shape[1] > 0x7fffffff) return "page_size is beyond 2147483647";
  return refuses_heads({&a.q_rope, &a.k_rope, &a.q_nope, &a.k_nope, &a.v}, a.q_rope.shape[0]);
}

Work<rope::Key, rope::Params> RopeAppendPagedKvCache::work(const Args& a, const Device&) {
  const int64_t rope_dim = a.q_rope.shape[2];
  Tokens tokens(rope_args(a.q_rope, a.k_rope, a.pos_ids, a.cos_sin_cache, a.angles), a.q_rope.shape[0], rope_dim);
  tokens.key.q_out = a.q_rope_out.dtype, tokens.key.kv_out = a.k_rope_cache.dtype, tokens.key.paged = true;
  tokens.params.q_scale = a.q_scale, tokens.params.kv_scale = a.kv_scale;
  tokens.params.pages = page_table(a.batch_indices, a.positions, a.kv_indices, a.kv_indptr, a.k_rope_cache);
  tokens.add(rope::kQTurned, a.q_rope, a.q_rope_out, 0, rope_dim);
  tokens.add(rope::kKTurned, a.k_rope, a.k_rope_cache, 0, rope_dim);
  if (a.q_nope.defined()) tokens.add(rope::kQCopied, a.q_nope, a.q_nope_out, 0, a.q_nope.shape[2]);
  if (a.k_nope.defined()) tokens.add(rope::kKCopied, a.k_nope, a.k_nope_cache, 0, a.k_nope.shape[2]);
  if (a.v.defined()) tokens.add(rope::kValue, a.v, a.v_cache, 0, a.v.shape[2]);
  return tokens.work();
}

std::vector<rope::Key> Rope::common_keys() {
  std::vector<Key> keys;
  for (DType t : {DType::kBF16, DType::kF16, DType::kF32})
    for (bool from_cache : {false, true})
      for (bool interleave : {false, true}) {
        Key key{.x = t,
                .q_out = t,
                .kv_out = t,
                .cache = DType::kF32,
                .from_cache = from_cache,
                .interleave = interleave,
                .vec = 16 / size_of(t)};
        keys.push_back(key);
        key.paged = true;
        keys.push_back(key);
        if (t == DType::kF32) continue;
        key.kv_out = DType::kE4M3;
        keys.push_back(key);
        key.q_out = DType::kE4M3;
        keys.push_back(key);
        key.paged = false;
        keys.push_back(key);
      }
  return keys;
}

}  // namespace fulmen::cuda
