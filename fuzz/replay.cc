// SPDX-License-Identifier: Apache-2.0
// Runs a fuzz target without libFuzzer: every file of the corpus, then inputs made by a fixed random sequence.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "fuzz/input.h"

int main(int argc, char** argv) {
  int32_t num_files = 0;
  if (argc > 1 && std::filesystem::is_directory(argv[1]))
    for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
      std::ifstream file(entry.path(), std::ios::binary);
      const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
      LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
      ++num_files;
    }
  std::mt19937 rng(1);
  constexpr int32_t kRandom = 20000;
  std::vector<uint8_t> bytes;
  for (int32_t i = 0; i < kRandom; ++i) {
    bytes.resize(rng() % 300);
    for (uint8_t& b : bytes) b = uint8_t(rng());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%d files of the corpus and %d random inputs\n", num_files, kRandom);
}
