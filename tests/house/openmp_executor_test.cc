// SPDX-License-Identifier: Apache-2.0
// A kernel on OpenMP's threads gives the same bytes as on the caller alone.
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/runtime/openmp_executor.h>

#include <cstdio>
#include <cstring>
#include <vector>

int main() {
  std::vector<float> x(64 * 256), w(256, 1.5f), a(x.size()), b(x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(i % 97) - 48;
  fulmen::RmsNormArgs args{.input = fulmen::view_of(x.data(), {64, 256}),
                           .weight = fulmen::view_of(w.data(), {256}),
                           .out = fulmen::view_of(a.data(), {64, 256})};
  fulmen::rmsnorm(args, {.executor = &fulmen::kSerialExecutor});
  args.out.data = b.data();
  const fulmen::Executor openmp = fulmen::runtime::openmp_executor(3);
  fulmen::rmsnorm(args, {.executor = &openmp});
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0 ? 0 : 1;
}
