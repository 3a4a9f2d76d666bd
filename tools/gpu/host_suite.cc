// SPDX-License-Identifier: Apache-2.0
// What a call costs the calling thread. "stub": a driver whose functions do nothing, so what is left is ours, exactly;
// needs no GPU. Else on device 0: the forms that the driver has for a launch, with the same kernel and parameters, and
// our call of it, in turns. Twice: in a loop, and timed in bursts of 64 with an empty queue before each, since a full
// queue makes launches wait for the GPU.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <numeric>

#include "src/cuda/norm.h"
#include "src/cuda/table.h"
#include "src/jit/dynamic_library.h"
#include "src/jit/jit.h"
#include "tools/gpu/suite.h"
#include "tools/gpu/timing.h"

namespace fulmen::gpu {
namespace {

using Clock = std::chrono::steady_clock;
double ns_since(Clock::time_point start) {
  return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
}

struct Form {
  std::string id;
  std::function<void()> call;
  std::vector<double> loop = {}, burst = {};  // ns per call, one value a round
  std::vector<double> device = {};            // ns that the GPU takes per call, launched while it was busy
};

// How fast the GPU gets through launches that all wait for it: 64 behind a write of a GiB.
void measure_device(std::vector<Form>& forms, driver::Stream stream) {
  constexpr int32_t kLaunches = 64;
  const driver::Api& cu = driver::api();
  const Memory large(size_t(1) << 30);
  driver::Event start = nullptr, end = nullptr;
  cuda::check(cu.event_create(&start, 0), "event"), cuda::check(cu.event_create(&end, 0), "event");
  for (int32_t round = 0; round < 5; ++round)
    for (Form& f : forms) {
      if (f.id.starts_with("default stream")) continue;  // the others' order is the stream's
      float ms = 0;
      for (int32_t i = 0; i < 2; ++i) cu.memory_set(driver::Pointer(large.data()), 0, large.num_bytes(), stream);
      cu.event_record(start, stream);
      for (int32_t i = 0; i < kLaunches; ++i) f.call();
      cu.event_record(end, stream);
      cuda::check(cu.event_synchronize(end), "cuEventSynchronize");
      cu.event_elapsed(&ms, start, end);
      f.device.push_back(double(ms) * 1e6 / kLaunches);
    }
  cu.event_destroy(start), cu.event_destroy(end);
}

double best(const std::vector<double>& v) { return *std::min_element(v.begin(), v.end()); }
double median(std::vector<double> v) { return std::sort(v.begin(), v.end()), v[v.size() / 2]; }

void measure(std::vector<Form>& forms, int32_t num_rounds, const std::function<void()>& wait) {
  constexpr int32_t kLoop = 512, kBurst = 64;
  for (Form& f : forms) f.call();
  for (int32_t round = 0; round < num_rounds; ++round)
    for (Form& f : forms) {
      wait();
      auto start = Clock::now();
      for (int32_t i = 0; i < kLoop; ++i) f.call();
      f.loop.push_back(ns_since(start) / kLoop);
      double burst = 0;
      for (int32_t part = 0; part < 4; ++part) {
        wait();
        start = Clock::now();
        for (int32_t i = 0; i < kBurst; ++i) f.call();
        burst += ns_since(start);
      }
      f.burst.push_back(burst / (4 * kBurst));
    }
  wait();
}

void write(const std::string& path, const char* suite, const std::string& device, const std::vector<Form>& forms) {
  std::ofstream out(path);
  out << "{\"device\": \"" << device << "\", \"commit\": \"" << commit() << "\", \"date\": \"" << today()
      << "\", \"suite\": \"" << suite << "\", \"rows\": [\n";
  std::printf("%-52s %9s %9s %9s %9s %9s\n", "ns per call", "loop", "its best", "bursts", "their best", "on GPU");
  for (size_t i = 0; i < forms.size(); ++i) {
    const Form& f = forms[i];
    const double values[] = {median(f.loop), best(f.loop), median(f.burst), best(f.burst),
                             f.device.empty() ? 0 : median(f.device)};
    std::printf("%-52s %9.0f %9.0f %9.0f %9.0f %9.0f\n", f.id.c_str(), values[0], values[1], values[2], values[3],
                values[4]);
    out << "  {\"id\": \"" << f.id << "\", \"loop_ns\": " << values[0] << ", \"loop_best_ns\": " << values[1]
        << ", \"burst_ns\": " << values[2] << ", \"burst_best_ns\": " << values[3] << ", \"device_ns\": " << values[4]
        << "}" << (i + 1 < forms.size() ? ",\n" : "\n");
  }
  out << "]}\n";
}

driver::Result stub_attribute(int32_t* value, int32_t attribute, driver::DeviceId) {
  switch (attribute) {  // an H100's
    case driver::kMajor: return *value = 9, 0;
    case driver::kMinor: return *value = 0;
    case driver::kMultiprocessors: return *value = 132, 0;
    case driver::kMaxSharedOptin: return *value = 227 << 10, 0;
    case driver::kL2Bytes: return *value = 50 << 20, 0;
    default: return *value = 1, 0;
  }
}

driver::Api stub() {
  static char something;
  driver::Api a;
  // Those that need no answer; every argument is an integer or a pointer.
  driver::Result (*nothing)() = [] { return 0; };
  for (size_t at = 0; at < sizeof a; at += sizeof nothing)
    std::memcpy(reinterpret_cast<char*>(&a) + at, &nothing, sizeof nothing);
  a.version = [](int32_t* v) { return *v = 13000, 0; };
  a.device_count = [](int32_t* n) { return *n = 1, 0; };
  a.device_get = [](driver::DeviceId* d, int32_t) { return *d = 0; };
  a.device_name = [](char* name, int32_t, driver::DeviceId) { return std::strcpy(name, "stub"), 0; };
  a.device_attribute = stub_attribute;
  a.primary_context_retain = [](driver::Context* c, driver::DeviceId) {
    return *c = reinterpret_cast<driver::Context>(&something), 0;
  };
  a.context_get = [](driver::Context* c) { return *c = reinterpret_cast<driver::Context>(&something), 0; };
  a.module_function = [](driver::Function* f, driver::Module, const char*) {
    return *f = reinterpret_cast<driver::Function>(&something), 0;
  };
  a.occupancy = [](int32_t* n, driver::Function, int32_t, size_t) { return *n = 2, 0; };
  a.occupancy_clusters = [](int32_t* n, driver::Function, const driver::LaunchConfig*) { return *n = 32, 0; };
  a.memory_alloc = [](driver::Pointer* p, size_t n) {
    static driver::Pointer next = driver::Pointer(1) << 40;
    return *p = next, next += (n + 511) / 512 * 512, 0;
  };
  a.memory_alloc_async = [](driver::Pointer* p, size_t, driver::Stream) { return *p = driver::Pointer(1) << 50, 0; };
  a.stream_capture_info = [](driver::Stream, int32_t* status, uint64_t*, driver::Graph*, const void**, size_t*) {
    return *status = 0;
  };
  return a;
}

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

int measure_stub(const std::string& path) {
  static const driver::Api api = stub();
  driver::install(api);
  jit::configure_default_jit(
      {.cache_folder = "", .pack_folders = {}, .compiler = {"none", [](jit::Kernel* k) { k->image = "none"; }}});
  std::vector<Form> forms;
  static int32_t sink = 0;
  forms.push_back({"empty loop", [] { asm volatile("" ::: "memory"); }});
  forms.push_back({"stub driver's launch", [] { sink += driver::api().launch(nullptr, nullptr, nullptr, nullptr); }});
  std::vector<Row> rows = suite();
  for (Row& row : sampling_suite())
    if (row.id == "S1" || row.id == "S7") rows.push_back(std::move(row));
  for (Row& row : plan_suite())
    if (row.id.starts_with("H")) rows.push_back(std::move(row));
  if (const char* prefix = std::getenv("ROWS"))
    std::erase_if(rows, [&](const Row& row) { return !row.id.starts_with(prefix); });
  for (const Row& row : rows) {
    Problem p = row.make();
    forms.push_back({row.id + " " + row.shape, [p] { p.launch(0, {}); }});
  }
  measure(forms, 21, [] {});
  write(path, "host-stub", processor(), forms);
  return 0;
}

using LaunchKernel = driver::Result (*)(driver::Function, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t,
                                        uint32_t, driver::Stream, void**, void**);

// CUDA_KERNEL_NODE_PARAMS of CUDA 12.
struct NodeParams {
  driver::Function function;
  uint32_t grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
  void** params;
  void** extra;
  void* kernel;
  driver::Context context;
};

const jit::DynamicLibrary& libcuda() {
  static const jit::DynamicLibrary lib({"libcuda.so.1"}, {});
  return lib;
}

struct OneNode {  // a graph of one launch
  driver::GraphExec exec = nullptr;
  void* node = nullptr;
  driver::Result (*update)(driver::GraphExec, void* node, const NodeParams*) = nullptr;
  OneNode(driver::Stream s, const std::function<void()>& launch) {
    driver::Graph graph = nullptr;
    driver::Result (*nodes)(driver::Graph, void**, size_t*) = nullptr;
    size_t count = 1;
    cuda::check(driver::api().stream_begin_capture(s, driver::kCaptureRelaxed), "begin");
    launch();
    cuda::check(driver::api().stream_end_capture(s, &graph), "end");
    cuda::check(driver::api().graph_instantiate(&exec, graph, 0), "instantiate");
    if (libcuda().get("cuGraphGetNodes", &nodes)) cuda::check(nodes(graph, &node, &count), "nodes");
    libcuda().get("cuGraphExecKernelNodeSetParams_v2", &update);
  }
};

// N1's launch: what is launched, by which form of the driver's.
struct Launch {
  cuda::Function function;
  cuda::rmsnorm::Params params;
  cuda::Shape shape;
  std::vector<driver::LaunchAttribute> attributes = {};
  driver::Stream stream = nullptr;
  bool as_buffer = false;

  void ex() {
    const driver::LaunchConfig c{.grid_x = shape.grid,
                                 .grid_y = 1,
                                 .grid_z = 1,
                                 .block_x = shape.num_threads,
                                 .block_y = 1,
                                 .block_z = 1,
                                 .shared_bytes = shape.shared_bytes,
                                 .stream = stream,
                                 .attributes = attributes.data(),
                                 .num_attributes = uint32_t(attributes.size())};
    void* arguments[1] = {&params};
    size_t size = sizeof params;
    void* extra[] = {reinterpret_cast<void*>(1), &params, reinterpret_cast<void*>(2), &size, nullptr};
    cuda::check(driver::api().launch(&c, function.handle, as_buffer ? nullptr : arguments, as_buffer ? extra : nullptr),
                "launch");
  }
  void old(LaunchKernel launch) {
    void* arguments[1] = {&params};
    size_t size = sizeof params;
    void* extra[] = {reinterpret_cast<void*>(1), &params, reinterpret_cast<void*>(2), &size, nullptr};
    cuda::check(launch(function.handle, shape.grid, 1, 1, shape.num_threads, 1, 1, shape.shared_bytes, stream,
                       as_buffer ? nullptr : arguments, as_buffer ? extra : nullptr),
                "launch");
  }
};

driver::LaunchAttribute dependent() {
  driver::LaunchAttribute a{};
  a.id = driver::kAttributeDependentLaunch, a.value.flag = 1;
  return a;
}
driver::LaunchAttribute cluster() {
  driver::LaunchAttribute a{};
  a.id = driver::kAttributeCluster, a.value.cluster = {1, 1, 1};
  return a;
}

// N1's arguments on memory that lives as long as the process.
RmsNormArgs small_norm() {
  static const Memory x(8192), w(8192), out(8192);
  RmsNormArgs a;
  for (const auto& [t, memory] : {std::pair{&a.input, &x}, {&a.weight, &w}, {&a.out, &out}}) {
    t->dtype = DType::kBF16, t->device_type = DeviceType::kCuda, t->data = memory->data();
    t->rank = memory == &w ? 1 : 2;
    t->shape[0] = memory == &w ? 4096 : 1, t->strides[0] = memory == &w ? 1 : 4096;
    t->shape[1] = 4096, t->strides[1] = 1;
  }
  return a;
}

std::vector<Form> forms_on(driver::Stream stream, const std::string& name, const Launch& base) {
  LaunchKernel old = nullptr;
  libcuda().get("cuLaunchKernel", &old);
  std::vector<Form> forms;
  const auto with = [&](std::vector<driver::LaunchAttribute> attributes, bool as_buffer) {
    Launch l = base;
    l.stream = stream, l.attributes = std::move(attributes), l.as_buffer = as_buffer;
    return l;
  };
  const auto add = [&](const char* id, Launch l) { forms.push_back({name + id, [l]() mutable { l.ex(); }}); };
  const auto add_old = [&](const char* id, Launch l) {
    forms.push_back({name + id, [l, old]() mutable { l.old(old); }});
  };
  add_old("cuLaunchKernel, params", with({}, false));
  add_old("cuLaunchKernel, buffer", with({}, true));
  add("cuLaunchKernelEx, 0 attributes", with({}, false));
  add("cuLaunchKernelEx, 0 attributes, buffer", with({}, true));
  add("cuLaunchKernelEx, cluster of 1", with({cluster()}, false));
  add("cuLaunchKernelEx, dependent", with({dependent()}, false));
  add("cuLaunchKernelEx, dependent, buffer", with({dependent()}, true));
  add("cuLaunchKernelEx, cluster, dependent", with({cluster(), dependent()}, false));
  for (const bool on : {false, true}) {
    const Context context{.stream = stream, .dependent_launch = on ? DependentLaunch::kOn : DependentLaunch::kOff};
    forms.push_back(
        {name + (on ? "our call, dependent" : "our call"), [args = small_norm(), context] { rmsnorm(args, context); }});
  }
  return forms;
}

void add_graphs(std::vector<Form>& forms, driver::Stream s, Launch base, bool on) {
  base.stream = s;
  if (on) base.attributes = {dependent()};
  const OneNode graph(s, [&] { base.ex(); });
  const std::string kind = on ? " of one dependent node" : " of one node";
  const auto launch = [exec = graph.exec, s] { cuda::check(driver::api().graph_launch(exec, s), "cuGraphLaunch"); };
  forms.push_back({"cuGraphLaunch" + kind, launch});
  const auto update = [graph, l = std::make_shared<Launch>(base)] {
    void* arguments[1] = {&l->params};
    const NodeParams p{l->function.handle, l->shape.grid, 1,       1,      l->shape.num_threads, 1, 1, 0,
                       arguments,          nullptr,       nullptr, nullptr};
    cuda::check(graph.update(graph.exec, graph.node, &p), "cuGraphExecKernelNodeSetParams");
  };
  if (graph.update == nullptr || graph.node == nullptr) return;
  forms.push_back({"new params, cuGraphLaunch" + kind, [update, launch] { update(), launch(); }});
}

}  // namespace

int measure_host(const std::string& path, const std::string& how) {
  if (how == "stub") return measure_stub(path);
  const cuda::Device& device = cuda::device(0);
  const cuda::CurrentContext current(device.primary);
  Timer timer;
  const RmsNormArgs args = small_norm();
  const auto work = cuda::RmsNorm::work(args, device);
  const Launch base{.function = cuda::function_of("rmsnorm", work, device), .params = work.params, .shape = work.shape};
  std::vector<Form> forms = forms_on(timer.stream(), "", base);
  for (Form& f : forms_on(nullptr, "default stream: ", base)) forms.push_back(std::move(f));
  for (const bool on : {false, true}) add_graphs(forms, timer.stream(), base, on);
  forms.push_back({"cuCtxGetCurrent", [] {
                     driver::Context c = nullptr;
                     driver::api().context_get(&c);
                   }});
  forms.push_back({"cuStreamGetCaptureInfo", [s = timer.stream()] { cuda::capture_of(s); }});
  measure(forms, 25, [&] {
    timer.synchronize();
    driver::api().stream_synchronize(nullptr);
  });
  measure_device(forms, timer.stream());
  write(path, "host-launch", device.name, forms);
  return 0;
}

}  // namespace fulmen::gpu
