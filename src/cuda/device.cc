// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/device.h"

#include <fulmen/core/error.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <mutex>

namespace fulmen::cuda {
namespace {

struct Target {
  int32_t arch;
  const char* name;
};
// 'a' targets hold instructions that only their own version has, so their code runs there alone.
constexpr Target kTargets[] = {{75, "sm_75"},    {80, "sm_80"},    {86, "sm_86"},    {87, "sm_87"},
                               {89, "sm_89"},    {90, "sm_90a"},   {100, "sm_100a"}, {103, "sm_103a"},
                               {110, "sm_110a"}, {120, "sm_120a"}, {121, "sm_121a"}};

int32_t attribute(int32_t which, driver::DeviceId handle) {
  int32_t value = 0;
  check(driver::api().device_attribute(&value, which, handle), "cuDeviceGetAttribute");
  return value;
}

// For tests of the older paths: every kernel is compiled for this target, as PTX ("compute_80") that the driver
// finishes, and chosen as that architecture's device would choose it.
void pretend(Device& d, const std::string& target) {
  d.targets = {target};
  const size_t digits = target.find_first_of("0123456789");
  if (digits == target.npos) return;  // the emulated device
  d.arch = std::min(d.arch, std::atoi(target.c_str() + digits));
  d.max_shared_bytes = std::min(d.max_shared_bytes, shared_bytes_of(d.arch));
}

Device describe(int32_t id) {
  const driver::Api& cu = driver::api();
  driver::DeviceId handle = 0;
  check(cu.device_get(&handle, id), "cuDeviceGet");
  char name[256] = "";
  check(cu.device_name(name, sizeof name, handle), "cuDeviceGetName");
  Device d;
  d.id = id;
  d.name = name;
  d.arch = 10 * attribute(driver::kMajor, handle) + attribute(driver::kMinor, handle);
  d.num_sms = attribute(driver::kMultiprocessors, handle);
  d.max_shared_bytes = attribute(driver::kMaxSharedOptin, handle);
  d.l2_bytes = attribute(driver::kL2Bytes, handle);
  d.targets = targets_of(d.arch);
  if (const char* target = std::getenv("FULMEN_CUDA_TARGET"); target != nullptr && *target != '\0') pretend(d, target);
  check(cu.primary_context_retain(&d.primary, handle), "cuDevicePrimaryCtxRetain");
  return d;
}

struct Devices {
  std::mutex mutex;
  std::vector<std::atomic<const Device*>> all;  // null: not asked yet; never destroyed
  explicit Devices(int32_t n) : all(size_t(n)) {}
};

int32_t count() {
  int32_t n = 0;
  return driver::problem().empty() && driver::api().device_count(&n) == 0 ? n : 0;
}

}  // namespace

int32_t shared_bytes_of(int32_t arch) {
  switch (arch) {
    case 75: return 64 << 10;
    case 80:
    case 87: return 163 << 10;
    case 86:
    case 89:
    case 120:
    case 121: return 99 << 10;
    default: return 227 << 10;
  }
}

std::string target_of(int32_t arch) {
  const Target* best = nullptr;
  for (const Target& t : kTargets)
    if (t.arch <= arch && t.arch / 10 == arch / 10) best = &t;
  const bool exact =
      best != nullptr && (best->arch == arch || best->name[std::char_traits<char>::length(best->name) - 1] != 'a');
  if (exact) return best->name;
  int32_t ptx = 75;
  for (const Target& t : kTargets)
    if (t.arch <= arch) ptx = t.arch;
  return "compute_" + std::to_string(ptx);
}

std::vector<std::string> targets_of(int32_t arch) {
  std::vector<std::string> all = {target_of(arch)};
  for (size_t i = std::size(kTargets); i-- > 0;) {
    const Target& t = kTargets[i];
    const std::string name = t.name;
    if (t.arch <= arch && t.arch / 10 == arch / 10 && name.back() != 'a' && name != all.front()) all.push_back(name);
  }
  return all;
}

std::vector<int32_t> archs_of(const std::string& target) {
  constexpr std::string_view kPtx = "compute_";
  const int32_t least = target.starts_with(kPtx) ? std::atoi(target.c_str() + kPtx.size()) : 0;
  std::vector<int32_t> archs;
  for (const Target& t : kTargets) {
    const std::vector<std::string> runs = targets_of(t.arch);
    const bool is_run = std::find(runs.begin(), runs.end(), target) != runs.end();
    if (least > 0 ? t.arch >= least : is_run) archs.push_back(t.arch);
  }
  return archs;
}

int32_t num_devices() {
  static const int32_t n = count();
  return n;
}

const Device& device(int32_t id) {
  static Devices* devices = new Devices(num_devices());
  if (id < 0 || size_t(id) >= devices->all.size()) {
    (void)driver::api();  // says why there is no driver
    throw Error(Code::kInvalidArgument, "cuda: device " + std::to_string(id) + " of " + std::to_string(num_devices()));
  }
  std::atomic<const Device*>& known = devices->all[size_t(id)];
  if (const Device* d = known.load(std::memory_order_acquire)) return *d;  // every launch comes by here
  const std::lock_guard lock(devices->mutex);
  if (known.load(std::memory_order_relaxed) == nullptr)
    known.store(new Device(describe(id)), std::memory_order_release);
  return *known.load(std::memory_order_relaxed);
}

CurrentContext::CurrentContext(driver::Context context) {
  driver::Context current = nullptr;
  check(driver::api().context_get(&current), "cuCtxGetCurrent");
  if (current == context) return;
  check(driver::api().context_push(context), "cuCtxPushCurrent");
  pushed_ = true;
}

CurrentContext::~CurrentContext() {
  driver::Context popped = nullptr;
  if (pushed_) driver::api().context_pop(&popped);
}

}  // namespace fulmen::cuda
