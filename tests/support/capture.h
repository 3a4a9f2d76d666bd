// SPDX-License-Identifier: Apache-2.0
// A stream whose work is captured in a graph and replayed.
#pragma once
#include "src/cuda/device.h"

namespace fulmen::testing {

class Capture {
 public:
  Capture() { cuda::check(cu().stream_create(&stream, 1), "cuStreamCreate"); }
  ~Capture() {
    if (exec_ != nullptr) cu().graph_exec_destroy(exec_), cu().graph_destroy(graph_);
    cu().stream_destroy(stream);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  template <class F>
  void record(F f) {
    cuda::check(cu().stream_begin_capture(stream, cuda::driver::kCaptureGlobal), "begin");
    f();
    cuda::check(cu().stream_end_capture(stream, &graph_), "end");
    cuda::check(cu().graph_instantiate(&exec_, graph_, 0), "instantiate");
  }
  void replay() {
    cuda::check(cu().graph_launch(exec_, stream), "launch");
    synchronize();
  }
  // Copies of tests go to another stream, which does not wait for this one.
  void synchronize() { cuda::check(cu().stream_synchronize(stream), "synchronize"); }
  cuda::driver::Stream stream = nullptr;

 private:
  static const cuda::driver::Api& cu() { return cuda::driver::api(); }
  cuda::driver::Graph graph_ = nullptr;
  cuda::driver::GraphExec exec_ = nullptr;
};

}  // namespace fulmen::testing
