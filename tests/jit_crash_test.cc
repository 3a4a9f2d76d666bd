// SPDX-License-Identifier: Apache-2.0
// Many processes on one empty cache, killed at random points, with files cut short under them: whoever is left finishes
// with the right kernels, and nothing waits for the dead. Workers are this program again, with FULMEN_JIT_WORKER set.
// FULMEN_JIT_ROUNDS and FULMEN_JIT_PROCESSES make it longer.
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <random>
#include <thread>

#include "src/jit/jit.h"
#include "src/jit/nvrtc.h"
#include "tests/support/scratch_folder.h"

extern char** environ;

namespace fulmen::jit {
namespace {
namespace fs = std::filesystem;

constexpr int32_t kUnits = 4;
constexpr const char* kWorker = "FULMEN_JIT_WORKER";

int32_t setting(const char* name, int32_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

// PTX is text, so the constant in it shows that the image is this unit's.
TEST(JitCrash, Worker) {
  const char* folder = std::getenv(kWorker);
  if (folder == nullptr) GTEST_SKIP() << "runs as a child of SurvivorsHaveTheRightKernels";
  Jit jit(Options{.cache_folder = folder, .pack_folders = {}});
  for (int32_t i = 0; i < kUnits; ++i) {
    const std::string number = std::to_string(700001 + i);
    const Unit unit{"crash n=" + number,
                    std::string("extern \"C\" __global__ void ") + kEntryName + "(int* p) { *p = " + number + "; }\n"};
    ASSERT_NE(jit.get(unit, "compute_80")->image.find(number), std::string::npos);
  }
}

pid_t spawn_worker() {
  const char* arguments[] = {"/proc/self/exe", "--gtest_filter=JitCrash.Worker", "--gtest_brief=1", nullptr};
  pid_t child = -1;
  char self[4096] = "";
  if (readlink("/proc/self/exe", self, sizeof self - 1) <= 0) return -1;
  return posix_spawn(&child, self, nullptr, nullptr, const_cast<char**>(arguments), environ) == 0 ? child : -1;
}

struct Damage {
  int32_t killed = 0, cut = 0;
};

bool cut_some_file(const std::string& folder, std::mt19937& random) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error))
    if (random() % 4 == 0) {
      fs::resize_file(entry.path(), random() % 600, error);
      return !error;
    }
  return false;
}

void round(std::mt19937& random, int32_t num_processes, Damage* damage) {
  const testing::ScratchFolder folder;
  setenv(kWorker, folder.path().c_str(), 1);
  std::vector<pid_t> children;
  for (int32_t i = 0; i < num_processes; ++i) children.push_back(spawn_worker());
  std::vector<bool> killed(children.size());
  for (int32_t i = 0; i < num_processes; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 40));
    damage->cut += cut_some_file(folder.path(), random);
    if (i % 2 == 0) killed[size_t(i)] = kill(children[size_t(i)], SIGKILL) == 0;
  }
  for (size_t i = 0; i < children.size(); ++i) {
    int status = 0;
    ASSERT_EQ(waitpid(children[i], &status, 0), children[i]);
    damage->killed += WIFSIGNALED(status);
    EXPECT_TRUE(killed[i] || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) << "a worker that nobody killed failed";
  }
  const pid_t last = spawn_worker();  // and the cache, whatever is left of it, serves a newcomer
  int status = 0;
  ASSERT_EQ(waitpid(last, &status, 0), last);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  const Cache cache(folder.path());
  int32_t whole = 0;
  for (const std::string& name : cache.names()) whole += cache.load(name).has_value();
  EXPECT_EQ(whole, kUnits);
  unsetenv(kWorker);
}

TEST(JitCrash, SurvivorsHaveTheRightKernels) {
  if (nvrtc().version.empty()) GTEST_SKIP() << nvrtc().problem;
  if (std::getenv(kWorker) != nullptr) GTEST_SKIP() << "this is a worker";
  std::mt19937 random(20261122);
  const int32_t rounds = setting("FULMEN_JIT_ROUNDS", 2), processes = setting("FULMEN_JIT_PROCESSES", 6);
  Damage damage;
  for (int32_t i = 0; i < rounds; ++i) round(random, processes, &damage);
  std::printf("%d rounds of %d processes: %d killed, %d files cut short\n", rounds, processes, damage.killed,
              damage.cut);
  RecordProperty("rounds", rounds), RecordProperty("processes", processes);
  RecordProperty("killed", damage.killed), RecordProperty("cut", damage.cut);
}

}  // namespace
}  // namespace fulmen::jit
