// SPDX-License-Identifier: Apache-2.0
// Prints every op's schema and every backend's kernel rows as JSON. tools/gen_docs.py makes docs/ops and the support
// matrix from it, so the docs say what the library checks and what its tables hold.
#include <fulmen/core/dtype.h>
#include <fulmen/runtime/registry.h>

#include <cstdio>

#include "all_schemas.h"  // made by gen_docs.py from include/fulmen/ops: kAllSchemas, {header, schema}

namespace fulmen {
namespace {

// Schemas hold names and short texts of ours: quotes and backslashes are all that needs an escape.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (char c : text) (c == '"' || c == '\\') ? (out += '\\', out += c) : out += c;
  return out + "\"";
}

std::string json(DTypes types) {
  std::string out = "[";
  for (int32_t i = 0; i < kNumDTypes; ++i)
    if (types.has(DType(i))) out.append(out.size() > 1 ? ", " : "").append(quoted(name_of(DType(i))));
  return out + "]";
}

const char* text_of(Access access) {
  return access == Access::kRead ? "read" : access == Access::kWrite ? "written" : "read and written";
}

void print(const char* header, const OpSchema& schema, bool last) {
  std::printf("  {\"op\": %s, \"header\": %s, \"tensors\": [\n", quoted(schema.op()).c_str(), quoted(header).c_str());
  for (const TensorRow& row : schema.rows())
    std::printf(
        "    {\"name\": %s, \"shape\": %s, \"dtypes\": %s, \"access\": \"%s\", \"optional\": %s, \"doc\": %s}%s\n",
        quoted(row.name).c_str(), quoted(row.shape).c_str(), json(row.dtypes).c_str(), text_of(row.access),
        row.presence == Presence::kOptional ? "true" : "false", quoted(row.doc).c_str(),
        &row == &schema.rows().back() ? "" : ",");
  std::printf("  ]}%s\n", last ? "" : ",");
}

}  // namespace
}  // namespace fulmen

int main() {
  using namespace fulmen;
  std::printf("{\"schemas\": [\n");
  for (const NamedSchema& s : kAllSchemas) print(s.header, *s.schema, &s == &kAllSchemas.back());
  std::printf("], \"kernels\": [\n");
  const char* comma = "";
  for (const runtime::Backend* backend : runtime::backends())
    for (int32_t i = 0; i < backend->num_rows; ++i, comma = ",\n") {
      const runtime::KernelRow& row = backend->rows[i];
      std::printf("%s  {\"op\": %s, \"kernel\": %s}", comma, quoted(row.op).c_str(), quoted(row.kernel).c_str());
    }
  std::printf("\n]}\n");
}
