// SPDX-License-Identifier: Apache-2.0
// The example backend of examples/04_new_backend passes the conformance run; so does the CPU.
#include <fulmen/runtime/dry_run.h>

#include <cstdlib>

#include "examples/04_new_backend/toy_backend.cc"  // the example itself, not a library
#include "tests/support/conformance.h"
#include "tests/support/levels.h"

namespace fulmen::testing {
namespace {

const bool kRegistered = (toy::register_backend(), true);  // once, whichever tests of this file run

int32_t count_run(const DeviceMemory& device) {
  int32_t num_run = 0;
  for (const ConformanceResult& r : run_conformance(device)) {
    EXPECT_TRUE(r.ok) << r.name;
    num_run += r.refusal.empty();
  }
  return num_run;
}

TEST(NewBackend, ConformsAndSkipsWhatItRefuses) {
  ASSERT_TRUE(kRegistered);
  EXPECT_EQ(count_run({toy::kToyDevice, toy::allocate, toy::release}), 1);
  EXPECT_EQ(count_run({DeviceType::kCpu, std::malloc, std::free}), 6);
}

TEST(NewBackend, TheErrorListsEveryRefusal) {
  Tensor x(DType::kBF16, {2, 8}), weight(DType::kBF16, {8});
  TensorView t = x, w = weight;
  t.device_type = w.device_type = toy::kToyDevice;
  EXPECT_EQ(error_of([&] { rmsnorm({.input = t, .weight = w, .out = t}); }),
            "rmsnorm: no kernel serves this call\n  toy/simple: input is bfloat16, this kernel has float32 only");
  t.device_type = w.device_type = DeviceType(101);
  EXPECT_EQ(error_of([&] { rmsnorm({.input = t, .weight = w, .out = t}); }),
            "rmsnorm: no kernel serves this call\n  no backend is registered for device type 101");
}

TEST(NewBackend, ADryRunChoosesAndRunsNothing) {
  Tensor x(DType::kF32, {2, 8}), w(DType::kF32, {8}), out(DType::kF32, {2, 8});
  TensorView xv = x, wv = w, ov = out;
  xv.device_type = wv.device_type = ov.device_type = toy::kToyDevice;
  {
    const runtime::DryRun dry;
    rmsnorm({.input = xv, .weight = wv, .out = ov});
    ASSERT_EQ(dry.rows().size(), 1u);
    EXPECT_EQ(dry.rows()[0]->kernel, "toy/simple");
    xv.dtype = DType::kBF16;
    EXPECT_NE(error_of([&] { rmsnorm({.input = xv, .weight = wv, .out = ov}); }), "");
  }
  const TensorView y = out;
  EXPECT_NE(y.as<float>()[0], y.as<float>()[0]);  // poisoned with NaN, as it was made
}

TEST(NewBackend, ATakenDeviceTypeAndAnotherVersionAreRefused) {
  static runtime::Backend other = *runtime::find_backend(DeviceType::kCpu);
  EXPECT_EQ(error_of([] { runtime::register_backend(&other); }), "register_backend: cpu its device type is taken");
  other.api_version = 99;
  EXPECT_EQ(error_of([] { runtime::register_backend(&other); }), "register_backend: cpu api_version is 99, expected 1");
}

}  // namespace
}  // namespace fulmen::testing
