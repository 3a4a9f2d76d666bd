// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/elementwise.h>
#include <fulmen/runtime/registry.h>

#include <algorithm>
#include <cctype>

#include "src/ops/checks.h"

namespace fulmen {
namespace {

bool is_identifier(std::string_view name) {
  const auto good = [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; };
  return !name.empty() && name.size() <= 64 && std::isdigit(static_cast<unsigned char>(name[0])) == 0 &&
         std::all_of(name.begin(), name.end(), good);
}

}  // namespace

ElementwiseDims check(const ElementwiseArgs& args) {
  const Dims d = check(kElementwiseSchema, {&args.a, &args.b, &args.c, &args.d, &args.out});
  if (args.text.empty()) fail("elementwise", "text", "is empty, expected the body of a function");
  if (!is_identifier(args.name))
    fail("elementwise", "name", "is '" + std::string(args.name.substr(0, 64)) + "', expected a C identifier");
  if (!args.b.defined() && (args.c.defined() || args.d.defined()))
    fail("elementwise", "b", "is missing, expected inputs without gaps");
  if (!args.c.defined() && args.d.defined()) fail("elementwise", "c", "is missing, expected inputs without gaps");
  return {d["num_tokens"], d["num_heads"], d["n"]};
}

void elementwise(const ElementwiseArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("elementwise");
  const ElementwiseDims d = check(args);
  if (d.num_tokens * d.num_heads * d.n == 0) return;
  runtime::launch(kOp, args.out, &args, context);
}

}  // namespace fulmen
