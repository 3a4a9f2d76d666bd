// SPDX-License-Identifier: Apache-2.0
// The run-time compiler and its cache, on a machine with or without a GPU. What needs NVRTC is skipped where there is
// none.
#include <fcntl.h>
#include <fulmen/core/error.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "src/cuda/elementwise.h"
#include "src/cuda/pack.h"
#include "src/cuda/table.h"
#include "src/jit/compiler_record.h"
#include "src/jit/jit.h"
#include "src/jit/nvrtc.h"
#include "src/jit/sha256.h"
#include "tests/support/scratch_folder.h"

namespace fulmen::jit {
namespace {
namespace fs = std::filesystem;
using testing::ScratchFolder;

constexpr const char* kArchs[] = {"sm_75",   "sm_80",   "sm_86",   "sm_89",   "sm_90a",
                                  "sm_100a", "sm_103a", "sm_110a", "sm_120a", "sm_121a"};

Unit small_unit(int32_t n) {
  return {"small n=" + std::to_string(n),
          std::string("extern \"C\" __global__ void ") + kEntryName + "(int* p) { *p = " + std::to_string(n) + "; }\n"};
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void write(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

Kernel some_kernel() {
  return {.key = "small n=1",
          .arch = "sm_80",
          .compiler = "nvrtc 99.1",
          .flags = "--std=c++20",
          .source = "text\n\nof it",
          .headers = "digest",
          .image = std::string("\x7f"
                               "ELF\0\0\n\n",
                               8),
          .log = "ptxas\n",
          .resources = {24, 0, 0, 0, 12.5}};
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) { return e.message; }
  return "nothing was thrown";
}

class WithNvrtc : public ::testing::Test {
 protected:
  void SetUp() override {
    if (nvrtc().version.empty()) GTEST_SKIP() << nvrtc().problem;
  }
};

TEST(Sha256, GivesTheStandardsExamples) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  Sha256 pieces;
  for (int32_t i = 0; i < 1000; ++i) pieces.add(std::string(size_t(1000), 'a'));
  EXPECT_EQ(pieces.hex(), sha256(std::string(1000000, 'a')));
  EXPECT_NE(Sha256().add_field("ab").add_field("c").hex(), Sha256().add_field("a").add_field("bc").hex());
}

TEST(Entry, SurvivesAFile) {
  const Kernel k = some_kernel();
  const std::optional<Kernel> back = decode(encode(k));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->key, k.key);
  EXPECT_EQ(back->image, k.image);
  EXPECT_EQ(back->log, k.log);
  EXPECT_EQ(back->source, k.source);
  EXPECT_EQ(back->resources.registers, 24);
  EXPECT_DOUBLE_EQ(back->resources.compile_ms, 12.5);
  EXPECT_EQ(entry_id(*back), entry_id(k));
}

TEST(Entry, RefusesEveryDamage) {
  const std::string good = encode(some_kernel());
  for (size_t n = 0; n < good.size(); ++n) {
    EXPECT_FALSE(decode(good.substr(0, n))) << "cut at " << n;
    std::string flipped = good;
    flipped[n] = char(flipped[n] ^ 4);
    EXPECT_FALSE(decode(flipped)) << "flipped at " << n;
  }
  EXPECT_FALSE(decode(good + "x"));
}

TEST(Entry, NamesEverythingThatWentIn) {
  const Kernel k = some_kernel();
  for (std::string Kernel::*field :
       {&Kernel::key, &Kernel::arch, &Kernel::compiler, &Kernel::flags, &Kernel::source, &Kernel::headers}) {
    Kernel other = k;
    other.*field += "x";
    EXPECT_NE(entry_id(other), entry_id(k));
  }
}

TEST(Cache, KeepsKernelsAndForgetsTheLeastRecentlyUsed) {
  const ScratchFolder folder;
  const Cache cache(folder.path() + "/made/when/needed");
  for (const char* name : {"a.kernel", "b.kernel", "c.kernel"}) ASSERT_TRUE(cache.store(name, some_kernel()));
  EXPECT_EQ(cache.names().size(), 3u);
  const auto age = [&](const char* name, int64_t seconds) {
    const timespec times[2] = {{::time(nullptr) - seconds, 0}, {::time(nullptr) - seconds, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, (cache.folder() + "/" + name).c_str(), times, 0), 0);
  };
  age("a.kernel", 100), age("b.kernel", 300), age("c.kernel", 200);
  EXPECT_TRUE(cache.load("b.kernel"));  // now the most recent
  write(cache.folder() + "/.tmp-1-2-3", "left by a killed writer");
  age(".tmp-1-2-3", 7200);
  write(cache.folder() + "/.tmp-4-5-6", "of a living writer");
  cache.trim(int64_t(2 * encode(some_kernel()).size()));
  EXPECT_EQ(cache.names(), (std::vector<std::string>{"a.kernel", "b.kernel"}));
  EXPECT_FALSE(fs::exists(cache.folder() + "/.tmp-1-2-3"));
  EXPECT_TRUE(fs::exists(cache.folder() + "/.tmp-4-5-6"));
  EXPECT_EQ(cache.clear(), 2);
}

TEST(Cache, RemembersItsCompilerWhileThatIsTheSame) {
  const ScratchFolder folder;
  const std::string library = folder.path() + "/libnvrtc.so";
  const Nvrtc compiler{.version = "nvrtc 99.1", .problem = "", .path = "libnvrtc.so", .file = library};
  record_compiler(folder.path(), compiler);
  EXPECT_EQ(recorded_compiler(folder.path()), "");  // there is no such library
  write(library, "first");
  record_compiler(folder.path(), compiler);
  EXPECT_EQ(recorded_compiler(folder.path()), "nvrtc 99.1");
  EXPECT_TRUE(Cache(folder.path()).names().empty());
  write(library, "the second");
  EXPECT_EQ(recorded_compiler(folder.path()), "");
  record_compiler(folder.path(), compiler);
  write(folder.path() + "/compiler", "nvrtc 99.1\n");
  EXPECT_EQ(recorded_compiler(folder.path()), "");
  EXPECT_EQ(recorded_compiler(""), "");
  record_compiler("/proc/nowhere", compiler);
}

TEST(Cache, AnUnusableFolderIsAnEmptyOne) {
  const ScratchFolder folder;
  write(folder.path() + "/file", "");
  for (const std::string& path : {std::string(), folder.path() + "/file", std::string("/proc/fulmen")}) {
    const Cache cache(path);
    EXPECT_FALSE(cache.store("a.kernel", some_kernel())) << path;
    EXPECT_FALSE(cache.load("a.kernel")) << path;
    EXPECT_TRUE(cache.names().empty()) << path;
  }
}

TEST(Cache, FolderComesFromTheEnvironment) {
  setenv("XDG_CACHE_HOME", "/xdg", 1);
  unsetenv("FULMEN_CACHE_DIR");
  EXPECT_EQ(default_cache_folder(), "/xdg/fulmen");
  setenv("FULMEN_CACHE_DIR", "/mine", 1);
  EXPECT_EQ(default_cache_folder(), "/mine");
  setenv("FULMEN_CACHE_DIR", "", 1);
  EXPECT_EQ(default_cache_folder(), "");
  unsetenv("FULMEN_CACHE_DIR"), unsetenv("XDG_CACHE_HOME");
}

TEST(Keys, EveryCommonKeyIsReadBack) {
  for (const std::string& line : cuda::common_keys()) { ASSERT_EQ(cuda::unit_from(line).key, line); }
  std::ifstream served(FULMEN_SOURCE_DIR "/aot/serving.keys");
  const std::string text{std::istreambuf_iterator<char>(served), {}};
  EXPECT_GT(cuda::parse_keys(text).size(), 500u);
  try {
    cuda::parse_keys("# keys\nrmsnorm x=bfloat16\n");
    ADD_FAILURE() << "accepted";
  } catch (const Error& e) { EXPECT_EQ(e.message.find("keys, line 2: rmsnorm: weight is missing"), 0u) << e.message; }
  EXPECT_THROW(cuda::parse_keys("no_such_op x=1\n"), Error);
  EXPECT_TRUE(cuda::parse_keys("# a comment\n\n").empty());
}

// A pack holds what devices that run its code ask for: sm_86 and sm_89 run sm_80's and have less shared memory.
TEST(Keys, APackLeavesOutWhatOnlyOtherDevicesAskFor) {
  EXPECT_EQ(cuda::archs_of("sm_80"), (std::vector<int32_t>{80, 86, 87, 89}));
  EXPECT_EQ(cuda::archs_of("sm_90a"), (std::vector<int32_t>{90}));
  EXPECT_EQ(cuda::archs_of("compute_110"), (std::vector<int32_t>{110, 120, 121}));
  const std::vector<std::string> all = cuda::common_keys();
  std::set<std::string> asked;
  for (const char* target : {"sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"})
    for (const std::string& line : cuda::common_keys(target)) asked.insert(line);
  EXPECT_EQ(asked, std::set<std::string>(all.begin(), all.end()));
  const std::string own = "rmsnorm x=bfloat16 weight=bfloat16 out=bfloat16 vec=2 vecs=3 lanes=8";
  std::vector<std::string> lines = all;
  lines.push_back(own);  // a user's: built whatever devices ask for
  const std::vector<cuda::PackJob> jobs = cuda::pack_jobs({"sm_90a"}, lines, false);
  EXPECT_EQ(jobs.size(), cuda::common_keys("sm_90a").size() + 1);
  EXPECT_LT(jobs.size() + 50, all.size());
  EXPECT_EQ(jobs.back().line, own);
  EXPECT_EQ(cuda::pack_jobs({"sm_90a", "sm_75"}, lines, true).size(), 2 * lines.size());
  EXPECT_EQ(cuda::pack_jobs({"sm_1"}, lines, false).size(), lines.size());  // to be refused by the compiler
}

std::string refusal(const std::string& line) {
  try {
    cuda::unit_from(line);
  } catch (const Error& e) {
    EXPECT_EQ(e.code, Code::kInvalidArgument);
    return e.message;
  }
  return {};
}

// Every field of every family: absent, twice, of another type, and numbers that no kernel was written for.
TEST(Keys, AnImpossibleFieldIsRefusedByName) {
  for (const cuda::Family& family : cuda::families()) {
    const std::string op(family.name), good = family.common_lines(0).front();
    EXPECT_NE(refusal(good + " nonsense=1").find(op + ": key has the word 'nonsense=1', expected"), std::string::npos);
    std::istringstream in(good.substr(op.size()));
    for (std::string word; in >> word;) {
      const std::string name = word.substr(0, word.find('=')), before = op + ": " + name + " ";
      const size_t at = good.find(" " + word);
      const auto with = [&](const std::string& other) { return std::string(good).replace(at, word.size() + 1, other); };
      EXPECT_EQ(refusal(with("")).find(before + "is missing in the key, expected "), 0u) << good;
      EXPECT_EQ(refusal(good + " " + word).find(before + "is given twice"), 0u) << good;
      for (const char* value : {"", "x", "?", "-1", "12345", "99999999999", "1.5", "int32"}) {
        const std::string why = refusal(with(" " + name + "=" + value));
        EXPECT_EQ(why.find(before + "is "), 0u) << good << " with " << name << "=" << value << ": " << why;
        EXPECT_NE(why.find(", expected "), std::string::npos) << why;
      }
    }
  }
  EXPECT_EQ(refusal("rmsnorm x=int32 weight=float32 out=float32 vec=4 vecs=1 lanes=32"),
            "rmsnorm: x is int32, expected float32, float16 or bfloat16");
  const std::string attention = "batch_attention q=bfloat16 kv=bfloat16 d_qk=128 d_vo=128 m_tiles=1 warps_q=4 ";
  EXPECT_EQ(refusal(attention + "tile_kv=64 block_kv=16 stages=2"), "");
  EXPECT_EQ(refusal(attention + "tile_kv=192 block_kv=32 stages=3"),
            "batch_attention: tile_kv, block_kv, stages have no kernel together, "
            "expected such as tile_kv=64 block_kv=16 stages=2");
}

TEST_F(WithNvrtc, CompilesOneKernelOfEachFamilyForEveryArchitecture) {
  for (const cuda::Family& family : cuda::families()) {
    const std::vector<std::string> lines = family.common_lines(0);
    ASSERT_FALSE(lines.empty()) << family.name;
    for (const char* arch : kArchs) {
      Kernel k;
      const Unit unit = family.unit(lines[lines.size() / 2]);
      k.key = unit.key, k.source = unit.source, k.arch = arch;
      compile(&k);
      EXPECT_EQ(k.image.substr(1, 3), "ELF");
      EXPECT_EQ(k.resources.spill_bytes, 0) << k.key << " " << arch;
      EXPECT_EQ(k.resources.stack_bytes, 0) << k.key << " " << arch;
      EXPECT_GT(k.resources.registers, 0);
    }
  }
}

TEST_F(WithNvrtc, AKernelComesFromTheNearestPlaceThatHasIt) {
  const ScratchFolder folder;
  const Options options{.cache_folder = folder.path() + "/cache", .pack_folders = {}};
  const Unit unit = small_unit(41);
  Origin origin{};
  Jit first(options), second(options);
  EXPECT_NE(first.explain(unit, "sm_80").find("no kernel with this key"), std::string::npos);
  const auto kernel = first.get(unit, "sm_80", &origin);
  EXPECT_EQ(origin, Origin::kCompiled);
  EXPECT_EQ(first.get(unit, "sm_80", &origin), kernel);
  EXPECT_EQ(origin, Origin::kMemory);
  EXPECT_EQ(second.get(unit, "sm_80", &origin)->image, kernel->image);
  EXPECT_EQ(origin, Origin::kCache);
  EXPECT_NE(first.explain(unit, "sm_80").find("hit"), std::string::npos);

  Unit edited = unit;
  edited.source += "\n";
  EXPECT_NE(first.explain(edited, "sm_80").find("other source"), std::string::npos);

  const Options packed{.cache_folder = "", .pack_folders = {options.cache_folder}, .may_compile = false};
  Jit third(packed);
  EXPECT_EQ(third.get(unit, "sm_80", &origin)->image, kernel->image);
  EXPECT_EQ(origin, Origin::kPack);
  Jit fourth(packed);  // sm_86 runs code of sm_80
  EXPECT_EQ(fourth.get(unit, std::vector<std::string>{"sm_86", "sm_80"}, &origin)->arch, "sm_80");
  const std::string text = error_of([&] { fourth.get(small_unit(42), "sm_80"); });
  EXPECT_NE(text.find("FULMEN_JIT=off"), std::string::npos) << text;
  EXPECT_NE(text.find("small n=42"), std::string::npos) << text;
}

TEST_F(WithNvrtc, ADamagedFileIsReplaced) {
  const ScratchFolder folder;
  const Options options{.cache_folder = folder.path(), .pack_folders = {}};
  Origin origin{};
  const auto good = Jit(options).get(small_unit(1), "compute_80", &origin);
  const std::string path = folder.path() + "/" + Cache(folder.path()).names().at(0), bytes = read(path);
  write(path, bytes.substr(0, bytes.size() / 2));
  EXPECT_NE(Jit(options).explain(small_unit(1), "compute_80").find("damaged"), std::string::npos);
  EXPECT_EQ(Jit(options).get(small_unit(1), "compute_80", &origin)->image, good->image);
  EXPECT_EQ(origin, Origin::kCompiled);
  EXPECT_EQ(Jit(options).get(small_unit(1), "compute_80", &origin)->image, good->image);
  EXPECT_EQ(origin, Origin::kCache);
}

TEST_F(WithNvrtc, AnErrorStartsWithItsLine) {
  Jit jit(Options{.cache_folder = "", .pack_folders = {}});
  const Unit bad{"mine", "#line 7 \"my_variant.h\"\nint f() { return undefined_name; }\n"};
  const std::string text = error_of([&] { jit.get(bad, "sm_80"); });
  EXPECT_NE(text.find("mine: does not compile for sm_80"), std::string::npos) << text;
  EXPECT_NE(text.find("\nmy_variant.h(7): error"), std::string::npos) << text;
  EXPECT_EQ(error_of([&] { jit.get(bad, "sm_80"); }), text);  // and nobody waits for it afterwards
}

TEST_F(WithNvrtc, ATextEndsInAResultAndMayEndInABackslash) {
  Jit jit(Options{.cache_folder = "", .pack_folders = {}});
  const auto unit = [](const char* text) {
    return cuda::elementwise_unit({.a = DType::kF32, .out = DType::kF32, .inputs = 1, .vec = 1}, "mine", text);
  };
  EXPECT_NE(jit.get(unit("return a * a; \\"), "sm_80")->image, "");
  const std::string text = error_of([&] { jit.get(unit("if (a > 100) return 1;"), "sm_80"); });
  EXPECT_NE(text.find("missing return"), text.npos) << text;
}

TEST(Jit, WithoutNvrtcTheErrorSaysWhatToInstall) {
  if (!nvrtc().version.empty()) GTEST_SKIP() << "this machine has " << nvrtc().version;
  const std::string text =
      error_of([&] { Jit(Options{.cache_folder = "", .pack_folders = {}}).get(small_unit(1), "sm_80"); });
  EXPECT_NE(text.find("small n=1"), std::string::npos);
  EXPECT_NE(text.find("nvidia-cuda-nvrtc"), std::string::npos);
}

}  // namespace
}  // namespace fulmen::jit
