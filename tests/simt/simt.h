// SPDX-License-Identifier: Apache-2.0
// Runs the CUDA backend where there is no GPU: a driver whose device compiles each printed unit with the host's C++
// compiler and executes it with one fiber per thread. The same launch code, keys, kernels and tests as on a GPU;
// what it cannot show is PTX, races and speed.
#pragma once
#include <string>

namespace fulmen::simt {

// Before the first use of CUDA. root: of the source tree, for the headers. cache: where compiled units are kept.
void install(const std::string& root, const std::string& cache);

// Instead of compiling and running kernels, appends their keys to a file: what a GPU machine's pack must hold.
void install_lister(const char* file);

}  // namespace fulmen::simt
