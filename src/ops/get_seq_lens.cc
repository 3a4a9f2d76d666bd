// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/get_seq_lens.h>
#include <fulmen/runtime/registry.h>

namespace fulmen {

GetSeqLensDims check(const GetSeqLensArgs& a) {
  const Dims d = check(kGetSeqLensSchema, {&a.kv_indptr, &a.last_page_len, &a.seq_lens});
  require(a.page_size >= 1, "get_seq_lens", "page_size", a.page_size, "1 or more");
  return {d["batch_size"]};
}

void get_seq_lens(const GetSeqLensArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("get_seq_lens");
  const GetSeqLensDims d = check(args);
  if (d.batch_size == 0) return;
  runtime::launch(kOp, args.seq_lens, &args, context);
}

}  // namespace fulmen
