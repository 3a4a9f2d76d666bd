// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/segment_packbits.h>
#include <fulmen/runtime/registry.h>

namespace fulmen {

SegmentPackBitsDims check(const SegmentPackBitsArgs& a) {
  const Dims d = check(kSegmentPackBitsSchema, {&a.x, &a.indptr, &a.out, &a.out_indptr});
  return {d["num_bits"], d["batch_size"], d["num_bytes"]};
}

void segment_packbits(const SegmentPackBitsArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("segment_packbits");
  check(args);
  runtime::launch(kOp, args.out_indptr, &args, context);
}

}  // namespace fulmen
