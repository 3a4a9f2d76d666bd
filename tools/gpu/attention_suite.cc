// SPDX-License-Identifier: Apache-2.0
// Attention rows of the standard table: D decode, P prefill. Planned once; what is timed is run().
#include <fulmen/attention/call.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "src/cuda/launch.h"
#include "tools/gpu/pool.h"
#include "tools/gpu/suite.h"

namespace fulmen::gpu {
namespace {

struct Batch {
  std::vector<std::pair<int32_t, int32_t>> lens;                                // (qo_len, kv_len) per request
  int64_t num_qo_heads = 32, num_kv_heads = 8, head_dim = 128, page_size = 16;  // page_size 0: ragged
  bool causal = false;
  int32_t window_left = -1;
  DType kv = DType::kBF16;
};

std::vector<std::pair<int32_t, int32_t>> many(int32_t batch, int32_t qo_len, int32_t kv_len) {
  return std::vector<std::pair<int32_t, int32_t>>(size_t(batch), {qo_len, kv_len});
}

struct Planned {
  AttentionPool pool;
  AttentionArgs args;
  attention::BatchAttention batch;
  attention::MadePlan made;  // of a plan that the device makes
};

// FULMEN_BENCH_PLAN=device: the same rows with plans made on the device, before what is timed.
bool plans_on_device() {
  const char* text = std::getenv("FULMEN_BENCH_PLAN");
  return text != nullptr && std::string_view(text) == "device";
}

std::vector<int32_t> offsets(const Batch& b, bool queries) {
  std::vector<int32_t> all = {0};
  for (const auto& [qo_len, kv_len] : b.lens) {
    const int64_t count = queries ? qo_len : b.page_size > 0 ? (kv_len + b.page_size - 1) / b.page_size : kv_len;
    all.push_back(all.back() + int32_t(count));
  }
  return all;
}

// The plan is where it was made first, whatever is being captured.
void run(Planned& p, const Context& context) {
  p.made.capture = cuda::capture_of(static_cast<driver::Stream>(context.stream)), p.made.was_captured = false;
  attention::run_planned(p.batch.plan().view(), p.args, AttentionEntry::kBatchAttention, context,
                         {.resident = true, .made = &p.made});
}

// beside: of tensors of its own, that this one is to run beside.
std::shared_ptr<Planned> planned(const Batch& b, const attention::BatchAttention* beside = nullptr) {
  auto p = std::make_shared<Planned>();
  AttentionArgs& a = p->args;
  const std::vector<int32_t> qo = offsets(b, true), kv = offsets(b, false);
  const int64_t total_q = qo.back(), total = kv.back(), heads = b.num_kv_heads, d = b.head_dim;
  a.q = p->pool.random(DType::kBF16, {total_q, b.num_qo_heads, d});
  a.out = p->pool.tensor(DType::kBF16, {total_q, b.num_qo_heads, d});
  const std::vector<int64_t> shape =
      b.page_size > 0 ? std::vector<int64_t>{total, b.page_size, heads, d} : std::vector<int64_t>{total, heads, d};
  a.k = p->pool.random(b.kv, shape), a.v = p->pool.random(b.kv, shape);
  a.qo_indptr = p->pool.ids(qo), a.kv_indptr = p->pool.ids(kv);
  if (b.page_size > 0) {
    std::vector<int32_t> pages, last;
    for (int32_t i = 0; i < total; ++i) pages.push_back(i);
    std::shuffle(pages.begin(), pages.end(), std::mt19937(2));
    for (const auto& [qo_len, kv_len] : b.lens) last.push_back(int32_t((kv_len - 1) % b.page_size + 1));
    a.kv_indices = p->pool.ids(pages), a.last_page_len = p->pool.ids(last);
  }
  a.options.causal = b.causal, a.options.window_left = b.window_left;
  const auto plan = [&] {
    if (plans_on_device())
      p->batch.plan_on_device(a, AttentionEntry::kBatchAttention, beside);
    else
      p->batch.plan(a, AttentionEntry::kBatchAttention, beside);
  };
  plan();
  a.workspace = p->pool.tensor(DType::kU8, {p->batch.workspace_bytes()});
  plan();
  if (plans_on_device()) run(*p, {});
  return p;
}

Problem problem(const Batch& b) {
  std::vector<std::shared_ptr<Planned>> sets = {planned(b)};
  const Cost c = cost(sets[0]->args);
  while (double(sets.size()) * c.bytes < 200e6 && sets.size() < 24) sets.push_back(planned(b));
  return {.num_sets = int32_t(sets.size()),
          .bytes = c.bytes,
          .flops = c.flops,
          .launch = [sets](int32_t set, const Context& context) { run(*sets[size_t(set)], context); }};
}

// Two batches of tensors of their own: at once, or one after the other. Each graph makes plans of the device.
struct Pair {
  std::shared_ptr<Planned> prefill, decode;
  void launch(bool beside, const Context& context) {
    prefill->batch.use(context), decode->batch.use(context);
    if (beside) return decode->batch.run_beside(decode->args, prefill->batch, prefill->args);
    prefill->batch.run(prefill->args);
    decode->batch.run(decode->args);
  }
};

Problem pair_problem(const Batch& prefill, const Batch& decode, bool beside) {
  auto pair = std::make_shared<Pair>();
  pair->prefill = planned(prefill);
  pair->decode = planned(decode, beside ? &pair->prefill->batch : nullptr);
  Cost c = cost(pair->prefill->args);
  const Cost more = cost(pair->decode->args);
  return {.num_sets = 1,
          .bytes = c.bytes + more.bytes,
          .flops = c.flops + more.flops,
          .launch = [=](int32_t, const Context& context) { pair->launch(beside, context); }};
}

// Of the standard table: one long request and many short ones.
Batch long_and_short(std::pair<int32_t, int32_t> one, int32_t count, int32_t qo_len, int32_t kv_len) {
  Batch b{.lens = many(count, qo_len, kv_len), .causal = true};
  b.lens.push_back(one);
  return b;
}

// Some prefills and many short requests.
Batch mix(int32_t prefills, std::pair<int32_t, int32_t> one, int32_t count, int32_t qo_len, int32_t kv_len) {
  Batch b = long_and_short(one, count, qo_len, kv_len);
  for (int32_t i = 1; i < prefills; ++i) b.lens.push_back(one);
  return b;
}

Batch skewed() {
  Batch b{.lens = many(63, 1, 1024)};
  b.lens.push_back({1, 524288});
  return b;
}

Row row(const char* id, const char* shape, const Batch& b) {
  return {id, shape, [b] { return problem(b); }};
}

// Gemma's heads, two or four queries each.
std::vector<Row> large_head_rows() {
  const Batch heads{.num_qo_heads = 16, .num_kv_heads = 8, .head_dim = 256};
  const auto batch = [&](std::vector<std::pair<int32_t, int32_t>> lens, bool causal, DType kv = DType::kBF16) {
    Batch b = heads;
    b.lens = std::move(lens), b.causal = causal, b.kv = kv;
    return b;
  };
  return {
      row("G1", "prefill 16/8 D256 causal B1 S8k page 16", batch(many(1, 8192, 8192), true)),
      row("G2", "prefill 16/8 D256 causal B8 S1k page 16", batch(many(8, 1024, 1024), true)),
      row("G3", "decode 16/8 D256 B32 kv4k page 16", batch(many(32, 1, 4096), false)),
      row("G4", "decode 16/8 D256 B1 kv8k page 16", batch(many(1, 1, 8192), false)),
      row("G5", "decode e4m3 kv 16/8 D256 B32 kv4k page 16", batch(many(32, 1, 4096), false, DType::kE4M3)),
  };
}

std::vector<Row> mixed_rows() {
  return {
      row("C2", "mixed prefill 1x8k + decode 128x4k 32/8 D128", long_and_short({8192, 8192}, 128, 1, 4096)),
      row("M1", "mixed append q2048 on kv8k + decode 128x4k 32/8 D128", mix(1, {2048, 8192}, 128, 1, 4096)),
      row("M2", "mixed prefill 4x1k + decode 32x2k 32/8 D128", mix(4, {1024, 1024}, 32, 1, 2048)),
      row("M3", "mixed append q512 on kv4k + decode 64x8k 32/8 D128", mix(1, {512, 4096}, 64, 1, 8192)),
      row("M4", "mixed prefill 1x8k + decode 8x4k 32/8 D128", mix(1, {8192, 8192}, 8, 1, 4096)),
      row("M5", "mixed prefill 8x2k + verify q4 32x4k 32/8 D128", mix(8, {2048, 2048}, 32, 4, 4096)),
      row("M6", "mixed prefill 1x512 + decode 16x1k 32/8 D128", mix(1, {512, 512}, 16, 1, 1024)),
      row("M7", "mixed prefill 2x200 + decode 8x500 32/8 D128", mix(2, {200, 200}, 8, 1, 500)),
  };
}

// The mixed rows' shapes with tensors of their own for prefills, whose keys are contiguous, and decodes.
std::vector<Row> pod_rows() {
  struct Shape {
    const char *id, *text;
    Batch prefill, decode;
  };
  const auto prefill = [](int32_t count, int32_t qo_len, int32_t kv_len) {
    return Batch{.lens = many(count, qo_len, kv_len), .page_size = 0, .causal = true};
  };
  const auto decode = [](int32_t count, int32_t qo_len, int32_t kv_len) {
    return Batch{.lens = many(count, qo_len, kv_len), .causal = qo_len > 1};
  };
  const std::vector<Shape> shapes = {
      {"C2", "prefill 1x8k, decode 128x4k", prefill(1, 8192, 8192), decode(128, 1, 4096)},
      {"M1", "append q2048 on kv8k, decode 128x4k", prefill(1, 2048, 8192), decode(128, 1, 4096)},
      {"M2", "prefill 4x1k, decode 32x2k", prefill(4, 1024, 1024), decode(32, 1, 2048)},
      {"M3", "append q512 on kv4k, decode 64x8k", prefill(1, 512, 4096), decode(64, 1, 8192)},
      {"M4", "prefill 1x8k, decode 8x4k", prefill(1, 8192, 8192), decode(8, 1, 4096)},
      {"M5", "prefill 8x2k, verify q4 32x4k", prefill(8, 2048, 2048), decode(32, 4, 4096)},
      {"M6", "prefill 1x512, decode 16x1k", prefill(1, 512, 512), decode(16, 1, 1024)},
      {"M8", "prefill 1x2k, decode 16x4k", prefill(1, 2048, 2048), decode(16, 1, 4096)},
  };
  std::vector<Row> rows;
  for (const Shape& s : shapes)
    for (bool beside : {true, false})
      rows.push_back({std::string("O") + s.id + (beside ? "" : "s"),
                      std::string(s.text) + (beside ? ", POD" : ", one after the other"),
                      [s, beside] { return pair_problem(s.prefill, s.decode, beside); }});
  return rows;
}

}  // namespace

std::vector<Row> attention_suite() {
  const Batch dense{.num_qo_heads = 16, .num_kv_heads = 16, .page_size = 0};
  const auto prefill = [&](int32_t batch, int32_t len, bool causal) {
    Batch b = dense;
    b.lens = many(batch, len, len), b.causal = causal;
    return b;
  };
  const auto narrow = [](bool causal) {
    return Batch{.lens = many(1, 16384, 16384),
                 .num_qo_heads = 32,
                 .num_kv_heads = 32,
                 .head_dim = 64,
                 .page_size = 0,
                 .causal = causal};
  };
  std::vector<Row> all = {
      row("D1", "decode 32/8 D128 B1 kv1k page 16", {.lens = many(1, 1, 1024)}),
      row("D2", "decode 32/8 D128 B1 kv32k page 16", {.lens = many(1, 1, 32768)}),
      row("D3", "decode 32/8 D128 B1 kv128k page 16", {.lens = many(1, 1, 131072)}),
      row("D4", "decode 32/8 D128 B16 kv8k page 16", {.lens = many(16, 1, 8192)}),
      row("D5", "decode 64/8 D128 B64 kv8k page 16", {.lens = many(64, 1, 8192), .num_qo_heads = 64}),
      row("D6", "decode 64/8 D128 B128 kv4k page 1", {.lens = many(128, 1, 4096), .num_qo_heads = 64, .page_size = 1}),
      row("D7", "decode 64/8 D128 B256 kv1k page 16", {.lens = many(256, 1, 1024), .num_qo_heads = 64}),
      row("D8", "spec decode q4 64/8 D128 B8 kv16k page 16",
          {.lens = many(8, 4, 16384), .num_qo_heads = 64, .causal = true}),
      row("D9", "decode skew 1x512k + 63x1k 32/8 D128", skewed()),
      row("D10", "decode MHA 32/32 D128 B16 kv2k page 8",
          {.lens = many(16, 1, 2048), .num_kv_heads = 32, .page_size = 8}),
      row("D11", "decode e4m3 kv 64/8 D128 B64 kv8k page 16",
          {.lens = many(64, 1, 8192), .num_qo_heads = 64, .kv = DType::kE4M3}),
      row("P1", "prefill D128 full B1 H16 S16k", prefill(1, 16384, false)),
      row("P2", "prefill D128 causal B1 H16 S16k", prefill(1, 16384, true)),
      row("P3", "prefill D128 causal B4 H16 S4k", prefill(4, 4096, true)),
      row("P4", "prefill D128 causal B32 H16 S512", prefill(32, 512, true)),
      row("T1", "prefill D128 full B16 H16 S1k", prefill(16, 1024, false)),
      row("T2", "prefill D128 full B8 H16 S2k", prefill(8, 2048, false)),
      row("T3", "prefill D128 full B4 H16 S4k", prefill(4, 4096, false)),
      row("T4", "prefill D128 causal B8 H16 S2k", prefill(8, 2048, true)),
      row("T5", "prefill D128 causal B2 H16 S8k", prefill(2, 8192, true)),
      row("P5", "prefill D64 full B1 H32 S16k", narrow(false)),
      row("P6", "prefill D64 causal B1 H32 S16k", narrow(true)),
      row("P11", "prefill 32/8 D128 causal B1 S8k page 16", {.lens = many(1, 8192, 8192), .causal = true}),
      row("P11c", "P11 contiguous", {.lens = many(1, 8192, 8192), .page_size = 0, .causal = true}),
      row("P11p1", "P11 page 1", {.lens = many(1, 8192, 8192), .page_size = 1, .causal = true}),
      row("P12", "prefill 32/32 D128 causal B16 S8k page 1",
          {.lens = many(16, 8192, 8192), .num_kv_heads = 32, .page_size = 1, .causal = true}),
      row("P12p16", "P12 page 16", {.lens = many(16, 8192, 8192), .num_kv_heads = 32, .page_size = 16, .causal = true}),
      row("P12c", "P12 contiguous", {.lens = many(16, 8192, 8192), .num_kv_heads = 32, .page_size = 0, .causal = true}),
      row("P13", "append q2048 on kv32k 64/8 D128 page 16",
          {.lens = many(1, 2048, 32768), .num_qo_heads = 64, .causal = true}),
      row("P15", "prefill window 128 64/8 D64 B4 S8k",
          {.lens = many(4, 8192, 8192), .num_qo_heads = 64, .head_dim = 64, .causal = true, .window_left = 127}),
      row("P16", "prefill skew 1x32k + 31x512 32/8 D128 causal", long_and_short({32768, 32768}, 31, 512, 512)),
  };
  for (Row& r : large_head_rows()) all.push_back(std::move(r));
  for (Row& r : mixed_rows()) all.push_back(std::move(r));
  for (Row& r : pod_rows()) all.push_back(std::move(r));
  return all;
}

}  // namespace fulmen::gpu
