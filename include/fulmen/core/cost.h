// SPDX-License-Identifier: Apache-2.0
// What a call cannot do without: bytes moved between memory and the device, each once, and floating-point operations.
#pragma once

namespace fulmen {

struct Cost {
  double bytes = 0;
  double flops = 0;
  double bytes_written = 0;  // of `bytes`; a read and a write have different ceilings
};

}  // namespace fulmen
