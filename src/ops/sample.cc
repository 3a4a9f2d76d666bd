// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/sample.h>
#include <fulmen/runtime/registry.h>

namespace fulmen {

void check_one_or_per_row(std::string_view op, std::string_view name, const TensorView& t, int64_t batch_size) {
  if (!t.defined() || t.shape[0] == batch_size || t.shape[0] == 1) return;
  fail(op, name,
       "dim 0 is " + std::to_string(t.shape[0]) + ", expected batch_size " + std::to_string(batch_size) + " or 1");
}

SampleDims check(const SampleArgs& a) {
  const TokenFilter& f = a.filter;
  const Dims d = check(kSampleSchema, {&a.input, &a.indices, &a.out, &a.valid, &a.status, &f.top_k_arr, &f.top_p_arr,
                                       &f.min_p_arr, &a.random.seed_arr, &a.random.offset_arr, &a.temperature_arr});
  const int64_t num_rows = d["num_rows"], batch_size = d["batch_size"], vocab_size = d["vocab_size"];
  if (!a.indices.defined() && batch_size != num_rows)
    fail("sample", "out",
         "dim 0 (batch_size) is " + std::to_string(batch_size) + ", expected num_rows " + std::to_string(num_rows) +
             " where no indices are given");
  check_one_or_per_row("sample", "seed_arr", a.random.seed_arr, batch_size);
  check_one_or_per_row("sample", "offset_arr", a.random.offset_arr, batch_size);
  if (a.values == TokenValues::kProbs && (a.temperature != 1 || a.temperature_arr.defined()))
    fail("sample", "temperature", "is for logits, not for probabilities");
  require(a.temperature >= 0, "sample", "temperature", a.temperature, "0 or more");
  require(vocab_size > 0 || batch_size == 0, "sample", "vocab_size", vocab_size, "1 or more");
  require(vocab_size <= INT32_MAX, "sample", "vocab_size", vocab_size, "less than 2^31");
  return {num_rows, batch_size, vocab_size};
}

void sample(const SampleArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("sample");
  if (check(args).batch_size == 0) return;
  runtime::launch(kOp, args.out, &args, context);
}

}  // namespace fulmen
