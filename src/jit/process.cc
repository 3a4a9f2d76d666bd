// SPDX-License-Identifier: Apache-2.0
#include "src/jit/process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

extern char** environ;

namespace fulmen::jit {
namespace {

// For one posix_spawn: files, and a group and signals of its own.
class Spawn {
 public:
  explicit Spawn(const std::string& log_file) {
    posix_spawn_file_actions_init(&files_);
    posix_spawn_file_actions_addopen(&files_, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files_, 1, log_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&files_, 1, 2);
    posix_spawnattr_init(&attributes_);
    sigset_t none, defaults;
    sigemptyset(&none), sigemptyset(&defaults);
    for (int s : {SIGCHLD, SIGPIPE, SIGINT, SIGTERM}) sigaddset(&defaults, s);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setsigdefault(&attributes_, &defaults);
    posix_spawnattr_setpgroup(&attributes_, 0);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  ~Spawn() {
    posix_spawn_file_actions_destroy(&files_);
    posix_spawnattr_destroy(&attributes_);
  }
  Spawn(const Spawn&) = delete;
  Spawn& operator=(const Spawn&) = delete;

  int start(pid_t* child, const char* path, char* const* arguments, char* const* environment) {
    return posix_spawn(child, path, &files_, &attributes_, arguments, environment);
  }

 private:
  posix_spawn_file_actions_t files_;
  posix_spawnattr_t attributes_;
};

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> all;
  for (const std::string& w : words) all.push_back(const_cast<char*>(w.c_str()));
  all.push_back(nullptr);
  return all;
}

std::vector<std::string> environment_with(const std::vector<std::string>& settings) {
  std::vector<std::string> all = settings;
  for (char** e = environ; e != nullptr && *e != nullptr; ++e) {
    const std::string entry = *e, name = entry.substr(0, entry.find('=') + 1);
    const auto is_set = [&](const std::string& s) { return s.compare(0, name.size(), name) == 0; };
    if (std::none_of(settings.begin(), settings.end(), is_set)) all.push_back(entry);
  }
  return all;
}

// Limits are set on a running child, before it has had time to start others: posix_spawn cannot.
void limit(pid_t child) {
  constexpr rlim_t kBytes = rlim_t(2) << 30, kFileBytes = rlim_t(64) << 20;
  const rlimit memory{kBytes, kBytes}, files{kFileBytes, kFileBytes}, cores{0, 0};
  (void)prlimit(child, RLIMIT_AS, &memory, nullptr);
  (void)prlimit(child, RLIMIT_FSIZE, &files, nullptr);
  (void)prlimit(child, RLIMIT_CORE, &cores, nullptr);
}

std::atomic<bool (*)()> interrupt_check{nullptr};

}  // namespace

void set_interrupt_check(bool (*is_interrupted)()) { interrupt_check = is_interrupted; }

ProcessResult run_process(const std::vector<std::string>& words, const std::string& log_file,
                          const std::vector<std::string>& settings, double timeout_s) {
  using Clock = std::chrono::steady_clock;
  const std::vector<std::string> environment = environment_with(settings);
  pid_t child = -1;
  const int error =
      Spawn(log_file).start(&child, words[0].c_str(), pointers(words).data(), pointers(environment).data());
  if (error != 0) return {ProcessResult::kNotStarted, error};
  limit(child);
  const Clock::time_point end = Clock::now() + std::chrono::microseconds(int64_t(timeout_s * 1e6));
  constexpr auto kBetweenChecks = std::chrono::milliseconds(50);
  Clock::time_point next_check = Clock::now() + kBetweenChecks;
  ProcessResult::End why = ProcessResult::kTimedOut;  // it is killed
  bool killed = false;
  for (auto pause = std::chrono::microseconds(500);;) {
    int status = 0;
    const pid_t got = waitpid(child, &status, WNOHANG);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return {killed ? why : ProcessResult::kUnknown, errno};
    if (got == child) {
      if (killed) return {why, 0};
      if (WIFEXITED(status)) return {ProcessResult::kExited, WEXITSTATUS(status)};
      return {ProcessResult::kSignalled, WTERMSIG(status)};
    }
    const Clock::time_point now = Clock::now();
    bool stop = now > end;
    if (const auto is_interrupted = interrupt_check.load(); !killed && is_interrupted != nullptr && now > next_check) {
      next_check = now + kBetweenChecks;
      if (is_interrupted()) stop = true, why = ProcessResult::kInterrupted;
    }
    if (!killed && stop) killed = kill(-child, SIGKILL) == 0 || kill(child, SIGKILL) == 0;
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 3 / 2, std::chrono::microseconds(5000));
  }
}

}  // namespace fulmen::jit
