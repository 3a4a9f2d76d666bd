// SPDX-License-Identifier: Apache-2.0
// From a key to a loaded function, and launching it. Everything slow (finding or compiling the image, loading it,
// attributes, occupancy) happens in function_of, once per key and device; prepare() of an op does just that.
#pragma once
#include <fulmen/core/context.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "src/cuda/device.h"
#include "src/jit/jit.h"
#include "src/jit/source.h"

namespace fulmen::cuda {

// How a kernel runs, besides its parameters.
struct Shape {
  uint32_t grid = 1, grid_y = 1;  // CTAs
  uint32_t num_threads = 32;      // per CTA
  uint32_t shared_bytes = 0;      // dynamic
  uint32_t cluster = 1;           // CTAs per cluster
  bool all_shared = false;        // of SMs as much shared memory as they have: kernels with other shares do not meet
};

struct Function {
  driver::Function handle = nullptr;
  int32_t max_ctas = 1;     // on the device at once, in the shape it was loaded for
  int32_t max_single = 1;   // the same without clusters
  bool can_depend = false;  // waits for its predecessor's memory by itself
  jit::Resources resources;
};

// Loads the unit into the device's primary context. Safe during stream capture. Throws Error.
Function load(const jit::Unit& unit, const Device& device, const Shape& shape);
// params: one struct by value. Throws Error{kInternal} naming the op if the launch fails.
void launch(const char* op, const Function& function, const Shape& shape, const void* params, const Context& context);

// Whether launches of this context may start while the one before them runs.
bool may_overlap(const Device& device, const Context& context);

// Of the capture that the stream is in; 0: none.
uint64_t capture_of(driver::Stream stream);

// The loaded functions of one kind of key. Readers take no lock; a key is never forgotten, and there are only as many
// as structures of calls, whatever their sizes.
template <class Key>
class Functions {
 public:
  const Function& get(std::string_view op, const Key& key, const Device& device, const Shape& shape) {
    if (const Function* f = find(key, device.id)) return *f;
    const std::lock_guard lock(mutex_);
    if (const Function* f = find(key, device.id)) return *f;
    head_.store(new Node{key, device.id, load(jit::unit_of(op, key), device, shape), head_.load()},
                std::memory_order_release);
    return head_.load()->function;
  }

 private:
  struct Node {
    Key key;
    int32_t device_id;
    Function function;
    Node* next;
  };
  const Function* find(const Key& key, int32_t device_id) const {
    for (const Node* n = head_.load(std::memory_order_acquire); n != nullptr; n = n->next)
      if (n->device_id == device_id && n->key == key) return &n->function;
    return nullptr;
  }

  std::atomic<Node*> head_{nullptr};
  std::mutex mutex_;
};

// What an op wants launched. The grid of a persistent kernel is cut to what the device holds at once.
template <class Key, class Params>
struct Work {
  Key key;
  Params params;
  Shape shape;
  bool persistent = true;
};

template <class Key, class Params>
const Function& function_of(const char* op, const Work<Key, Params>& work, const Device& device) {
  static Functions<Key>* functions = new Functions<Key>;  // never destroyed: kernels may run while statics die
  return functions->get(op, work.key, device, work.shape);
}

template <class Key, class Params>
void run(const char* op, Work<Key, Params> work, const Device& device, const Context& context) {
  if (work.shape.grid == 0) return;  // nothing to do
  const CurrentContext current(device.primary);
  const Function& function = function_of(op, work, device);
  if (work.persistent) {
    const int32_t most = work.shape.cluster > 1 ? function.max_ctas : function.max_single;
    work.shape.grid = std::min(work.shape.grid, uint32_t(most));
  }
  launch(op, function, work.shape, &work.params, context);
}

template <class Key, class Params>
void prepare(const char* op, const Work<Key, Params>& work, const Device& device) {
  const CurrentContext current(device.primary);
  function_of(op, work, device);
}

}  // namespace fulmen::cuda
