// SPDX-License-Identifier: Apache-2.0
#include "benchmarks/support.h"

#include <benchmark/benchmark.h>
#include <fulmen/runtime/cpu_level.h>
#include <fulmen/runtime/thread_pool.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <sstream>

#include "benchmarks/ceilings.h"

namespace fulmen::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Row {
  std::string id, shape;
  double us = 0, median_us = 0, floor_us = 0, bytes = 0, flops = 0, foreign_cpu = 0, median_read = 0;
  Bandwidth bandwidth;
  std::vector<std::pair<std::string, double>> peers;
};

PeakFlops peak_flops;

std::vector<Row>& rows() {
  static std::vector<Row> all;
  return all;
}

// Large tensors in huge pages, as the ceilings are: glibc reads this tunable only when a process starts.
void ask_for_huge_pages(char** argv) {
  if (std::getenv("GLIBC_TUNABLES") != nullptr) return;
  setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", 1);
  execv("/proc/self/exe", argv);  // returns only if it fails, and then small pages must do
}

// Share of the machine's CPU time that other processes took since the object was made.
class ForeignCpu {
 public:
  ForeignCpu() : busy_(busy()), own_(own()), start_(Clock::now()) {}
  double share() const {
    const double wall = std::chrono::duration<double>(Clock::now() - start_).count();
    const double cpus = double(std::max(1l, sysconf(_SC_NPROCESSORS_ONLN)));
    return std::clamp(((busy() - busy_) - (own() - own_)) / std::max(wall * cpus, 0.1), 0.0, 1.0);  // ticks of 10 ms
  }

 private:
  static double busy() {  // seconds over all CPUs: everything but idle and iowait
    std::ifstream in("/proc/stat");
    std::string word;
    in >> word;
    double total = 0, x = 0;
    for (int i = 0; i < 8 && in >> x; ++i) total += i == 3 || i == 4 ? 0 : x;
    return total / double(sysconf(_SC_CLK_TCK));
  }
  static double own() {
    rusage u{};
    getrusage(RUSAGE_SELF, &u);
    return double(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * double(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
  }
  double busy_, own_;
  Clock::time_point start_;
};

double time_once(const Subject& s, const std::function<void()>& run) {
  if (s.before_each) s.before_each();
  const auto start = Clock::now();
  run();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double floor_seconds(const Cost& c, const Bandwidth& b, double flops_peak) {
  const double copied = std::min(2 * c.bytes_written, c.bytes);  // a write is paired with a read, as in a copy
  const double memory = copied / b.copy + (c.bytes - copied) / b.read;
  return std::max(memory, flops_peak > 0 ? c.flops / flops_peak : 0);
}

// Google Benchmark calls a row once per guess of its iteration count: build and check only the first time, and let go
// of the memory when the next row starts.
struct Current {
  std::string name, failure;
  Subject subject;
};

const Current& current(const std::string& name, const std::function<Subject()>& make) {
  static Current c;
  if (c.name == name) return c;
  c = {};
  c = {name, "", make()};
  if (c.subject.before_each) c.subject.before_each();
  c.subject.run();
  if (const auto result = c.subject.check(); !result) c.failure = std::string("wrong result: ") + result.message();
  return c;
}

// Google Benchmark calls a row with more and more iterations: the last call's figures stay.
void keep(const Row& row) {
  for (Row& r : rows())
    if (r.id == row.id && r.shape == row.shape) {
      r = row;
      return;
    }
  rows().push_back(row);
}

void time_row(benchmark::State& state, const std::string& id, const std::string& shape,
              const std::function<Subject()>& make) {
  const Current& c = current(id + "/" + shape, make);
  if (!c.failure.empty()) return state.SkipWithError(c.failure.c_str());
  const Subject& s = c.subject;
  Row row{.id = id, .shape = shape, .bytes = s.cost.bytes, .flops = s.cost.flops};
  BandwidthProbe probe(int64_t(s.footprint_bytes > 0 ? s.footprint_bytes : s.cost.bytes));
  probe.sample(0.1);
  const ForeignCpu foreign;
  double since_sample = 0;
  std::vector<double> times, peer_best(s.peers.size(), 1e30);
  for (auto _ : state) {
    times.push_back(time_once(s, s.run));
    state.SetIterationTime(times.back());
    if ((since_sample += times.back()) > 0.1) probe.sample(0.04), since_sample = 0;
    for (size_t i = 0; i < s.peers.size(); ++i) peer_best[i] = std::min(peer_best[i], time_once(s, s.peers[i].second));
  }
  row.foreign_cpu = foreign.share();
  probe.sample(0.1);
  row.bandwidth = probe.best(), row.median_read = probe.median_read();
  std::sort(times.begin(), times.end());
  row.us = times.front() * 1e6, row.median_us = times[times.size() / 2] * 1e6;
  const double peak = s.bf16_products && peak_flops.bf16 > 0 ? peak_flops.bf16 : peak_flops.f32;
  row.floor_us = floor_seconds(s.cost, row.bandwidth, peak) * 1e6;
  for (size_t i = 0; i < s.peers.size(); ++i) row.peers.emplace_back(s.peers[i].first, peer_best[i] * 1e6);
  state.counters["best_us"] = row.us;
  state.counters["GB/s"] = row.bytes / row.us * 1e-3;
  if (row.flops > 0) state.counters["GFLOP/s"] = row.flops / row.us * 1e-3;
  state.counters["%read"] = 100 * row.bytes / row.us * 1e6 / row.bandwidth.read;
  state.counters["%read_medians"] = 100 * row.bytes / row.median_us * 1e6 / row.median_read;
  if (row.flops > 0) state.counters["%f32"] = 100 * row.flops / row.us * 1e6 / peak_flops.f32;
  state.counters["%floor"] = 100 * row.floor_us / row.us;
  state.counters["%foreign"] = 100 * row.foreign_cpu;
  for (const auto& [name, us] : row.peers) state.counters["x_" + name] = us / row.us;
  keep(row);
}

std::string first_line_of(const char* command) {
  char line[256] = "";
  if (FILE* pipe = popen(command, "r")) {
    if (std::fgets(line, sizeof line, pipe) == nullptr) line[0] = '\0';
    pclose(pipe);
  }
  std::string text(line);
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

std::string device_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown CPU";
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

void write_json(const std::string& path, const std::string& suite) {
  char date[32] = "";
  const std::time_t now = std::time(nullptr);
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  std::string commit = first_line_of("git describe --always --dirty --abbrev=12 2>/dev/null");
  if (commit.empty()) commit = "unknown";
  std::ostringstream out;
  out << "{\"device\": " << quoted(device_name()) << ", \"level\": " << quoted(runtime::name_of(runtime::cpu_level()))
      << ", \"num_threads\": " << runtime::num_threads() << ", \"commit\": " << quoted(commit)
      << ", \"date\": " << quoted(date) << ", \"suite\": " << quoted(suite)
      << ",\n \"ceilings\": {\"f32_gflops\": " << peak_flops.f32 * 1e-9
      << ", \"bf16_gflops\": " << peak_flops.bf16 * 1e-9 << "},\n \"rows\": [";
  const char* separator = "\n";
  for (const Row& r : rows()) {
    out << separator << "  {\"id\": " << quoted(r.id) << ", \"shape\": " << quoted(r.shape) << ", \"us\": " << r.us
        << ", \"median_us\": " << r.median_us << ", \"floor_us\": " << r.floor_us << ", \"bytes\": " << r.bytes
        << ", \"flops\": " << r.flops << ", \"read_gbps\": " << r.bandwidth.read * 1e-9
        << ", \"median_read_gbps\": " << r.median_read * 1e-9 << ", \"copy_gbps\": " << r.bandwidth.copy * 1e-9
        << ", \"foreign_cpu\": " << r.foreign_cpu << ", \"peers\": {";
    const char* comma = "";
    for (const auto& [name, us] : r.peers) out << comma << quoted(name) << ": " << us, comma = ", ";
    out << "}}";
    separator = ",\n";
  }
  std::ofstream(path) << out.str() << "\n ]}\n";
}

}  // namespace

void add(std::string id, std::string shape, std::function<Subject()> make) {
  benchmark::RegisterBenchmark((id + "/" + shape).c_str(),
                               [=](benchmark::State& state) { time_row(state, id, shape, make); })
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

int run(int argc, char** argv, const std::string& suite) {
  ask_for_huge_pages(argv);
  std::string json;
  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind("--json=", 0) == 0)
      json = argument.substr(7);
    else
      rest.push_back(argv[i]);
  }
  int count = int(rest.size());
  benchmark::Initialize(&count, rest.data());
  if (benchmark::ReportUnrecognizedArguments(count, rest.data())) return 1;
  pin_threads();
  peak_flops = measure_flops();
  std::fprintf(stderr, "%s, level %s, %d threads, GFLOP/s: %.0f f32, %.0f bf16 pairs\n", device_name().c_str(),
               runtime::name_of(runtime::cpu_level()), runtime::num_threads(), peak_flops.f32 * 1e-9,
               peak_flops.bf16 * 1e-9);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  if (!json.empty()) write_json(json, suite);
  return 0;
}

}  // namespace fulmen::bench
