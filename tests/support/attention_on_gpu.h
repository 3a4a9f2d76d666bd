// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>

#include "tests/support/attention_problem.h"
#include "tests/support/gpu_tensor.h"

namespace fulmen::testing {

// A problem whose tensors lie on the GPU.
struct OnDevice {
  AttentionProblem& p;
  std::vector<std::unique_ptr<GpuTensor>> memory;
  GpuTensor *out = nullptr, *lse = nullptr;
  AttentionArgs args;

  explicit OnDevice(AttentionProblem& problem) : p(problem), args(problem.args) {
    p.out.poison(0xff), p.lse.poison(0xff);
    put(args.q, p.q), put(args.qo_indptr, p.qo_indptr), put(args.kv_indptr, p.kv_indptr);
    put(args.kv_indices, p.kv_indices), put(args.last_page_len, p.last_page_len);
    put(args.block_tables, p.block_tables), put(args.seq_lens, p.seq_lens);
    put(args.custom_mask, p.custom_mask), put(args.mask_indptr, p.mask_indptr);
    put(args.alibi_slopes, p.alibi_slopes), put(args.sinks, p.sinks);
    if (p.c.one_tensor) {
      const char* base = p.kv.data<char>();
      const GpuTensor& kv = add(p.kv);
      move(args.k, kv, args.k.as<char>() - base), move(args.v, kv, args.v.as<char>() - base);
    } else {
      put(args.k, p.k), put(args.v, p.v);
    }
    put(args.out, p.out), out = memory.back().get();
    put(args.lse, p.lse), lse = memory.back().get();
  }
  GpuTensor& add(Tensor& t) { return *memory.emplace_back(std::make_unique<GpuTensor>(t)); }
  static void move(TensorView& view, const GpuTensor& to, int64_t bytes) {
    view.data = TensorView(to).as<char>() + bytes;
    view.device_type = DeviceType::kCuda;
  }
  void put(TensorView& view, Tensor& t) {
    if (view.defined()) move(view, add(t), 0);
  }
  void fetch() { out->fetch(), lse->fetch(); }
  // args for a plan of the host: lengths in its memory.
  AttentionArgs with_host_lengths() const {
    AttentionArgs host = args;
    host.qo_indptr = p.args.qo_indptr, host.kv_indptr = p.args.kv_indptr, host.last_page_len = p.args.last_page_len;
    return host;
  }
};

}  // namespace fulmen::testing
