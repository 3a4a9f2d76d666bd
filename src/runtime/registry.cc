// SPDX-License-Identifier: Apache-2.0
#include <fulmen/runtime/dry_run.h>
#include <fulmen/runtime/registry.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>

namespace fulmen::runtime {
namespace {

struct Entry {
  const Backend* backend;
  std::vector<std::vector<const KernelRow*>> rows;  // [op] most specialised first
};

// What is registered. A table never changes: whoever registers publishes a new one, so that calls read without a lock.
struct Table {
  std::vector<std::string> ops;  // OpHandle → name
  std::vector<Entry> entries;
};

struct Registry {
  std::mutex mutex;                            // of those who write
  std::vector<std::unique_ptr<Table>> tables;  // all there ever were: a call may still read an older one
  std::atomic<const Table*> current;
  Registry() { publish(std::make_unique<Table>()); }
  std::unique_ptr<Table> copy() const { return std::make_unique<Table>(*current.load()); }
  void publish(std::unique_ptr<Table> table) {
    current.store(table.get());
    tables.push_back(std::move(table));
  }
};

Registry& registry() {
  static Registry* r = new Registry;  // never destroyed: kernels may run while statics die
  return *r;
}

const Table& table() { return *registry().current.load(std::memory_order_acquire); }

std::optional<OpHandle> find(const Table& t, std::string_view op) {
  const auto found = std::find(t.ops.begin(), t.ops.end(), op);
  return found == t.ops.end() ? std::nullopt : std::optional(OpHandle(found - t.ops.begin()));
}

OpHandle intern(Table& t, std::string_view op) {
  if (const std::optional<OpHandle> known = find(t, op)) return *known;
  t.ops.emplace_back(op);
  for (Entry& e : t.entries) e.rows.resize(t.ops.size());
  return OpHandle(t.ops.size()) - 1;
}

const Entry* find(const Table& t, DeviceType type) {
  for (const Entry& e : t.entries)
    if (e.backend->device_type == type) return &e;
  return nullptr;
}

}  // namespace

void register_backend(const Backend* backend) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  std::unique_ptr<Table> next = r.copy();
  if (backend->api_version != kBackendApiVersion)
    fail("register_backend", backend->name,
         "api_version is " + std::to_string(backend->api_version) + ", expected " + std::to_string(kBackendApiVersion));
  if (find(*next, backend->device_type) != nullptr) fail("register_backend", backend->name, "its device type is taken");
  next->entries.push_back({backend, std::vector<std::vector<const KernelRow*>>(next->ops.size())});
  for (int32_t i = 0; i < backend->num_rows; ++i) {
    const OpHandle op = intern(*next, backend->rows[i].op);
    next->entries.back().rows[size_t(op)].push_back(&backend->rows[i]);
  }
  r.publish(std::move(next));
}

const Backend* find_backend(DeviceType type) {
  const Entry* e = find(table(), type);
  return e == nullptr ? nullptr : e->backend;
}

std::vector<const Backend*> backends() {
  std::vector<const Backend*> all;
  for (const Entry& e : table().entries) all.push_back(e.backend);
  return all;
}

OpHandle op_handle(std::string_view op) {
  if (const std::optional<OpHandle> known = find(table(), op)) return *known;
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  std::unique_ptr<Table> next = r.copy();
  const OpHandle handle = intern(*next, op);
  r.publish(std::move(next));
  return handle;
}

Choice choose(OpHandle op, DeviceType type, int32_t device_id, const void* args, const Context& context) {
  Choice choice;
  const Entry* e = find(table(), type);
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

const KernelRow& row_for(OpHandle op, const TensorView& where, const void* args, const Context& context) {
  const Choice choice = choose(op, where.device_type, where.device_id, args, context);
  if (choice.row == nullptr)
    throw Error(Code::kUnsupported, table().ops[size_t(op)] + ": no kernel serves this call" + choice.refusals);
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
