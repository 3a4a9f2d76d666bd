// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/elementwise.h"

#include <map>
#include <shared_mutex>

#include "src/cuda/rows.h"

namespace fulmen::cuda {
namespace {

using elementwise::kThreads;
static_assert(elementwise::kNumbers == ElementwiseArgs::kNumbers);

int32_t vec_of(const ElementwiseArgs& a) {
  int32_t vec = vec_for(Rows(a.out), Rows(a.a));
  for (const TensorView* t : {&a.b, &a.c, &a.d})
    if (t->defined()) vec = std::min(vec, Rows(*t).max_vec());
  return vec;
}

Work<elementwise::Key, elementwise::Params> work_of(const ElementwiseArgs& a) {
  Work<elementwise::Key, elementwise::Params> w{.key = {.out = a.out.dtype, .inputs = 0, .vec = vec_of(a)},
                                                .params = {},
                                                .shape = {.num_threads = kThreads},
                                                .persistent = false};
  Rows out(a.out), in[elementwise::kMostInputs] = {Rows(a.a), out, out, out};
  DType* const dtypes[] = {&w.key.a, &w.key.b, &w.key.c, &w.key.d};
  bool even = out.even();
  for (const TensorView* t : {&a.a, &a.b, &a.c, &a.d}) {
    if (!t->defined()) break;
    *dtypes[w.key.inputs] = t->dtype;
    in[w.key.inputs] = Rows(*t);
    even = even && in[w.key.inputs++].even();
  }
  if (even) out.flatten();
  for (int32_t i = 0; i < elementwise::kMostInputs; ++i) {
    if (even) in[i].flatten();
    w.params.in[i] = in[i];
  }
  w.params.out = out, w.params.rows = out.count();
  w.params.num_vecs = out.num_rows() * (out.n / w.key.vec);
  std::copy(std::begin(a.s), std::end(a.s), w.params.s);
  w.shape.grid = uint32_t(math::ceil_div(w.params.num_vecs, int64_t(kThreads)));
  return w;
}

// By text, key and device. Never forgotten, like all kernels.
const Function& function_for(const ElementwiseArgs& a, const elementwise::Key& key, const Device& device) {
  static auto* mutex = new std::shared_mutex;
  static auto* all = new std::map<std::string, Function>;
  std::string id = jit::line_of(a.name, key);
  id.append(" ").append(std::to_string(device.id)).append("\n").append(a.text);
  {
    const std::shared_lock lock(*mutex);
    if (const auto found = all->find(id); found != all->end()) return found->second;
  }
  const Function made = load(elementwise_unit(key, a.name, a.text), device, {.num_threads = kThreads});
  const std::unique_lock lock(*mutex);
  return all->emplace(std::move(id), made).first->second;
}

}  // namespace

jit::Unit elementwise_unit(const elementwise::Key& key, std::string_view name, std::string_view text) {
  jit::Unit unit = jit::unit_of("elementwise", key);
  // 940: a function that ends without its result. A text may end in a backslash.
  std::string user =
      "#pragma nv_diag_error 940\nstruct User {\n  static __device__ float apply(float a, float b, float c, float d, "
      "const float* s) {\n";
  user.append("#line 1 \"").append(name).append("\"\n").append(text).append("\n\n#line 100 \"kernel.cu\"\n  }\n};\n");
  unit.source.replace(unit.source.find("run<kKey>"), 9, "run<kKey, User>");
  unit.source.insert(unit.source.find("extern \"C\""), user);
  unit.key.append(" name=").append(name);
  return unit;
}

runtime::Refusal Elementwise::refuses(const Args& a) {
  const Rows out(a.out);
  if (out.n > 0x7fffffff) return "n is beyond 2147483647";
  if (out.num_rows() > 0x7fffffff && out.num_heads > 1) return "more than 2147483647 rows of heads";
  if (out.num_rows() * (out.n / vec_of(a)) / kThreads >= 0x7fffffff) return "too many elements for one grid";
  return {};
}

void Elementwise::launch(const Args& a, const Device& device, const Context& context) {
  const auto w = work_of(a);
  const CurrentContext current(device.primary);
  cuda::launch(kName, function_for(a, w.key, device), w.shape, &w.params, context);
}

void Elementwise::prepare(const Args& a, const Device& device) {
  const CurrentContext current(device.primary);
  function_for(a, work_of(a).key, device);
}

}  // namespace fulmen::cuda
