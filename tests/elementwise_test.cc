// SPDX-License-Identifier: Apache-2.0
// elementwise without a GPU: its contract, its kernels' compilation and what a compile error says.
#include <fulmen/ops/elementwise.h>

#include "src/cuda/elementwise.h"
#include "src/jit/compile_log.h"
#include "src/jit/nvrtc.h"
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
  const std::string on_cpu = message({.text = "return a;", .name = "f"});
  EXPECT_NE(on_cpu.find("no kernel serves this call"), on_cpu.npos) << on_cpu;
}

TEST(ElementwiseCheck, RefusesEveryBrokenRule) {
  Tensor a(DType::kF32, {3, 4}), b(DType::kBF16, {3, 4}), out(DType::kE4M3, {3, 4});
  expect_every_break_refused(kElementwiseSchema, {a, b, a, a, out}, [](const std::vector<TensorView>& t) {
    check(ElementwiseArgs{.text = "return a;", .name = "f", .a = t[0], .b = t[1], .c = t[2], .d = t[3], .out = t[4]});
  });
}

}  // namespace
}  // namespace fulmen::testing
