// SPDX-License-Identifier: Apache-2.0
// A folder of kernel files, shared by any number of processes without a lock.
//   Write: a temporary file, fsync, rename. Writers of the same name write the same bytes; the last one stays.
//   Read: one open, checked by length and hash; a damaged file reads as absent and is replaced by the next writer.
// A folder that cannot be read or written is an empty one: caching never makes a call fail.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "src/jit/entry.h"

namespace fulmen::jit {

class Cache {
 public:
  explicit Cache(std::string folder, int64_t limit_bytes = kDefaultLimit)
      : folder_(std::move(folder)), limit_(limit_bytes) {}
  static constexpr int64_t kDefaultLimit = 512 << 20;

  const std::string& folder() const { return folder_; }
  std::optional<Kernel> load(const std::string& name) const;  // marks the file as used now
  bool store(const std::string& name, const Kernel& kernel) const;
  std::vector<std::string> names() const;  // kernel files, sorted
  int64_t clear() const;                   // how many files were removed

  // Removes the least recently used files until at most `keep_bytes` are left, and temporary files older than an hour.
  void trim(int64_t keep_bytes) const;

 private:
  std::string folder_;
  int64_t limit_;
};

// Where kernels are kept between processes: FULMEN_CACHE_DIR, else $XDG_CACHE_HOME/fulmen, else ~/.cache/fulmen, else
// empty: in memory alone. FULMEN_CACHE_DIR set to nothing also means memory alone.
std::string default_cache_folder();

}  // namespace fulmen::jit
