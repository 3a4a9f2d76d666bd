// SPDX-License-Identifier: Apache-2.0
// The conformance run of a backend: every case of every op on that device, against the reference. A case that the
// backend refuses is skipped with its reason, so a backend without rows conforms, and each row that is added is tested.
#pragma once
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/reference/rmsnorm.h>
#include <fulmen/runtime/registry.h>

#include <functional>
#include <vector>

#include "tests/support/within.h"

namespace fulmen::testing {

struct DeviceMemory {
  DeviceType type;
  void* (*allocate)(size_t num_bytes);
  void (*release)(void* memory);
};

// A test's tensor as the device sees it: copied there whole, padding included, and back.
class OnDevice {
 public:
  OnDevice(const DeviceMemory& memory, Tensor& host) : memory_(memory), host_(host), view_(host.view()) {
    view_.device_type = memory.type;
    view_.data = memory.allocate(host.num_bytes());
    runtime::find_backend(memory.type)->copy(view_.data, host.view().data, host.num_bytes(), {});
  }
  ~OnDevice() { memory_.release(view_.data); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  const TensorView& view() const { return view_; }
  void copy_back() { runtime::find_backend(memory_.type)->copy(host_.view().data, view_.data, host_.num_bytes(), {}); }

 private:
  const DeviceMemory& memory_;
  Tensor& host_;
  TensorView view_;
};

struct ConformanceResult {
  std::string name, refusal;  // refusal: why the backend has no kernel for the case
  ::testing::AssertionResult ok = ::testing::AssertionSuccess();
};

// One line per case: a name and what to run. An op joins by adding its cases here.
using ConformanceCase = std::pair<std::string, std::function<::testing::AssertionResult(const DeviceMemory&)>>;

inline void add_rmsnorm_cases(std::vector<ConformanceCase>& cases) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (const std::vector<int64_t>& shape : {std::vector<int64_t>{5, 111}, {2, 3, 64}}) {
      const std::string name = std::string("rmsnorm/") + name_of(dtype) + "/rank" + std::to_string(shape.size());
      cases.emplace_back(name, [=](const DeviceMemory& device) {
        Tensor input(dtype, shape), weight(dtype, {shape.back()}), out(dtype, shape);
        input.fill_normal(1), weight.fill_normal(2);
        const auto expected = reference::rmsnorm({.input = input, .weight = weight, .out = out});
        OnDevice x(device, input), w(device, weight), y(device, out);
        rmsnorm({.input = x.view(), .weight = w.view(), .out = y.view()});
        y.copy_back();
        return within(out, expected);
      });
    }
}

inline std::vector<ConformanceResult> run_conformance(const DeviceMemory& device) {
  std::vector<ConformanceCase> cases;
  add_rmsnorm_cases(cases);
  std::vector<ConformanceResult> results;
  for (const auto& [name, run] : cases) {
    ConformanceResult result{.name = name, .refusal = {}};
    try {
      result.ok = run(device);
    } catch (const Error& e) {
      if (e.code == Code::kUnsupported)
        result.refusal = e.message;
      else
        result.ok = ::testing::AssertionFailure() << e.message;
    }
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace fulmen::testing
