// SPDX-License-Identifier: Apache-2.0
#include "src/jit/cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <utility>

namespace fulmen::jit {
namespace {
namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".kernel", kTemporary = ".tmp-";
constexpr int64_t kHour = 3600;

class File {
 public:
  explicit File(int descriptor) : descriptor_(descriptor) {}
  ~File() { close(); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  bool is_open() const { return descriptor_ >= 0; }
  int get() const { return descriptor_; }
  bool close() {
    const int d = std::exchange(descriptor_, -1);
    return d < 0 || ::close(d) == 0;
  }

 private:
  int descriptor_;
};

bool write_all(int file, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(file, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes.remove_prefix(size_t(n));
  }
  return true;
}

std::optional<std::string> read_all(int file) {
  struct stat info {};
  if (::fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) return {};
  std::string bytes(size_t(info.st_size), '\0');
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t n = ::read(file, bytes.data() + at, bytes.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return {};
    at += size_t(n);
  }
  return bytes;
}

struct Listed {
  std::string path;
  int64_t bytes, used;  // seconds
};

bool is_kernel(const std::string& name) { return name.ends_with(kSuffix) && !name.starts_with(kTemporary); }

}  // namespace

std::optional<Kernel> Cache::load(const std::string& name) const {
  if (folder_.empty()) return {};
  // Whatever lies there: a named pipe would keep its reader waiting.
  const File file(::open((folder_ + "/" + name).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.is_open()) return {};
  const std::optional<std::string> bytes = read_all(file.get());
  if (!bytes) return {};
  (void)!::futimens(file.get(), nullptr);  // for trim(); may fail where the folder is read-only
  return decode(*bytes);
}

bool Cache::store(const std::string& name, const Kernel& kernel) const {
  if (folder_.empty()) return false;
  std::error_code error;
  fs::create_directories(folder_, error);
  static std::atomic<uint32_t> serial{0};
  const std::string temporary = folder_ + "/" + std::string(kTemporary) + std::to_string(::getpid()) + "-" +
                                std::to_string(serial.fetch_add(1)) + "-" + std::to_string(std::time(nullptr));
  File file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file.is_open()) return false;
  const bool written = write_all(file.get(), encode(kernel)) && ::fsync(file.get()) == 0 && file.close();
  if (!written || ::rename(temporary.c_str(), (folder_ + "/" + name).c_str()) != 0) {
    ::unlink(temporary.c_str());
    return false;
  }
  const File folder(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.is_open()) (void)!::fsync(folder.get());
  static std::atomic<uint32_t> stores{0};
  if (stores.fetch_add(1) % 64 == 0) trim(limit_);  // listing the folder each time would cost more than it saves
  return true;
}

std::vector<std::string> Cache::names() const {
  std::vector<std::string> all;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, error))
    if (std::string name = entry.path().filename().string(); is_kernel(name)) all.push_back(std::move(name));
  std::sort(all.begin(), all.end());
  return all;
}

int64_t Cache::clear() const {
  int64_t removed = 0;
  for (const std::string& name : names()) removed += ::unlink((folder_ + "/" + name).c_str()) == 0;
  return removed;
}

void Cache::trim(int64_t keep_bytes) const {
  std::vector<Listed> files;
  int64_t total = 0;
  const int64_t now = std::time(nullptr);
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename().string();
    struct stat info {};
    if (::stat(entry.path().c_str(), &info) != 0) continue;  // another process removed it meanwhile
    if (name.starts_with(kTemporary)) {
      if (now - info.st_mtim.tv_sec > kHour) ::unlink(entry.path().c_str());  // its writer was killed
    } else if (is_kernel(name)) {
      files.push_back({entry.path().string(), info.st_size, info.st_mtim.tv_sec});
      total += info.st_size;
    }
  }
  std::sort(files.begin(), files.end(), [](const Listed& a, const Listed& b) { return a.used < b.used; });
  for (const Listed& f : files) {
    if (total <= keep_bytes) return;
    if (::unlink(f.path.c_str()) == 0) total -= f.bytes;
  }
}

std::string default_cache_folder() {
  if (const char* folder = std::getenv("FULMEN_CACHE_DIR")) return folder;
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && *xdg == '/')
    return std::string(xdg) + "/fulmen";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/')
    return std::string(home) + "/.cache/fulmen";
  return {};
}

}  // namespace fulmen::jit
