// SPDX-License-Identifier: Apache-2.0
// The host's compiler: how it is found, run, timed out and disbelieved; the cache under processes that are killed.
#include <fulmen/ops/elementwise.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "src/jit/host_compiler.h"
#include "src/jit/jit.h"
#include "src/jit/process.h"
#include "tests/support/levels.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/tensor.h"

extern char** environ;

namespace fulmen::jit {
namespace {
namespace fs = std::filesystem;
using testing::ScratchFolder;

std::string script(const std::string& path, const std::string& body) {
  fs::create_directories(fs::path(path).parent_path());
  std::ofstream(path) << "#!/bin/sh\n" << body << "\n";
  chmod(path.c_str(), 0755);
  return path;
}

Kernel kernel(const std::string& source) { return {.key = "test", .arch = "x86_64-scalar", .source = source}; }
Kernel kernel(int32_t value = 7) {
  return kernel("extern \"C\" __attribute__((visibility(\"default\"))) int fulmen_entry() { return " +
                std::to_string(value) + "; }\n");
}

Error error_of(Kernel k, const HostCompiler& compiler, double timeout_s = 300) {
  try {
    compile_on_host(&k, compiler, timeout_s);
  } catch (const Error& e) { return e; }
  return {Code::kInternal, "compiled"};
}

TEST(HostCompiler, IsFoundWhereItIsNamed) {
  const ScratchFolder folder;
  const std::string spaced = script(folder.path() + "/a folder/my c++", ""),
                    plain = script(folder.path() + "/bin/c++", ""),
                    wrapper = script(folder.path() + "/bin/wrap", "exec \"$@\"");
  const std::string path = folder.path() + "/none::" + folder.path() + "/bin";
  using Words = std::vector<std::string>;
  EXPECT_EQ(find_host_compiler(nullptr, nullptr, path.c_str()).command, Words{plain});
  EXPECT_EQ(find_host_compiler("", "", path.c_str()).command, Words{plain});
  EXPECT_EQ(find_host_compiler(spaced.c_str(), nullptr, path.c_str()).command, Words{spaced});
  EXPECT_EQ(find_host_compiler(nullptr, "wrap c++ -m64", path.c_str()).command, (Words{wrapper, "c++", "-m64"}));
  EXPECT_EQ(find_host_compiler(nullptr, "/no/such", path.c_str()).command, Words{plain}) << "CXX is a wish";
  EXPECT_TRUE(find_host_compiler("/no/such", "c++", path.c_str()).command.empty()) << "FULMEN_CXX is an order";
  EXPECT_TRUE(find_host_compiler(nullptr, folder.path().c_str(), "/none").command.empty()) << "a folder";
  const std::string before = find_host_compiler(nullptr, nullptr, path.c_str()).name;
  script(plain, "exit 1");
  EXPECT_NE(find_host_compiler(nullptr, nullptr, path.c_str()).name, before) << "another compiler, another name";
}

TEST(HostCompiler, SaysWhatToInstall) {
  const HostCompiler none = find_host_compiler(nullptr, nullptr, "/none");
  EXPECT_TRUE(none.name.empty());
  const Error e = error_of(kernel(), none);
  EXPECT_EQ(e.code, Code::kUnsupported);
  EXPECT_EQ(e.message.rfind("test: must be compiled for x86_64-scalar, but no C++ compiler is found (tried c", 0), 0u)
      << e.message;
  EXPECT_NE(e.message.find("apt-get install g++"), e.message.npos);
}

TEST(HostCompiler, IsStoppedKilledOrDisbelieved) {
  const ScratchFolder folder;
  const auto compiler = [&](const char* name, const std::string& body) {
    return HostCompiler{{script(folder.path() + "/" + name, body)}, "it", ""};
  };
  const auto start = std::chrono::steady_clock::now();
  const Error hangs = error_of(kernel(), compiler("hangs", "sleep 1000 & sleep 1000"), 0.3);
  EXPECT_EQ(hangs.code, Code::kInternal);
  EXPECT_NE(hangs.message.find("was stopped"), std::string::npos) << hangs.message;
  set_interrupt_check([] { return true; });
  const Error interrupted = error_of(kernel(), compiler("hangs", "sleep 1000 & sleep 1000"));
  set_interrupt_check(nullptr);
  EXPECT_NE(interrupted.message.find("was interrupted"), std::string::npos) << interrupted.message;
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(200));
  EXPECT_NE(error_of(kernel(), compiler("dies", "kill -9 $$")).message.find("died of signal 9"), std::string::npos);
  EXPECT_NE(error_of(kernel(), compiler("idles", "exit 0")).message.find("gave no library"), std::string::npos);
  EXPECT_NE(error_of(kernel(), {{"/etc/passwd"}, "it", ""}).message.find("cannot be run"), std::string::npos);
  const Error old = error_of(kernel(), compiler("old", "echo \"error: unrecognized option '-std=c++20'\"; exit 1"));
  EXPECT_EQ(old.code, Code::kUnsupported);
  EXPECT_NE(old.message.find("knows no C++20"), std::string::npos);
  const Error fails = error_of(kernel(), compiler("fails", "echo out of cheese; exit 1"));
  EXPECT_EQ(fails.code, Code::kInvalidArgument);
  EXPECT_NE(fails.message.find("out of cheese"), std::string::npos);
}

TEST(HostCompiler, IsRememberedFromTheRoot) {
  const ScratchFolder folder;
  script(folder.path() + "/bin/c++", "");
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  const HostCompiler by_path = find_host_compiler(nullptr, nullptr, "bin"),
                     by_name = find_host_compiler("bin/c++", nullptr, "/none");
  fs::current_path(before);
  ASSERT_FALSE(by_path.command.empty());
  ASSERT_FALSE(by_name.command.empty());
  EXPECT_TRUE(fs::exists(by_path.command[0])) << by_path.command[0];
  EXPECT_TRUE(fs::exists(by_name.command[0])) << by_name.command[0];
}

TEST(HostCompiler, MayPrintWhatItLikes) {
  const ScratchFolder folder;
  const auto fails = [&](const char* name, const std::string& body) {
    return error_of(kernel(), {{script(folder.path() + "/" + name, body)}, "it", ""}).message;
  };
  const std::string bytes = fails("bytes", R"(printf 'error: \377\300\303\251\355\240\200 \001 end'; exit 1)");
  EXPECT_NE(bytes.find("error: ??\xc3\xa9??? ? end"), bytes.npos) << bytes;
  EXPECT_LT(fails("much", "head -c 30000000 /dev/zero | tr '\\0' x; exit 1").size(), 6000u);
  EXPECT_NE(fails("endless", "exec cat /dev/zero").find("died of signal " + std::to_string(SIGXFSZ)),
            std::string::npos);
}

TEST(HostCompiler, LeavesNothingBehindAndPrintsNothing) {
  if (host_compiler().command.empty()) GTEST_SKIP() << host_compiler().problem;
  const ScratchFolder folder;
  const std::string spaced = folder.path() + "/with a space; and 'quotes'";
  fs::create_directory(spaced);
  const char* before = std::getenv("TMPDIR");
  const std::string old = before == nullptr ? "" : before;
  setenv("TMPDIR", spaced.c_str(), 1);
  ::testing::internal::CaptureStdout(), ::testing::internal::CaptureStderr();
  Kernel good = kernel();
  compile_on_host(&good, host_compiler());
  std::string problem;
  const auto entry = reinterpret_cast<int (*)()>(load_host_image(good.image, &problem));
  const Error bad = error_of(kernel("#warning loud\nint x = nothing;\n"), host_compiler());
  old.empty() ? unsetenv("TMPDIR") : setenv("TMPDIR", old.c_str(), 1);
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  ASSERT_NE(entry, nullptr) << problem;
  EXPECT_EQ(entry(), 7);
  EXPECT_GT(good.resources.compile_ms, 0);
  EXPECT_EQ(bad.code, Code::kInvalidArgument);
  EXPECT_TRUE(fs::is_empty(spaced));
}

TEST(HostImage, IsAlwaysTheOneThatWasAskedFor) {
  if (host_compiler().command.empty()) GTEST_SKIP() << host_compiler().problem;
  std::string problem;
  for (int32_t i = 0; i < 3; ++i) {  // each time under the file number of the last
    Kernel k = kernel(i);
    compile_on_host(&k, host_compiler());
    const auto entry = reinterpret_cast<int (*)()>(load_host_image(k.image, &problem));
    ASSERT_NE(entry, nullptr) << problem;
    EXPECT_EQ(entry(), i);
  }
  EXPECT_EQ(load_host_image("no library", &problem), nullptr);
  EXPECT_NE(problem, "");
}

TEST(HostSource, HoldsEachHeaderOnceAndKeepsLines) {
  const std::string text = flattened(
      "#include <fulmen/core/math.h>\n#include <fulmen/core/math.h>\n#include <no/such.h>\n#line 1 \"mine\"\nint x;\n"
      "#include <fulmen/attention/variant.h>\nint y;\n");
  EXPECT_EQ(text.find("namespace fulmen::math {"), text.rfind("namespace fulmen::math {"));
  EXPECT_NE(text.find("#include <no/such.h>\n#line 1 \"mine\"\nint x;\n"), text.npos);
  EXPECT_NE(text.find("#line 3 \"mine\"\nint y;"), text.npos);
  EXPECT_NE(flattened(" # include  \"fulmen/core/math.h\" // mine\n").find("namespace fulmen::math {"), text.npos);
  EXPECT_EQ(flattened("#include\n#\n\n#include <fulmen/no/such.h>\n#include <"),
            "#include\n#\n\n#include <fulmen/no/such.h>\n#include <\n");
  EXPECT_EQ(text.find("#include <fulmen"), text.npos);
}

// --- Processes. A worker is this program again; it computes with texts and compares.

constexpr const char* kWorker = "FULMEN_TEXT_WORKER";
constexpr int32_t kTexts = 3;

std::string value_of(int32_t text, float x) {
  testing::Tensor a(DType::kF32, {2, 5}), out(DType::kF32, {2, 5});
  a.fill([&](int64_t) { return double(x); });
  elementwise({.text = "return a * a + " + std::to_string(text) + ";", .name = "square", .a = a, .out = out});
  return std::to_string(int32_t(out.data<float>()[9]));
}

TEST(HostTextProcesses, Worker) {
  const char* mode = std::getenv(kWorker);
  if (mode == nullptr) GTEST_SKIP() << "runs as a child of the other tests";
  for (int32_t i = 0; i < kTexts; ++i) {
    const auto call = [&] { return value_of(i, 3); };
    if (std::string_view(mode) == "computes") {
      EXPECT_EQ(call(), std::to_string(9 + i));
    } else {
      const std::string message = testing::error_of(call);
      EXPECT_NE(message.find(mode), message.npos) << message;
      EXPECT_EQ(message.rfind("elementwise name=square: must be compiled for ", 0), 0u) << message;
    }
  }
}

pid_t spawn_worker(const std::string& mode, const std::string& cache, const std::vector<std::string>& settings = {}) {
  std::vector<std::string> all = settings;
  all.push_back(std::string(kWorker) + "=" + mode), all.push_back("FULMEN_CACHE_DIR=" + cache);
  for (char** e = environ; *e != nullptr; ++e) all.push_back(*e);
  std::vector<char*> environment;
  for (std::string& s : all) environment.push_back(s.data());
  environment.push_back(nullptr);
  const char* arguments[] = {"worker", "--gtest_filter=HostTextProcesses.Worker", "--gtest_brief=1", nullptr};
  pid_t child = -1;
  char self[4096] = "";
  if (readlink("/proc/self/exe", self, sizeof self - 1) <= 0) return -1;
  return posix_spawn(&child, self, nullptr, nullptr, const_cast<char**>(arguments), environment.data()) == 0 ? child
                                                                                                             : -1;
}

bool succeeds(pid_t child) {
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(HostTextProcesses, RefuseWithoutACompilerAndWithTheJitOff) {
  const ScratchFolder folder;
  EXPECT_TRUE(succeeds(spawn_worker("no C++ compiler is found", folder.path(), {"FULMEN_CXX=/no/such"})));
  EXPECT_TRUE(succeeds(spawn_worker("FULMEN_JIT=off", folder.path(), {"FULMEN_JIT=off"})));
  if (host_compiler().command.empty()) GTEST_SKIP() << host_compiler().problem;
  EXPECT_TRUE(succeeds(spawn_worker("computes", folder.path())));
  // What is in the cache, or in a pack, needs neither.
  EXPECT_TRUE(succeeds(spawn_worker("computes", folder.path(), {"FULMEN_CXX=/no/such"})));
  EXPECT_TRUE(succeeds(spawn_worker("computes", folder.path(), {"FULMEN_JIT=off"})));
  EXPECT_TRUE(succeeds(spawn_worker("computes", "", {"FULMEN_PACK_PATH=" + folder.path(), "FULMEN_JIT=off"})));
}

TEST(HostTextProcesses, NeedNoHomeAndNoCache) {
  if (host_compiler().command.empty()) GTEST_SKIP() << host_compiler().problem;
  EXPECT_TRUE(succeeds(spawn_worker("computes", "/proc/no/such/folder")));
  EXPECT_TRUE(succeeds(spawn_worker("computes", "", {"HOME=/proc/none", "TMPDIR=/proc/none"})));
}

TEST(HostTextThreads, GetOneAnswer) {
  if (host_compiler().command.empty()) GTEST_SKIP() << host_compiler().problem;
  setenv("FULMEN_CACHE_DIR", "", 1);
  std::vector<std::string> values(8);
  std::vector<std::thread> threads;
  for (std::string& value : values) threads.emplace_back([&] { value = value_of(40, 2); });
  for (std::thread& t : threads) t.join();
  for (const std::string& value : values) EXPECT_EQ(value, "44");
}

TEST(HostTexts, EndInAResultAndMayEndInABackslash) {
  if (host_compiler().command.empty()) GTEST_SKIP() << host_compiler().problem;
  setenv("FULMEN_CACHE_DIR", "", 1);
  testing::Tensor a(DType::kF32, {2, 5}), out(DType::kF32, {2, 5});
  a.fill([](int64_t) { return 3.0; });
  elementwise({.text = "return a * a; \\", .name = "square", .a = a, .out = out});
  EXPECT_EQ(out.data<float>()[9], 9);
  for (const char* text : {" ", "if (a > 100) return 1;", "// return a;"}) {
    const std::string message =
        testing::error_of([&] { elementwise({.text = text, .name = "square", .a = a, .out = out}); });
    EXPECT_EQ(message.rfind("elementwise name=square: does not compile", 0), 0u) << message;
    EXPECT_NE(message.find("error: "), message.npos) << message;
  }
}

// Of the threads of its parent a child has the one that forked.
TEST(HostTextThreads, AForkedChildMakesWhatItsParentWasMaking) {
  static std::atomic<bool> started{false}, forked{false};
  Jit jit({.cache_folder = "", .pack_folders = {}, .compiler = {"slow", [](Kernel* k) {
                                                                  started = true;
                                                                  while (!forked) std::this_thread::yield();
                                                                  k->image = "made";
                                                                }}});
  const Unit unit{"key", "source"};
  std::thread maker([&] { jit.get(unit, "arch"); }), waiter([&] { jit.get(unit, "arch"); });
  while (!started) std::this_thread::yield();
  jit.before_fork();
  const pid_t child = fork();
  jit.after_fork(child == 0);
  forked = true;  // in both
  if (child == 0) {
    alarm(300);
    _exit(jit.get(unit, "arch")->image == "made" && jit.get(unit, "arch")->image == "made" ? 0 : 1);
  }
  EXPECT_TRUE(succeeds(child));
  maker.join(), waiter.join();
  EXPECT_EQ(jit.get(unit, "arch")->image, "made");
}

TEST(Cache, DoesNotWaitForWhatIsNoFile) {
  const ScratchFolder folder;
  ASSERT_EQ(mkfifo((folder.path() + "/pipe.kernel").c_str(), 0600), 0);
  fs::create_directory(folder.path() + "/folder.kernel");
  fs::create_symlink("loop.kernel", folder.path() + "/loop.kernel");
  const Cache cache(folder.path());
  for (const std::string& name : cache.names()) EXPECT_FALSE(cache.load(name).has_value()) << name;
  EXPECT_EQ(cache.names().size(), 3u);
}

// A library that does not load here is made again.
TEST(HostTextProcesses, MakeAgainWhatDoesNotLoad) {
  if (host_compiler().command.empty()) GTEST_SKIP() << host_compiler().problem;
  const ScratchFolder folder;
  EXPECT_TRUE(succeeds(spawn_worker("computes", folder.path())));
  const Cache cache(folder.path());
  ASSERT_EQ(cache.names().size(), size_t(kTexts));
  int32_t i = 0;
  for (const std::string& name : cache.names()) {
    Kernel k = *cache.load(name);
    k.image.resize(i++ % 2 == 0 ? k.image.size() / 2 : 100);
    ASSERT_TRUE(cache.store(name, k));
  }
  EXPECT_TRUE(succeeds(spawn_worker("computes", folder.path())));
  EXPECT_TRUE(succeeds(spawn_worker("computes", folder.path(), {"FULMEN_JIT=off"})));
}

TEST(HostTextProcesses, SurviveKillsAndDamage) {
  if (host_compiler().command.empty()) GTEST_SKIP() << host_compiler().problem;
  std::mt19937 random(20261122);
  const ScratchFolder folder;
  std::vector<pid_t> children;
  std::vector<bool> killed;
  for (int32_t i = 0; i < 8; ++i) children.push_back(spawn_worker("computes", folder.path()));
  for (int32_t i = 0; i < 8; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 400));
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder.path(), error))
      if (random() % 4 == 0) fs::resize_file(entry.path(), random() % 6000, error);
    killed.push_back(i % 2 == 0 && kill(children[size_t(i)], SIGKILL) == 0);
  }
  for (size_t i = 0; i < children.size(); ++i) EXPECT_TRUE(succeeds(children[i]) || killed[i]);
  EXPECT_TRUE(succeeds(spawn_worker("computes", folder.path())));
  const Cache cache(folder.path());
  int32_t whole = 0;
  for (const std::string& name : cache.names()) whole += cache.load(name).has_value();
  EXPECT_EQ(whole, kTexts);
}

}  // namespace
}  // namespace fulmen::jit
