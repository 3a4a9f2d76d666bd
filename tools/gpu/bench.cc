// SPDX-License-Identifier: Apache-2.0
// fulmen_gpu_bench OUT.json [PREFIX | attention [IDS] | cascade [PREFIX] | plan | jit FOLDER | host [stub]]: times the
// standard rows on device 0 (those whose ids start so, or attention's, or its planning), writes JSON, prints a table.
// cascade: levels and flat for many sizes. A row's floor is its bytes at the copy bandwidth measured in the same run,
// or its flops at 800 TFLOP/s, what bf16 matrix products of random data reach on an H100. jit: how fast the kernels of
// a pack or cache are found. host: what a call costs the calling thread (host_suite.cc).
#include <fulmen/core/error.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>

#include "src/cuda/quantization.h"
#include "src/cuda/table.h"
#include "src/jit/dynamic_library.h"
#include "tools/gpu/suite.h"
#include "tools/gpu/timing.h"

namespace fulmen::gpu {
namespace {

struct Result {
  std::string id, shape, problem;
  double bytes = 0, flops = 0;
  Timing timing;
  double floor_us(double bytes_per_second) const {
    constexpr double kFlopsPerSecond = 800e12;
    return std::max(bytes / bytes_per_second, flops / kFlopsPerSecond) * 1e6;
  }
};

// Nanoseconds of the calling thread per launch, while the GPU keeps up.
double host_ns(Timer& timer, const Problem& p) {
  const Context context{.stream = timer.stream()};
  double best = 1e30;
  for (int32_t round = 0; round < 20; ++round) {
    timer.synchronize();
    const auto start = std::chrono::steady_clock::now();
    for (int32_t i = 0; i < 200; ++i) p.launch(i % p.num_sets, context);
    best = std::min(best,
                    std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count() / 200);
  }
  return best;
}

// The same for the driver's part alone, one more launch of a kernel that is loaded: by cuLaunchKernelEx without
// attributes and with dependent launch, and by cuLaunchKernel.
struct LaunchCost {
  double plain = 0, dependent = 0, old = 0;
};
LaunchCost launch_cost(Timer& timer) {
  const cuda::Device& device = cuda::device(0);
  const jit::Unit unit = cuda::unit_from("per_tensor_quant_fp8 x=bfloat16 out=float8_e4m3fn step=scale vec=1");
  const cuda::Function f = cuda::load(unit, device, {});
  const Memory scale(4);
  cuda::per_tensor_quant_fp8::Params params{};
  params.scale = reinterpret_cast<float*>(scale.data());
  const cuda::Shape shape{.grid = 1, .num_threads = 32};
  const auto ns = [&](DependentLaunch how) {
    return host_ns(timer, {.launch = [&](int32_t, const Context&) {
                     cuda::launch("scale", f, shape, &params, {.stream = timer.stream(), .dependent_launch = how});
                   }});
  };
  driver::Result (*launch)(driver::Function, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t,
                           driver::Stream, void**, void**) = nullptr;
  const jit::DynamicLibrary lib({"libcuda.so.1"}, {});
  LaunchCost cost{.plain = ns(DependentLaunch::kOff), .dependent = ns(DependentLaunch::kOn)};
  if (!lib.get("cuLaunchKernel", &launch)) return cost;
  void* arguments[1] = {&params};
  cost.old = host_ns(timer, {.launch = [&](int32_t, const Context&) {
                       launch(f.handle, 1, 1, 1, 32, 1, 1, 0, timer.stream(), arguments, nullptr);
                     }});
  return cost;
}

Result measure(Timer& timer, const Row& row) {
  Result r{.id = row.id, .shape = row.shape};
  try {
    const Problem p = row.make();
    const Context context{.stream = timer.stream()};
    r.bytes = p.bytes, r.flops = p.flops;
    if (p.host) {
      r.timing.us = r.timing.low_us = r.timing.graph_us = host_ns(timer, p) / 1000;
      return r;
    }
    r.timing = timer.time(p.num_sets, [&](int32_t set) { p.launch(set, context); });
    for (double* us : {&r.timing.us, &r.timing.low_us, &r.timing.graph_us}) *us /= p.num_calls;
  } catch (const std::exception& e) { r.problem = e.what(); }
  return r;
}

struct Ceilings {
  double copy = 0, event_us = 0, host_ns = 0;
  LaunchCost launch;
};

void write_json(const std::string& path, const std::string& name, const std::vector<Result>& results,
                const Ceilings& c) {
  int32_t version = 0;
  driver::api().version(&version);
  std::ofstream out(path);
  out << "{\"device\": \"" << cuda::device(0).name << "\", \"driver\": \"CUDA " << version / 1000 << "."
      << version % 1000 / 10 << "\", \"commit\": \"" << commit() << "\", \"date\": \"" << today() << "\", \"suite\": \""
      << name << "\",\n"
      << " \"ceilings\": {\"copy_bytes_per_second\": " << c.copy << ", \"event_us\": " << c.event_us
      << ", \"host_ns_per_call\": " << c.host_ns << ", \"launch_ns\": " << c.launch.plain
      << ", \"dependent_launch_ns\": " << c.launch.dependent << ", \"old_launch_ns\": " << c.launch.old
      << "},\n \"rows\": [\n";
  for (size_t i = 0; i < results.size(); ++i) {
    const Result& r = results[i];
    out << "  {\"id\": \"" << r.id << "\", \"shape\": \"" << r.shape << "\"";
    if (r.problem.empty())
      out << ", \"us\": " << r.timing.us << ", \"low_us\": " << r.timing.low_us
          << ", \"graph_us\": " << r.timing.graph_us << ", \"bytes\": " << r.bytes << ", \"flops\": " << r.flops
          << ", \"floor_us\": " << r.floor_us(c.copy);
    else
      out << ", \"problem\": \"failed\"";
    out << ", \"peers\": {}}" << (i + 1 < results.size() ? ",\n" : "\n");
  }
  out << "]}\n";
}

// ids: "D1,D5" of all rows; empty: all.
bool is_wanted(const std::string& id, const std::string& ids) {
  return ids.empty() || ("," + ids + ",").find("," + id + ",") != std::string::npos;
}

// Attention's rows, or every other row of the standard table whose id starts with `prefix`.
std::vector<Row> rows(const std::string& prefix, const std::string& ids) {
  if (prefix == "plan") return plan_suite();
  if (prefix == "cascade") {
    std::vector<Row> all = cascade_suite(true);
    std::erase_if(all, [&](const Row& row) { return !row.id.starts_with(ids); });
    return all;
  }
  const bool attention = prefix == "attention";
  std::vector<Row> all = attention ? attention_suite() : suite();
  for (Row& row : attention ? cascade_suite(false) : sampling_suite()) all.push_back(std::move(row));
  std::erase_if(all, [&](const Row& row) { return attention ? !is_wanted(row.id, ids) : !row.id.starts_with(prefix); });
  return all;
}

int run(const std::string& path, const std::string& prefix, const std::string& ids) {
  const bool attention = prefix == "attention" || prefix == "cascade";
  const cuda::Device& device = cuda::device(0);
  const cuda::CurrentContext current(device.primary);
  Timer timer;
  Ceilings ceilings{.copy = timer.copy_bytes_per_second(), .event_us = timer.event_us()};
  std::vector<Result> results;
  for (const Row& row : rows(prefix, ids)) {
    results.push_back(measure(timer, row));
    std::fprintf(stderr, "%s %.1f us %s\n", row.id.c_str(), results.back().timing.us, results.back().problem.c_str());
  }
  if (!attention) ceilings.host_ns = host_ns(timer, suite().front().make()), ceilings.launch = launch_cost(timer);
  write_json(path, attention ? "gpu-attention" : prefix == "plan" ? "gpu-plan" : "gpu-memory", results, ceilings);

  std::printf(
      "%s: copy %.2f TB/s, events alone %.1f us, host %.0f ns per call of N1, %.0f ns of it cuLaunchKernelEx "
      "(%.0f with dependent launch; cuLaunchKernel %.0f)\n",
      device.name.c_str(), ceilings.copy / 1e12, ceilings.event_us, ceilings.host_ns, ceilings.launch.plain,
      ceilings.launch.dependent, ceilings.launch.old);
  std::printf("%-30s %9s %9s %9s %8s %8s  %s\n", "id", "us", "graph us", "floor us", "% floor", "% graph", "shape");
  int32_t failed = 0;
  for (const Result& r : results) {
    const double floor_us = r.floor_us(ceilings.copy);
    if (r.problem.empty())
      std::printf("%-30s %9.2f %9.2f %9.2f %7.1f%% %7.1f%%  %s\n", r.id.c_str(), r.timing.us, r.timing.graph_us,
                  floor_us, 100 * floor_us / r.timing.us, 100 * floor_us / r.timing.graph_us, r.shape.c_str());
    else
      std::printf("%-30s failed: %s\n", r.id.c_str(), r.problem.c_str()), ++failed;
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace

std::string commit() {
  const char* text = std::getenv("FULMEN_COMMIT");
  return text == nullptr ? "unknown" : text;
}

std::string today() {
  char date[32] = "";
  const std::time_t now = std::time(nullptr);
  std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&now));
  return date;
}

}  // namespace fulmen::gpu

int main(int argc, char** argv) {
  try {
    if (argc >= 3 && std::string_view(argv[2]) == "host")
      return fulmen::gpu::measure_host(argv[1], argc > 3 ? argv[3] : "");
    if (argc == 4 && std::string_view(argv[2]) == "jit") return fulmen::gpu::measure_jit(argv[1], argv[3]);
    return fulmen::gpu::run(argc > 1 ? argv[1] : "gpu-memory.json", argc > 2 ? argv[2] : "", argc > 3 ? argv[3] : "");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
