// SPDX-License-Identifier: Apache-2.0
// CPU chain_speculative_sampling. A work item is one request: single numbers decide acceptance; only the position that
// ends the chain reads whole rows. Called by src/cpu/levels/chain_speculative_sampling.cc.
#pragma once
#include <fulmen/cpu/sample.h>
#include <fulmen/ops/chain_speculative_sampling.h>

FULMEN_CPU_BEGIN

// residual = relu(target - draft), NaN where either is.
inline void subtract_rows(const float* target, const float* draft, int64_t n, float* residual) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(residual + i, max(zeros(), load(target + i) - load(draft + i)));
  if (const int32_t left = int32_t(n - i); left > 0)
    store_n(residual + i, max(zeros(), load_n(target + i, left) - load_n(draft + i, left)), left);
}

struct Chain {
  const ChainSpeculativeSamplingArgs& a;
  int64_t num_draft, vocab_size, row;

  const float* draft(int64_t i) const {
    return a.draft_probs.as<float>() + row * a.draft_probs.strides[0] + i * a.draft_probs.strides[1];
  }
  const float* target(int64_t i) const {
    return a.target_probs.as<float>() + row * a.target_probs.strides[0] + i * a.target_probs.strides[1];
  }
  int64_t token(int64_t i) const {
    return get_id(a.draft_token_ids, row * a.draft_token_ids.strides[0] + i * a.draft_token_ids.strides[1]);
  }
  bool in_range(int64_t i) const { return token(i) >= 0 && token(i) < vocab_size; }
  bool accepts(int64_t i) const {
    if (!in_range(i)) return false;
    const double u = uniform(random_block(a.random, row, i), 0);
    return u * double(draft(i)[token(i)]) < double(target(i)[token(i)]);
  }

  // The token that ends the chain at position i.
  Drawn last_token(int64_t i) const {
    const double u = uniform(random_block(a.random, row, i), 1);
    const RowFilter all{};
    if (i == num_draft) return draw_row(target(i), vocab_size, TokenValues::kProbs, all, u);
    float* residual = residual_scratch(vocab_size);
    subtract_rows(target(i), draft(i), vocab_size, residual);
    const Drawn drawn = draw_row(residual, vocab_size, TokenValues::kProbs, all, u);
    // equal distributions leave no residual; the refusal was a draft of probability 0, so any sample of target is right
    if (drawn.status == RowStatus::kEmpty) return draw_row(target(i), vocab_size, TokenValues::kProbs, all, u);
    return drawn;
  }

  // draw_row takes rows as they are, so its own scratch has room for the residual beside it.
  static float* residual_scratch(int64_t n) { return row_scratch(n).row; }
};

inline void add_to(const TensorView& t, int64_t row, int64_t n) {
  if (t.defined()) t.as<uint32_t>()[row * t.strides[0]] += uint32_t(n);  // a count at its end starts anew
}

inline void verify_chain(const Chain& c) {
  int64_t emitted = 0, accepted = 0;
  bool bad_token = false;
  for (int64_t i = 0; i < c.num_draft; ++i) {
    const bool accepts = c.accepts(i);
    bad_token |= !c.in_range(i);
    accepted += accepts;
    if (accepts && emitted == i) ++emitted;
  }
  const Drawn last = c.last_token(emitted);
  const int64_t begin = c.row * c.a.out.strides[0], step = c.a.out.strides[1];
  for (int64_t i = 0; i <= c.num_draft; ++i)
    set_id(c.a.out, begin + i * step, i < emitted ? c.token(i) : i == emitted ? last.token : -1);
  add_to(c.a.accepted_num, c.row, accepted);
  add_to(c.a.emitted_num, c.row, emitted);
  set_status(c.a.status, c.row, bad_token ? RowStatus::kBadParameter : last.status);
}

inline void chain_speculative_sampling(const ChainSpeculativeSamplingArgs& a, const ChainSpeculativeSamplingDims& d,
                                       const Executor& executor) {
  parallel_for(executor, d.batch_size, [&](int64_t row, int32_t) {
    verify_chain({a, d.num_draft_tokens, d.vocab_size, row});
  });
}

FULMEN_CPU_END
