// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/chain_speculative_sampling.h>
#include <fulmen/runtime/registry.h>

namespace fulmen {

ChainSpeculativeSamplingDims check(const ChainSpeculativeSamplingArgs& a) {
  const Dims d = check(kChainSpeculativeSamplingSchema,
                       {&a.draft_probs, &a.draft_token_ids, &a.target_probs, &a.out, &a.accepted_num, &a.emitted_num,
                        &a.status, &a.random.seed_arr, &a.random.offset_arr});
  const int64_t batch_size = d["batch_size"], vocab_size = d["vocab_size"];
  check_one_or_per_row("chain_speculative_sampling", "seed_arr", a.random.seed_arr, batch_size);
  check_one_or_per_row("chain_speculative_sampling", "offset_arr", a.random.offset_arr, batch_size);
  require(vocab_size > 0 || batch_size == 0, "chain_speculative_sampling", "vocab_size", vocab_size, "1 or more");
  require(vocab_size <= INT32_MAX, "chain_speculative_sampling", "vocab_size", vocab_size, "less than 2^31");
  return {batch_size, d["num_draft_tokens"], vocab_size};
}

void chain_speculative_sampling(const ChainSpeculativeSamplingArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("chain_speculative_sampling");
  if (check(args).batch_size == 0) return;
  runtime::launch(kOp, args.out, &args, context);
}

}  // namespace fulmen
