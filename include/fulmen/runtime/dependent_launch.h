// SPDX-License-Identifier: Apache-2.0
// Programmatic dependent launch, CUDA on sm_90 and up: a kernel's CTAs start while the stream's previous kernel still
// runs, and wait for its memory before they touch any. Hides about a microsecond per launch. Context::dependent_launch
// decides for one call.
#pragma once

namespace fulmen::runtime {

// Of this process's launches from now on. First: on, unless FULMEN_PDL is 0 or off.
bool dependent_launch();
void set_dependent_launch(bool on);

}  // namespace fulmen::runtime
