// SPDX-License-Identifier: Apache-2.0
// packbits, segment_packbits.
#pragma once
#include <fulmen/cuda/packbits.h>
#include <fulmen/cuda/segment_packbits.h>
#include <fulmen/ops/packbits.h>
#include <fulmen/ops/segment_packbits.h>

#include "src/cuda/op.h"

namespace fulmen::cuda {

struct PackBits {
  using Args = PackBitsArgs;
  using Key = packbits::Key;
  using Params = packbits::Params;
  static constexpr const char* kName = "packbits";
  static const TensorView& where(const Args& a) { return a.out; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

struct SegmentPackBits {
  using Args = SegmentPackBitsArgs;
  using Key = segment_packbits::Key;
  using Params = segment_packbits::Params;
  static constexpr const char* kName = "segment_packbits";
  static const TensorView& where(const Args& a) { return a.out_indptr; }
  static runtime::Refusal refuses(const Args& a);
  static void launch(const Args& a, const Device& device, const Context& context);
  static void prepare(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

}  // namespace fulmen::cuda
