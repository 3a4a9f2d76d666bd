// SPDX-License-Identifier: Apache-2.0
// Texts of users on the CPU: variants in both forms against the double reference, at every instruction set; what is
// said where a text, its fields or the compiler are wrong.
#include <fulmen/attention/call.h>
#include <fulmen/attention/flashinfer_code.h>

#include "src/jit/host_compiler.h"
#include "tests/support/attention_problem.h"
#include "tests/support/variant_texts.h"

// A struct as code, for the oracle, and as text.
#define FULMEN_TEST_VARIANT(name, ...) \
  namespace fulmen::attention {        \
  __VA_ARGS__                          \
  }                                    \
  constexpr const char* k##name = #__VA_ARGS__;

FULMEN_TEST_VARIANT(
    WindowTemperatureSink, struct WindowTemperatureSink
    : Defaults {
      const float* temperature = nullptr;  // [num_qo_heads]
      const float* sinks = nullptr;        // [num_qo_heads]
      float sm_scale = 1;
      int32_t window = 0;
      FULMEN_FN KvRange visible(Row row) const { return {window_begin(row, window), causal_end(row)}; }
      FULMEN_FN bool changes_logits() const { return true; }
      template <class F, class I>
      FULMEN_FN F logit(Row row, I, F x) const {
        return x * F(temperature[row.qo_head]);
      }
      FULMEN_FN float scale_log2() const { return sm_scale * math::kLog2e; }
      FULMEN_FN bool has_sink() const { return sinks != nullptr; }
      FULMEN_FN float sink(Row row) const { return sinks[row.qo_head]; }
    };)

FULMEN_TEST_VARIANT(
    SoftCapped, struct SoftCapped
    : Defaults {
      float sm_scale = 1, cap = 5;
      FULMEN_FN bool changes_logits() const { return true; }
      template <class F, class I>
      FULMEN_FN F logit(Row, I, F x) const {
        using math::tanh;
        return F(cap) * tanh(x * F(sm_scale / cap));
      }
      FULMEN_FN float scale_log2() const { return math::kLog2e; }
    };)

FULMEN_TEST_VARIANT(
    Sigmoid, struct Sigmoid
    : Defaults {
      static constexpr bool kSoftmax = false;
      float sm_scale = 1, bias = 0;
      template <class F, class I>
      FULMEN_FN F weight(Row, I, F z) const {
        using math::exp2;
        return F(1) / (F(1) + exp2(F(-1.44269504f) * (z * F(sm_scale) + F(bias))));
      }
    };)

FULMEN_TEST_VARIANT(
    BitMask, struct BitMask
    : Defaults {
      const uint8_t* mask = nullptr;
      const int32_t* offsets = nullptr;  // [batch_size + 1]
      float sm_scale = 1;
      FULMEN_FN bool has_mask() const { return true; }
      FULMEN_FN bool keep(Row row, int32_t kv_idx) const {
        const int32_t bit = row.qo_idx * row.kv_len + kv_idx;
        return (mask[offsets[row.batch_idx] + bit / 8] >> (bit % 8) & 1) != 0;
      }
      FULMEN_FN float scale_log2() const { return sm_scale * math::kLog2e; }
    };)

FULMEN_TEST_VARIANT(
    OffByOne, struct OffByOne
    : Defaults {  // softmax with 1 more in the denominator, then a gate per head
      static constexpr bool kFinishes = true;
      const float* gate = nullptr;  // [num_qo_heads]
      float sm_scale = 1;
      FULMEN_FN float scale_log2() const { return sm_scale * math::kLog2e; }
      template <class F>
      FULMEN_FN F update(Row, F & m, F & d) const {
        using math::exp2;
        const F top = m > F(0) ? m : F(0), scale = exp2(m - top);
        d = d * scale + exp2(-top);
        m = top;
        return scale;
      }
      template <class F>
      FULMEN_FN F finish(Row row, F o, F, F d, F scale) const {
        return o * scale / d * F(gate[row.qo_head]);
      }
    };)

FULMEN_TEST_VARIANT(
    Halved, struct Halved
    : Defaults {  // sums of weights, halved at the end
      static constexpr bool kSoftmax = false, kFinishes = true;
      template <class F, class I>
      FULMEN_FN F weight(Row, I kv_idx, F z) const {
        using math::cast_to;
        return z * F(0.25f) + cast_to(F(), kv_idx) * F(0.01f);
      }
      template <class F>
      FULMEN_FN F update(Row, F&, F & d) const {
        return d;
      }
      template <class F>
      FULMEN_FN F finish(Row, F o, F, F, F scale) const {
        return o * scale * F(0.5f);
      }
    };)

namespace fulmen::testing {
namespace {

using attention::FlashInferVariant;
using attention::VariantCode;

class CpuText : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { setenv("FULMEN_CACHE_DIR", FULMEN_TEXT_CACHE, 1); }
  void SetUp() override {
    if (jit::host_compiler().command.empty()) GTEST_SKIP() << jit::host_compiler().problem;
  }
};

std::vector<AttentionCase> cases() {
  std::vector<AttentionCase> all;
  for (DType kv : {DType::kF32, DType::kF16, DType::kBF16, DType::kE4M3}) {
    AttentionCase c;
    c.q_dtype = c.out_dtype = kv == DType::kE4M3 ? DType::kBF16 : kv;
    c.kv_dtype = kv;
    c.lens = {{1, 1}, {1, 0}, {1, 130}, {5, 5}, {20, 70}, {7, 3}};
    c.d_vo = kv == DType::kF16 ? 72 : 64;
    all.push_back(c);
    c.lens = {{1, 300}, {70, 300}};
    c.options.fixed_split_len = kv == DType::kF32 ? 64 : 0;
    c.table = Table::kRagged;
    c.seed = 2;
    all.push_back(c);
  }
  return all;
}

template <class V>
VariantCode code_of(const char* name, const char* text, const V& v) {
  return {name, text, &v, std::is_empty_v<V> ? 0 : int64_t(sizeof v)};
}

// make(problem): the variant with its fields.
template <class Make>
void expect_right(const char* name, const char* text, Make make) {
  for (const AttentionCase& c : cases()) {
    AttentionProblem p(c);
    const auto v = make(p);
    const reference::AttentionValues want = reference::attention(p.args, v);
    for (CpuLevel level : levels()) {
      p.out.poison(0xff), p.lse.poison(0xff);
      attention::run_variant(p.args, code_of(name, text, v), at(level));
      ASSERT_TRUE(within(p, want)) << name << " " << runtime::name_of(level) << " " << describe(c);
    }
  }
}

TEST_F(CpuText, WindowTemperatureSink) {
  static const float temperature[] = {1, 0.5, 2, -1};
  expect_right("WindowTemperatureSink", kWindowTemperatureSink, [](const AttentionProblem& p) {
    attention::WindowTemperatureSink v;
    v.temperature = temperature, v.sinks = TensorView(p.sinks).as<const float>(), v.sm_scale = 0.2f, v.window = 40;
    return v;
  });
}

TEST_F(CpuText, SoftCap) {
  expect_right("SoftCapped", kSoftCapped, [](const AttentionProblem&) {
    attention::SoftCapped v;
    v.sm_scale = 0.3f;
    return v;
  });
}

TEST_F(CpuText, Sigmoid) {
  expect_right("Sigmoid", kSigmoid, [](const AttentionProblem&) {
    attention::Sigmoid v;
    v.sm_scale = 0.2f, v.bias = -2;
    return v;
  });
}

TEST_F(CpuText, Mask) {
  expect_right("BitMask", kBitMask, [](const AttentionProblem& p) {
    attention::BitMask v;
    v.mask = TensorView(p.custom_mask).as<const uint8_t>(), v.offsets = TensorView(p.mask_indptr).as<const int32_t>();
    v.sm_scale = 0.2f;
    return v;
  });
}

TEST_F(CpuText, HasTheLastWord) {
  static const float gate[] = {1, -0.5, 2, 0};
  expect_right("OffByOne", kOffByOne, [](const AttentionProblem&) {
    attention::OffByOne v;
    v.gate = gate, v.sm_scale = 0.2f;
    return v;
  });
  expect_right("Halved", kHalved, [](const AttentionProblem&) { return attention::Halved{}; });
}

// A kernel that calls methods with float must not need templates, and may call what CUDA's library has.
TEST_F(CpuText, NeedsNoTemplates) {
  const char* text = R"(
struct Plain : Defaults {
  float sm_scale, cap;
  __device__ bool changes_logits() const { return true; }
  __device__ float logit(Row row, int32_t kv_idx, float x) const {
    if (kv_idx < 0 || kv_idx >= row.kv_len) return x / 0.f;
    return cap * tanhf(__fdividef(fminf(x, 1e30f) * sm_scale, max(cap, 1e-9f)));
  }
  __device__ float scale_log2() const { return math::kLog2e * __expf(0.f) * rsqrtf(1.f); }
};
)";
  expect_right("Plain", text, [](const AttentionProblem&) {
    attention::SoftCapped v;
    v.sm_scale = 0.3f;
    return v;
  });
}

// The text's own bytes.
void run(const FlashInferVariant& v, AttentionProblem& p, const std::vector<const void*>& tensors,
         const std::vector<double>& scalars, CpuLevel level, bool planned = false) {
  VariantCode code = attention::code_of(v);
  const std::vector<char> fields = attention::fields_of(v,
                                                        {.num_qo_heads = int32_t(p.c.num_kv_heads * p.c.group),
                                                         .num_kv_heads = int32_t(p.c.num_kv_heads),
                                                         .window_left = p.args.options.window_left,
                                                         .causal = p.args.options.causal},
                                                        tensors, scalars);
  code.fields = fields.data(), code.num_bytes = int64_t(fields.size());
  AttentionArgs args = p.args;
  args.sinks = args.custom_mask = args.mask_indptr = args.alibi_slopes = {};  // the text's business
  p.out.poison(0xff), p.lse.poison(0xff);
  if (!planned) return attention::run_variant(args, code, at(level));
  attention::BatchAttention batch(at(level));
  batch.plan(args);
  std::vector<uint8_t> memory(size_t(batch.workspace_bytes()));
  args.workspace = view_of(memory.data(), {int64_t(memory.size())});
  batch.run(args, &code);
}

TEST_F(CpuText, FlashInferSink) {
  for (AttentionCase c : cases()) {
    c.sinks = true, c.options.causal = true, c.options.window_left = 60, c.options.sm_scale = 0.1f;
    AttentionProblem p(c);
    const reference::AttentionValues want = reference::attention(p.args);
    const FlashInferVariant v{"SinkPerHead", kSinkText, {{"sink", "float"}}, {{"sm_scale", "double"}}};
    for (CpuLevel level : levels())
      for (bool planned : {false, true}) {
        run(v, p, {TensorView(p.sinks).data}, {double(c.options.sm_scale)}, level, planned);
        ASSERT_TRUE(within(p, want)) << runtime::name_of(level) << " " << describe(c);
      }
  }
}

TEST_F(CpuText, FlashInferMask) {
  for (AttentionCase c : cases()) {
    c.mask = true, c.options.sm_scale = 0.2f;
    AttentionProblem p(c);
    const FlashInferVariant v{"MaskedAttention",
                              kMaskText,
                              {{"custom_mask", "uint8_t"}, {"mask_indptr", "int32_t"}},
                              {{"sm_scale", "double"}}};
    const reference::AttentionValues want = reference::attention(p.args);
    for (CpuLevel level : levels()) {
      run(v, p, {TensorView(p.custom_mask).data, TensorView(p.mask_indptr).data}, {double(c.options.sm_scale)}, level);
      ASSERT_TRUE(within(p, want)) << runtime::name_of(level) << " " << describe(c);
    }
  }
}

TEST_F(CpuText, FlashInferSoftCapAndBias) {
  for (AttentionCase c : cases()) {
    c.alibi = true, c.options.sm_scale = 0.2f, c.options.logits_soft_cap = 8;
    AttentionProblem p(c);
    const FlashInferVariant v{
        "SoftCapAlibi", kSoftCapText, {{"slopes", "float"}}, {{"sm_scale", "double"}, {"cap", "float"}}};
    const reference::AttentionValues want = reference::attention(p.args);
    for (CpuLevel level : levels()) {
      run(v, p, {TensorView(p.alibi_slopes).data}, {double(c.options.sm_scale), 8}, level);
      ASSERT_TRUE(within(p, want)) << runtime::name_of(level) << " " << describe(c);
    }
  }
}

TEST_F(CpuText, FlashInferTextsForFa3AndHalf) {
  for (AttentionCase c : cases()) {
    c.options.causal = true, c.options.sm_scale = 0.25f, c.options.logits_soft_cap = 3;
    AttentionProblem p(c);
    Tensor gain(DType::kF16, {c.num_kv_heads * c.group});
    gain.fill([](int64_t) { return 0.5; });
    const FlashInferVariant v{
        "SoftCapped", kFa3SoftCapText, {{"gain", "half"}}, {{"sm_scale", "double"}, {"cap", "double"}}};
    const reference::AttentionValues want = reference::attention(p.args);
    for (CpuLevel level : levels()) {
      run(v, p, {TensorView(gain).data}, {0.5, 3}, level);
      ASSERT_TRUE(within(p, want)) << runtime::name_of(level) << " " << describe(c);
    }
  }
}

TEST_F(CpuText, FlashInferSigmoid) {
  for (const AttentionCase& c : cases()) {
    AttentionProblem p(c);
    attention::Sigmoid same;
    same.sm_scale = 0.25f, same.bias = -2;
    const reference::AttentionValues want = reference::attention(p.args, same);
    const FlashInferVariant v{
        "SigmoidAttention", kSigmoidText, {}, {{"logits_scale", "double"}, {"sigmoid_bias", "double"}}};
    for (CpuLevel level : levels()) {
      run(v, p, {}, {0.25, -2}, level);
      ASSERT_TRUE(within(p, want)) << runtime::name_of(level) << " " << describe(c);
    }
  }
}

// --- What goes wrong.

std::string error_with(const char* name, const char* text, Code* code = nullptr, int64_t num_bytes = 8) {
  AttentionCase c;
  AttentionProblem p(c);
  const float fields[16] = {1};
  try {
    attention::run_variant(p.args, {name, text, fields, num_bytes});
  } catch (const Error& e) {
    if (code != nullptr) *code = e.code;
    return e.message;
  }
  return "nothing was thrown";
}

TEST_F(CpuText, AnErrorStartsWithTheTextsOwnLine) {
  Code code{};
  const std::string message = error_with("Broken", R"(struct Broken : Defaults {
  float sm_scale, unused;
  FULMEN_FN float scale_log2() const { return sm_scale * lg2e; }
};
)",
                                         &code);
  EXPECT_EQ(code, Code::kInvalidArgument);
  EXPECT_EQ(message.rfind("Broken(3): error: ", 0), 0u) << message;
  EXPECT_NE(message.find("return sm_scale * lg2e;"), message.npos) << message;
  EXPECT_NE(message.find("batch_attention variant=Broken"), message.npos) << message;

  const FlashInferVariant v{"Theirs", "struct Theirs : AttentionVariantBase {\n  int x = nothing;\n};", {}, {}};
  const VariantCode theirs = attention::code_of(v);
  EXPECT_EQ(error_with(theirs.name.c_str(), theirs.text.c_str()).rfind("Theirs(2): error: ", 0), 0u);
}

TEST_F(CpuText, RefusesWhatIsNoVariant) {
  const auto refused = [](const char* name, const char* text) {
    Code code = Code::kInternal;
    const std::string message = error_with(name, text, &code);
    EXPECT_EQ(code, Code::kInvalidArgument) << message;
    EXPECT_NE(message.find("error"), message.npos) << message;
    return message;
  };
  refused("Empty", "");
  refused("Unended", "struct Unended : Defaults {");
  refused("Missing", "struct Other : Defaults { float scale_log2() const { return 1; } };");
  refused("NoScale", "struct NoScale : Defaults { float a, b; };");
  refused("Deep", "struct Deep : Defaults { float scale_log2() const { return 1; } ~Deep() {} };");
  EXPECT_NE(refused("Says", "#error this text is not for you").find("this text is not for you"), std::string::npos);
  refused("Reads", "#include \"/etc/passwd\"\n");
  refused("Absent", "#include <no/such/file.h>\nstruct Absent : Defaults {};");
  refused("Itself", "#include __FILE__\n");
  refused("Closes", "}}}} int x = ; namespace {");
}

TEST_F(CpuText, RefusesFieldsOfAnotherSize) {
  const char* text = "struct Sized : Defaults { float a[6]; FULMEN_FN float scale_log2() const { return a[0]; } };";
  EXPECT_EQ(error_with("Sized", text, nullptr, 24), "nothing was thrown");
  EXPECT_EQ(error_with("Sized", text, nullptr, 16),
            "batch_attention: variant has 16 bytes, expected 24, the size of Sized");
  EXPECT_NE(error_with("Sized", text, nullptr, 40), "nothing was thrown");
  EXPECT_NE(error_with("Sized", text, nullptr, -1), "nothing was thrown");
}

TEST(CpuTextRefusals, NameTheOpOfAWrongName) {
  const std::string message = error_with("Bad; name", "struct X {};");
  EXPECT_NE(message.find("expected a C++ name"), message.npos) << message;
}

}  // namespace
}  // namespace fulmen::testing
