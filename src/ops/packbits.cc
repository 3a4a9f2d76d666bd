// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/packbits.h>
#include <fulmen/runtime/registry.h>

namespace fulmen {

PackBitsDims check(const PackBitsArgs& a) {
  const Dims d = check(kPackBitsSchema, {&a.x, &a.out});
  const int64_t expected = (d["num_bits"] + 7) / 8;
  require(d["num_bytes"] == expected, "packbits", "out dim 0 (num_bytes)", d["num_bytes"], std::to_string(expected));
  return {d["num_bits"], d["num_bytes"]};
}

void packbits(const PackBitsArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("packbits");
  const PackBitsDims d = check(args);
  if (d.num_bits == 0) return;
  runtime::launch(kOp, args.out, &args, context);
}

}  // namespace fulmen
