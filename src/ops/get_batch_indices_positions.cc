// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/get_batch_indices_positions.h>
#include <fulmen/runtime/registry.h>

namespace fulmen {

GetBatchIndicesPositionsDims check(const GetBatchIndicesPositionsArgs& a) {
  const Dims d =
      check(kGetBatchIndicesPositionsSchema, {&a.append_indptr, &a.seq_lens, &a.batch_indices, &a.positions});
  return {d["batch_size"], d["nnz"]};
}

void get_batch_indices_positions(const GetBatchIndicesPositionsArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("get_batch_indices_positions");
  const GetBatchIndicesPositionsDims d = check(args);
  if (d.nnz == 0) return;
  runtime::launch(kOp, args.batch_indices, &args, context);
}

}  // namespace fulmen
