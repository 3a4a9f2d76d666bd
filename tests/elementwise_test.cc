// SPDX-License-Identifier: Apache-2.0
// elementwise without a GPU: its contract, its kernels' compilation and what a compile error says.
#include <fulmen/ops/elementwise.h>
#include <fulmen/reference/bounded.h>
#include <fulmen/runtime/registry.h>

#include "src/cuda/elementwise.h"
#include "src/jit/compile_log.h"
#include "src/jit/host_compiler.h"
#include "src/jit/nvrtc.h"
#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/tensor.h"

namespace fulmen::testing {
namespace {

jit::Kernel kernel_of(std::string_view text, const cuda::elementwise::Key& key = {.inputs = 2, .vec = 4}) {
  const jit::Unit unit = cuda::elementwise_unit(key, "my_op", text);
  return {.key = unit.key, .arch = "sm_90a", .source = unit.source};
}

std::string compile_error(std::string_view text) {
  jit::Kernel k = kernel_of(text);
  try {
    jit::compile(&k);
  } catch (const Error& e) {
    EXPECT_EQ(e.code, Code::kInvalidArgument);
    return e.message;
  }
  return "compiled";
}

TEST(Elementwise, AnErrorStartsWithTheTextsOwnLine) {
  if (jit::nvrtc().version.empty()) GTEST_SKIP() << jit::nvrtc().problem;
  EXPECT_EQ(compile_error("return a * b;"), "compiled");
  const std::string message = compile_error("const float t = a * b;\nreturn sigmoid(t);");
  EXPECT_EQ(message.rfind("my_op(2): error: ", 0), 0u) << message;
  EXPECT_NE(message.find("return sigmoid(t);"), message.npos) << message;
  EXPECT_NE(message.find("elementwise a=float32"), message.npos) << message;
  EXPECT_EQ(compile_error("return a +;").rfind("my_op(1): error: ", 0), 0u);
}

TEST(Elementwise, EveryDTypeCompilesWithoutSpills) {
  if (jit::nvrtc().version.empty()) GTEST_SKIP() << jit::nvrtc().problem;
  for (DType in : {DType::kF32, DType::kF16, DType::kBF16, DType::kE4M3})
    for (DType out : {DType::kBF16, DType::kE5M2}) {
      jit::Kernel k = kernel_of("return a / (1 + expf(-a)) * b + c * s[0];",
                                {.a = in, .b = in, .c = DType::kF32, .out = out, .inputs = 3, .vec = 8});
      jit::compile(&k);
      EXPECT_EQ(k.resources.stack_bytes, 0) << name_of(in);
    }
}

TEST(ElementwiseOnTheCpu, ComputesTheText) {
  setenv("FULMEN_CACHE_DIR", FULMEN_TEXT_CACHE, 1);
  if (jit::host_compiler().command.empty()) GTEST_SKIP() << jit::host_compiler().problem;
  for (CpuLevel level : levels())
    for (DType t : {DType::kF32, DType::kF16, DType::kBF16})
      for (const std::vector<int64_t>& shape :
           std::vector<std::vector<int64_t>>{{0, 8}, {3, 1}, {3, 7}, {5, 64}, {4, 2, 1111}}) {
        Tensor a(t, shape, shape[0] % 2), b(DType::kF32, shape), out(DType::kF32, shape, 3);
        a.fill_integers(1, -9, 9), b.fill_integers(2, -9, 9);
        elementwise({.text = "const float t = a * b;\nreturn t + s[1] * a + c;",
                     .name = "mul_add",
                     .a = a,
                     .b = b,
                     .out = out,
                     .s = {0, 3}},
                    at(level));
        for (int64_t i = 0; i < a.view().num_elements(); ++i) {
          const double x = reference::element(a, i), y = reference::element(b, i);
          ASSERT_EQ(reference::element(out, i), x * y + 3 * x) << name_of(t) << " " << i;
        }
        EXPECT_TRUE(out.guards_intact());
      }
}

TEST(ElementwiseOnTheCpu, BroadcastsRowsInPlaceAndSaturates) {
  setenv("FULMEN_CACHE_DIR", FULMEN_TEXT_CACHE, 1);
  if (jit::host_compiler().command.empty()) GTEST_SKIP() << jit::host_compiler().problem;
  Tensor a(DType::kE4M3, {6, 40}), row(DType::kF16, {1, 40});
  a.fill_integers(1, -9, 9), row.fill_integers(2, -9, 9);
  const Tensor before = a;
  TensorView rows = row;
  rows.shape[0] = 6, rows.strides[0] = 0;
  elementwise({.text = "return a * b * expf(0.f) * 100;", .name = "f", .a = a, .b = rows, .out = a});
  for (int64_t i = 0; i < 240; ++i) {
    const double exact = reference::element(before, i) * reference::element(row, i % 40) * 100;
    ASSERT_EQ(reference::element(a, i), double(to_f32(to_e4m3(float(exact))))) << exact;
  }
}

TEST(ElementwiseOnTheCpu, IsPreparedBeforeItRuns) {
  if (jit::host_compiler().command.empty()) GTEST_SKIP() << jit::host_compiler().problem;
  setenv("FULMEN_CACHE_DIR", FULMEN_TEXT_CACHE, 1);
  Tensor a(DType::kF32, {3, 4}), out(DType::kF32, {3, 4});
  const ElementwiseArgs wrong{.text = "return nothing;", .name = "wrong", .a = a, .out = out};
  const auto prepare = [&] { runtime::prepare(runtime::op_handle("elementwise"), wrong.out, &wrong, {}); };
  EXPECT_EQ(error_of(prepare).rfind("wrong(1): error: ", 0), 0u);
}

TEST(ElementwiseErrors, OfTheHostsCompilerHaveTheSameForm) {
  const std::string log = "unit.cc:9:1: error: one\nmy_op:2:7: warning: two\nmy_op:2:8: error: three\n  noise\n";
  EXPECT_EQ(jit::first_host_errors(log, "x\n#line 1 \"my_op\"\nfirst;\nsecond;\n", "my_op"),
            "my_op(2): error: three\n  second;");
  EXPECT_EQ(jit::first_host_errors(log, "", ""), log);
}

TEST(ElementwiseErrors, AreTheOwnFilesFirst) {
  const std::string log = "kernel.cu(9): error: one\nmy_op(3): warning: two\nmy_op(4): error: three\n  line\n";
  EXPECT_EQ(jit::first_errors(log, "my_op"), "my_op(4): error: three\n  line\n");
  EXPECT_EQ(jit::first_errors(log), log);
  EXPECT_EQ(jit::own_file_of("x\n#line 1 \"my_op\"\ny"), "my_op");
  EXPECT_EQ(jit::own_file_of("x"), "");
}

TEST(ElementwiseCheck, NamesWhatIsWrong) {
  Tensor a(DType::kF32, {3, 4}), out(DType::kF32, {3, 4});
  const auto message = [&](ElementwiseArgs args) {
    args.a = a, args.out = out;
    try {
      elementwise(args);
    } catch (const Error& e) { return e.message; }
    return std::string("accepted");
  };
  EXPECT_EQ(message({.name = "f"}), "elementwise: text is empty, expected the body of a function");
  EXPECT_EQ(message({.text = "return a;", .name = "f\"g"}), "elementwise: name is 'f\"g', expected a C identifier");
  EXPECT_EQ(message({.text = "return a;", .name = "f", .c = a}),
            "elementwise: b is missing, expected inputs without gaps");
}

TEST(ElementwiseCheck, RefusesEveryBrokenRule) {
  Tensor a(DType::kF32, {3, 4}), b(DType::kBF16, {3, 4}), out(DType::kE4M3, {3, 4});
  expect_every_break_refused(kElementwiseSchema, {a, b, a, a, out}, [](const std::vector<TensorView>& t) {
    check(ElementwiseArgs{.text = "return a;", .name = "f", .a = t[0], .b = t[1], .c = t[2], .d = t[3], .out = t[4]});
  });
}

}  // namespace
}  // namespace fulmen::testing
