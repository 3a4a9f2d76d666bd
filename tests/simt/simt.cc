// SPDX-License-Identifier: Apache-2.0
#include "tests/simt/simt.h"

#include <dlfcn.h>
#include <fulmen/core/error.h>
#include <setjmp.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <memory>
#include <vector>

#include "src/cuda/driver.h"
#include "src/jit/jit.h"
#include "src/jit/sha256.h"
#include "tests/simt/fulmen/cuda/ptx/arch.cuh"
#include "tests/simt/memory.h"
#include "tests/simt/order.h"

#undef threadIdx
#undef blockIdx
#undef gridDim
#undef blockDim

namespace fulmen::simt {
namespace {
namespace driver = cuda::driver;

using testing::allow;
using testing::with_asan;

constexpr size_t kWarp = 32;
using Entry = void (*)(const void* params);

// --- The scheduler: one cluster of CTAs at a time, a fiber per thread.

// Threads that meet: a warp, a CTA, a cluster. The barrier opens when all that still run have arrived.
struct Group {
  int64_t running = 0, arrived = 0, openings = 0;
  void open_if_full() {
    if (arrived == running) arrived = 0, ++openings;
  }
  void arrive() { ++arrived, open_if_full(); }
  void leave() {
    if (--running > 0) open_if_full();
  }
};

struct Fiber {
  Thread thread;
  ucontext_t context;  // to start with; from then on the faster jumps, which leave signal masks alone
  jmp_buf place;
  bool started = false;
  Stack* stack = nullptr;
  bool done = false;
  const Group* waits_for = nullptr;  // goes on once this has opened more often than then
  int64_t then = 0;
  int64_t arrived_at = -1;  // openings of the cluster's barrier when this arrived there; -1: it has waited since
  bool (*ready)(const void* what, uint32_t x) = nullptr;  // goes on once this says so
  const void* what = nullptr;
  uint32_t x = 0;
  bool can_go() const { return (waits_for == nullptr || waits_for->openings != then) && (!ready || ready(what, x)); }
};

struct Cluster {
  std::vector<Fiber> fibers;
  std::vector<Group> warps, ctas;
  Group all;
  std::vector<std::unique_ptr<void, Free>> shared;  // [CTA] dynamic
  std::vector<std::vector<char>> warp_slots;        // [warp]
  size_t threads_per_cta = 0;
  Entry entry = nullptr;
  const void* params = nullptr;
};

jmp_buf scheduler;
Cluster* cluster = nullptr;
size_t current = 0;

void yield() {
  if (_setjmp(cluster->fibers[current].place) == 0) _longjmp(scheduler, 1);
}

void resume(Fiber& f) {
  if (_setjmp(scheduler) != 0) return;
  if (f.started) _longjmp(f.place, 1);
  f.started = true;
  setcontext(&f.context);
}

void wait_for(Group& group) {
  Fiber& f = cluster->fibers[current];
  f.waits_for = &group, f.then = group.openings;
  group.arrive();
  if (group.openings == f.then) yield();
  f.waits_for = nullptr;
}

void fail(const char* what) { std::fprintf(stderr, "emulated kernel: %s\n", what), std::abort(); }

void arrive_cluster() {
  Fiber& f = cluster->fibers[current];
  if (f.arrived_at >= 0) fail("a thread arrives twice at the cluster's barrier without waiting there");
  f.arrived_at = cluster->all.openings;
  cluster->all.arrive();
}
void wait_cluster() {
  Fiber& f = cluster->fibers[current];
  if (f.arrived_at < 0) fail("a thread waits at the cluster's barrier without having arrived");
  f.waits_for = &cluster->all, f.then = f.arrived_at, f.arrived_at = -1;
  if (!f.can_go()) yield();
  f.waits_for = nullptr;
}
void wait_until(bool (*ready)(const void*, uint32_t), const void* what, uint32_t x) {
  Fiber& f = cluster->fibers[current];
  f.ready = ready, f.what = what, f.x = x;
  if (!f.can_go()) yield();
  f.ready = nullptr;
}

size_t cta_of(size_t fiber) { return fiber / cluster->threads_per_cta; }
size_t warp_of(size_t fiber) {  // CTAs hold whole warps
  return fiber / kWarp;
}

// Another CTA's memory exists from its first instruction to its last.
void* shared_of(uint32_t rank) {
  if (rank != cta_of(current)) {
    if (cluster->ctas[rank].running == 0) fail("an access to the shared memory of a CTA that has ended");
    const Fiber* first = &cluster->fibers[rank * cluster->threads_per_cta];
    if (std::none_of(first, first + cluster->threads_per_cta, [](const Fiber& f) { return f.started; }))
      fail("an access to the shared memory of a CTA that need not run yet");
  }
  return cluster->shared[rank].get();
}

Order order;

const Runtime kRuntime{
    .self = [] { return static_cast<const Thread*>(&cluster->fibers[current].thread); },
    .sync_warp = [] { wait_for(cluster->warps[warp_of(current)]); },
    .sync_cta = [] { wait_for(cluster->ctas[cta_of(current)]); },
    .arrive_cluster = arrive_cluster,
    .wait_cluster = wait_cluster,
    .wait_until = wait_until,
    .warp_slots = [] { return static_cast<void*>(cluster->warp_slots[warp_of(current)].data()); },
    .dynamic_shared = shared_of,
    .copies_early = [] { return order.copies_early(); },
};

void fiber_main() {
  cluster->entry(cluster->params);
  Fiber& f = cluster->fibers[current];
  f.done = true;
  cluster->all.arrived -= f.arrived_at == cluster->all.openings;  // who has left is waited for no more
  for (Group* g : {&cluster->warps[warp_of(current)], &cluster->ctas[cta_of(current)], &cluster->all}) g->leave();
  yield();
}

void start(Fiber& f) {
  getcontext(&f.context);
  f.done = f.started = false, f.waits_for = nullptr, f.ready = nullptr, f.arrived_at = -1;
  allow(f.stack->data() + Stack::num_bytes() - kPageBytes, kPageBytes);  // fiber_main() never returned there
  f.context.uc_stack.ss_sp = f.stack->data();
  f.context.uc_stack.ss_size = Stack::num_bytes();
  f.context.uc_link = nullptr;
  makecontext(&f.context, fiber_main, 0);
}

// Threads that can go on do, each up to its next barrier. Whether there were any.
bool take_turns(bool all) {
  bool any = false;
  order.each(cluster->warps.size(), all, [&](size_t warp) {
    bool moved = false;
    for (current = warp * kWarp; current < (warp + 1) * kWarp; ++current) {
      Fiber& f = cluster->fibers[current];
      if (f.done || !f.can_go()) continue;
      moved = any = true;
      resume(f);
    }
    return moved;
  });
  return any;
}

void run_cluster(uint32_t first_cta, const driver::LaunchConfig& config) {
  for (size_t i = 0; i < cluster->fibers.size(); ++i) {
    Fiber& f = cluster->fibers[i];
    const uint32_t rank = uint32_t(cta_of(i));
    f.thread = {.thread = {uint32_t(i % cluster->threads_per_cta)},
                .block = {(first_cta + rank) % config.grid_x, (first_cta + rank) / config.grid_x},
                .grid = {config.grid_x, config.grid_y, 1},
                .block_size = {config.block_x, 1, 1},
                .cluster_rank = rank,
                .cluster_size = uint32_t(cluster->shared.size())};
    start(f);
  }
  cluster->warps.assign(cluster->fibers.size() / kWarp, {.running = int64_t(kWarp)});
  cluster->ctas.assign(cluster->shared.size(), {.running = int64_t(cluster->threads_per_cta)});
  cluster->all = {.running = int64_t(cluster->fibers.size())};
  for (auto& s : cluster->shared) std::memset(s.get(), 0xff, config.shared_bytes);  // NaN, as nobody wrote it
  while (cluster->all.running > 0)
    if (!take_turns(false) && !take_turns(true)) fail("threads wait at barriers that others never reach");
}

driver::Result launch(const driver::LaunchConfig* config, driver::Function function, void** params, void**) {
  if (function == nullptr) return 0;
  uint32_t size = 1;
  for (uint32_t i = 0; i < config->num_attributes; ++i)
    if (config->attributes[i].id == driver::kAttributeCluster) size = config->attributes[i].value.cluster.x;
  if (config->grid_x == 0 || config->grid_y == 0 || config->grid_y > 65535 || config->block_x % kWarp != 0 ||
      config->block_x > 1024 || config->grid_x % size != 0 || config->shared_bytes > 232448)
    return 1;  // CUDA_ERROR_INVALID_VALUE
  Cluster c;
  c.threads_per_cta = config->block_x;
  c.entry = reinterpret_cast<Entry>(function), c.params = params[0];
  c.fibers.resize(size_t(config->block_x) * size);
  static std::deque<Stack> stacks;
  while (stacks.size() < c.fibers.size()) stacks.emplace_back();
  for (size_t i = 0; i < c.fibers.size(); ++i) c.fibers[i].stack = &stacks[i];
  for (uint32_t i = 0; i < size; ++i) c.shared.emplace_back(allocate(config->shared_bytes));
  c.warp_slots.assign(c.fibers.size() / kWarp, std::vector<char>(32 * kWarp));
  cluster = &c;
  for (uint32_t cta : order.of_ctas(config->grid_x * config->grid_y, size)) run_cluster(cta, *config);
  cluster = nullptr;
  return 0;
}

// --- The compiler: the host's, on the unit with our headers in place of those of include/fulmen/cuda/ptx.

std::string root_folder;

// Kernels are watched over where the program is. What a unit defines is its own: two have variables of one name.
const char* sanitizers() {
  return with_asan()
             ? " -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -fvisibility=hidden"
             : "";
}

const char* keys_file = nullptr;  // where keys are listed; then nothing is compiled and launches do nothing

void list_key(jit::Kernel* kernel) {
  std::ofstream(keys_file, std::ios::app) << kernel->key << "\n";
  kernel->image = "none";
}

void compile(jit::Kernel* kernel) {
  char folder[] = "/tmp/fulmen-simt-XXXXXX";
  if (mkdtemp(folder) == nullptr) throw Error(Code::kInternal, "simt: no folder for temporary files");
  const std::string base = folder, source = base + "/unit.cc", library = base + "/unit.so", log = base + "/log";
  std::ofstream(source)
      << kernel->source
      << "template <class P> void fulmen_call(void (*f)(P), const void* p) { f(*static_cast<const P*>(p)); }\n"
         "extern \"C\" __attribute__((visibility(\"default\"))) void fulmen_emulated(const void* p) { "
         "fulmen_call(fulmen_entry, p); }\n";
  const char* compiler = std::getenv("CXX");
  const std::string command = std::string(compiler == nullptr ? "c++" : compiler) + " -std=c++20 -O1 -w -shared -fPIC" +
                              sanitizers() + " -I'" + root_folder + "/tests/simt' -I'" + root_folder + "/include' -o " +
                              library + " " + source + " 2> " + log;
  const int status = std::system(command.c_str());
  const auto read = [](const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  kernel->log = read(log), kernel->image = read(library);
  for (const std::string& path : {source, library, log}) unlink(path.c_str());
  rmdir(folder);
  if (status != 0) throw Error(Code::kInvalidArgument, kernel->key + ": does not compile for the host\n" + kernel->log);
}

driver::Result load(driver::Module* module, const void* image, uint32_t, int32_t*, void**) {
  char path[] = "/tmp/fulmen-simt-XXXXXX";
  const int file = mkstemp(path);
  // The image ends where its section headers do: ELF64 e_shoff + e_shnum * e_shentsize.
  const char* elf = static_cast<const char*>(image);
  uint64_t offset = 0;
  uint16_t entry_size = 0, entries = 0;
  std::memcpy(&offset, elf + 40, 8), std::memcpy(&entry_size, elf + 58, 2), std::memcpy(&entries, elf + 60, 2);
  const size_t size = offset + size_t(entry_size) * entries;
  const bool written = file >= 0 && write(file, elf, size) == ssize_t(size);
  if (file >= 0) close(file);
  *module = written ? static_cast<driver::Module>(dlopen(path, RTLD_NOW | RTLD_LOCAL)) : nullptr;
  if (!with_asan()) unlink(path);      // its reports read line numbers there
  if (*module == nullptr) return 200;  // CUDA_ERROR_INVALID_IMAGE
  *static_cast<const Runtime**>(dlsym(*module, "fulmen_simt_runtime")) = &kRuntime;
  return 0;
}

// --- The rest of the driver: host memory, one stream that is always done.

// Few, so that persistent kernels walk; FULMEN_SIMT_SMS: as many as a real device, whose plans are others.
int32_t num_sms() {
  if (const char* given = std::getenv("FULMEN_SIMT_SMS")) return std::max(1, std::atoi(given));
  return 3;
}

driver::Result attribute(int32_t* value, int32_t which, driver::DeviceId) {
  switch (which) {
    case driver::kMultiprocessors: *value = num_sms(); break;
    case driver::kMajor: *value = 9; break;
    case driver::kMinor: *value = 0; break;
    case driver::kMaxSharedOptin: *value = 232448; break;
    default: *value = 1 << 20;
  }
  return 0;
}

driver::Api make_api() {
  driver::Api a{};
  static char device_context;
  a.init = [](uint32_t) { return 0; };
  a.version = [](int32_t* version) { return *version = 13000, 0; };
  a.device_count = [](int32_t* n) { return *n = 1, 0; };
  a.device_get = [](driver::DeviceId* d, int32_t) { return *d = 0, 0; };
  a.device_name = [](char* name, int32_t size, driver::DeviceId) {
    return std::strncpy(name, "emulated", size_t(size)), 0;
  };
  a.device_attribute = attribute;
  a.primary_context_retain = [](driver::Context* c, driver::DeviceId) {
    return *c = reinterpret_cast<driver::Context>(&device_context), 0;
  };
  a.context_get = [](driver::Context* c) { return *c = reinterpret_cast<driver::Context>(&device_context), 0; };
  a.context_push = [](driver::Context) { return 0; };
  a.context_pop = [](driver::Context*) { return 0; };
  a.module_load = load;
  a.module_function = [](driver::Function* f, driver::Module m, const char*) {
    *f = static_cast<driver::Function>(dlsym(m, "fulmen_emulated"));
    return *f == nullptr ? 500 : 0;
  };
  a.function_set = [](driver::Function, int32_t, int32_t) { return 0; };
  a.occupancy = [](int32_t* n, driver::Function, int32_t, size_t) { return *n = 1, 0; };
  a.occupancy_clusters = [](int32_t* n, driver::Function, const driver::LaunchConfig*) { return *n = 2, 0; };
  a.launch = launch;
  a.exchange_capture_mode = [](int32_t*) { return 0; };
  a.memory_alloc = [](driver::Pointer* p, size_t n) {
    void* memory = allocate(n);
    return *p = driver::Pointer(memory), memory == nullptr ? 2 : 0;
  };
  a.memory_free = [](driver::Pointer p) { return std::free(reinterpret_cast<void*>(p)), 0; };
  a.memory_alloc_async = [](driver::Pointer* p, size_t n, driver::Stream) {
    void* memory = allocate(n);
    std::memset(memory, 0xff, n);
    return *p = driver::Pointer(memory), 0;
  };
  a.memory_free_async = [](driver::Pointer p, driver::Stream) { return std::free(reinterpret_cast<void*>(p)), 0; };
  a.memory_copy = [](driver::Pointer to, driver::Pointer from, size_t n, driver::Stream) {
    return std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), n), 0;
  };
  a.memory_set = [](driver::Pointer p, uint8_t byte, size_t n, driver::Stream) {
    return std::memset(reinterpret_cast<void*>(p), byte, n), 0;
  };
  a.stream_capture_info = [](driver::Stream, int32_t* status, uint64_t*, driver::Graph*, const void**, size_t*) {
    return *status = 0;
  };
  a.stream_synchronize = [](driver::Stream) { return 0; };
  a.error_name = [](driver::Result, const char** text) { return *text = "EMULATED", 0; };
  a.error_string = [](driver::Result, const char** text) { return *text = "an error of the emulated device", 0; };
  return a;
}

}  // namespace

void install_lister(const char* file) {
  keys_file = file;
  static driver::Api api = make_api();
  api.device_attribute = [](int32_t* value, int32_t which, driver::DeviceId id) {
    if (which != driver::kMultiprocessors) return attribute(value, which, id);
    *value = 132;  // as many as an H100's, as they have a say in which kernels are chosen
    return 0;
  };
  api.module_load = [](driver::Module*, const void*, uint32_t, int32_t*, void**) { return 0; };
  api.module_function = [](driver::Function* f, driver::Module, const char*) { return *f = nullptr, 0; };
  driver::install(api);
  jit::configure_default_jit({.cache_folder = "", .pack_folders = {}, .compiler = {"lister", &list_key}});
}

void install(const std::string& root, const std::string& cache) {
  root_folder = root;
  jit::Sha256 stand_ins;  // they go into every kernel, so into every kernel's hash
  for (const char* name : {"arch", "async_copy", "cluster", "copy_to_shared", "cvt", "dependent_launch", "math",
                           "memory", "mma", "shared", "warp"}) {
    std::ifstream file(root + "/tests/simt/fulmen/cuda/ptx/" + name + ".cuh");
    stand_ins.add_field(std::string(std::istreambuf_iterator<char>(file), {}));
  }
  static const driver::Api api = make_api();
  driver::install(api);
  setenv("FULMEN_CUDA_TARGET", "emulated", 0);  // compute_75, say: with the shared memory of such a device
  jit::configure_default_jit({.cache_folder = cache,
                              .pack_folders = {},
                              .compiler = {"host c++ " + stand_ins.hex() + sanitizers(), &compile}});
}

}  // namespace fulmen::simt
