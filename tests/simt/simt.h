// SPDX-License-Identifier: Apache-2.0
// Runs the CUDA backend where there is no GPU: a driver whose device compiles each printed unit with the host's C++
// compiler and executes it with one fiber per thread. The same launch code, keys, kernels and tests as on a GPU;
// what it cannot show is PTX, races and speed. With AddressSanitizer and UBSan (preset asan) the kernels run with them
// too: an access beside a tensor, a workspace, a __shared__ array or a local one ends the program. The run-time's
// warning about
// __asan_handle_no_return is of fibers that jump, and harmless: no frame is left for good but fiber_main()'s.
#pragma once
#include <string>

namespace fulmen::simt {

// Before the first use of CUDA. root: of the source tree, for the headers. cache: where compiled units are kept.
void install(const std::string& root, const std::string& cache);

// Instead of compiling and running kernels, appends their keys to a file: what a GPU machine's pack must hold.
void install_lister(const char* file);

}  // namespace fulmen::simt
