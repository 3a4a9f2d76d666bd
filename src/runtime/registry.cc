// SPDX-License-Identifier: Apache-2.0
#include <fulmen/runtime/dry_run.h>
#include <fulmen/runtime/registry.h>

#include <algorithm>
#include <mutex>
#include <shared_mutex>

namespace fulmen::runtime {
namespace {

struct Entry {
  const Backend* backend;
  std::vector<std::vector<const KernelRow*>> rows;  // [op] most specialised first
};

struct Registry {
  std::shared_mutex mutex;
  std::vector<std::string> ops;  // OpHandle → name
  std::vector<Entry> entries;
};

Registry& registry() {
  static Registry* r = new Registry;  // never destroyed: kernels may run while statics die
  return *r;
}

OpHandle intern(Registry& r, std::string_view op) {
  const auto found = std::find(r.ops.begin(), r.ops.end(), op);
  if (found != r.ops.end()) return OpHandle(found - r.ops.begin());
  r.ops.emplace_back(op);
  for (Entry& e : r.entries) e.rows.resize(r.ops.size());
  return OpHandle(r.ops.size()) - 1;
}

const Entry* find(const Registry& r, DeviceType type) {
  for (const Entry& e : r.entries)
    if (e.backend->device_type == type) return &e;
  return nullptr;
}

}  // namespace

void register_backend(const Backend* backend) {
  Registry& r = registry();
  const std::unique_lock lock(r.mutex);
  if (backend->api_version != kBackendApiVersion)
    fail("register_backend", backend->name,
         "api_version is " + std::to_string(backend->api_version) + ", expected " + std::to_string(kBackendApiVersion));
  if (find(r, backend->device_type) != nullptr) fail("register_backend", backend->name, "its device type is taken");
  r.entries.push_back({backend, std::vector<std::vector<const KernelRow*>>(r.ops.size())});
  for (int32_t i = 0; i < backend->num_rows; ++i) {
    const OpHandle op = intern(r, backend->rows[i].op);
    r.entries.back().rows[size_t(op)].push_back(&backend->rows[i]);
  }
}

const Backend* find_backend(DeviceType type) {
  Registry& r = registry();
  const std::shared_lock lock(r.mutex);
  const Entry* e = find(r, type);
  return e == nullptr ? nullptr : e->backend;
}

std::vector<const Backend*> backends() {
  Registry& r = registry();
  const std::shared_lock lock(r.mutex);
  std::vector<const Backend*> all;
  for (const Entry& e : r.entries) all.push_back(e.backend);
  return all;
}

OpHandle op_handle(std::string_view op) {
  Registry& r = registry();
  const std::unique_lock lock(r.mutex);
  return intern(r, op);
}

Choice choose(OpHandle op, DeviceType type, int32_t device_id, const void* args, const Context& context) {
  Registry& r = registry();
  const std::shared_lock lock(r.mutex);
  Choice choice;
  const Entry* e = find(r, type);
  if (e == nullptr) {
    choice.refusals = "\n  no backend is registered for device type " + std::to_string(int32_t(type));
    return choice;
  }
  const DeviceInfo device = e->backend->device_info(device_id, context);
  for (const KernelRow* row : e->rows[size_t(op)]) {
    const Refusal refusal = row->refuses(args, device);
    if (refusal.empty()) {
      choice.row = row;
      return choice;
    }
    choice.refusals.append("\n  ").append(row->kernel).append(": ").append(refusal);
  }
  if (choice.refusals.empty())
    choice.refusals.append("\n  ").append(e->backend->name).append(": has no kernel for this op");
  return choice;
}

namespace {

std::string name_of(OpHandle op) {  // a copy: another thread may be adding names
  Registry& r = registry();
  const std::shared_lock lock(r.mutex);
  return r.ops[size_t(op)];
}

const KernelRow& row_for(OpHandle op, const TensorView& where, const void* args, const Context& context) {
  const Choice choice = choose(op, where.device_type, where.device_id, args, context);
  if (choice.row == nullptr)
    throw Error(Code::kUnsupported, name_of(op) + ": no kernel serves this call" + choice.refusals);
  return *choice.row;
}

}  // namespace

namespace {
thread_local DryRun* dry_run = nullptr;
}

DryRun::DryRun() { dry_run = this; }
DryRun::~DryRun() { dry_run = nullptr; }

bool skipped(const KernelRow& row) {
  if (dry_run == nullptr) return false;
  dry_run->rows_.push_back(&row);
  return true;
}

void launch(OpHandle op, const TensorView& where, const void* args, const Context& context) {
  const KernelRow& row = row_for(op, where, args, context);
  if (!skipped(row)) row.launch(args, context);
}

void prepare(OpHandle op, const TensorView& where, const void* args, const Context& context) {
  const KernelRow& row = row_for(op, where, args, context);
  if (!skipped(row) && row.prepare != nullptr) row.prepare(args, context);
}

}  // namespace fulmen::runtime
