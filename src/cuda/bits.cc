// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/bits.h"

#include <fulmen/cuda/row_shape.h>

#include "src/cuda/ids.h"

namespace fulmen::cuda {
namespace {

using segment_packbits::Step;
constexpr int64_t kMostBits = int64_t(1) << 40;  // a grid has CTAs for 2^42

Work<segment_packbits::Key, segment_packbits::Params> segments(const SegmentPackBitsArgs& a, Step step) {
  const segment_packbits::Params p{.x = a.x.as<const uint8_t>(),
                                   .out = a.out.as<uint8_t>(),
                                   .indptr = ids_of(a.indptr),
                                   .out_indptr = ids_of(a.out_indptr),
                                   .num_bits = a.x.shape[0],
                                   .num_bytes = a.out.shape[0],
                                   .batch_size = a.indptr.shape[0] - 1};
  const int64_t ctas = math::ceil_div(p.num_bytes, int64_t(segment_packbits::kThreads));
  return {.key = {.step = step, .little = step == Step::kPack && a.bitorder == BitOrder::kLittle},
          .params = p,
          .shape = {.grid = step == Step::kOffsets ? 1u : uint32_t(ctas), .num_threads = segment_packbits::kThreads},
          .persistent = false};
}

}  // namespace

runtime::Refusal PackBits::refuses(const Args& a) { return a.x.shape[0] > kMostBits ? "more than 2^40 booleans" : ""; }

Work<packbits::Key, packbits::Params> PackBits::work(const Args& a, const Device&) {
  const int32_t aligned = max_vec(uint64_t(a.x.data), 1);
  const Key key{.vec = aligned >= 8 ? aligned : 1, .little = a.bitorder == BitOrder::kLittle};
  const int64_t per_cta = int64_t(packbits::kThreads) * bits_per_thread(key);
  return {.key = key,
          .params = {.x = a.x.as<const uint8_t>(), .out = a.out.as<uint8_t>(), .num_bits = a.x.shape[0]},
          .shape = {.grid = uint32_t(math::ceil_div(a.x.shape[0], per_cta)), .num_threads = packbits::kThreads},
          .persistent = false};
}

std::vector<packbits::Key> PackBits::common_keys() { return {{16, false}, {16, true}}; }

runtime::Refusal SegmentPackBits::refuses(const Args& a) {
  return a.out.shape[0] > kMostBits / 8 ? "more than 2^37 bytes" : "";
}

void SegmentPackBits::launch(const Args& a, const Device& device, const Context& context) {
  run(kName, segments(a, Step::kOffsets), device, context);
  if (a.indptr.shape[0] > 1) run(kName, segments(a, Step::kPack), device, context);
}

void SegmentPackBits::prepare(const Args& a, const Device& device) {
  for (Step step : {Step::kOffsets, Step::kPack}) cuda::prepare(kName, segments(a, step), device);
}

std::vector<segment_packbits::Key> SegmentPackBits::common_keys() {
  return {{Step::kOffsets, false}, {Step::kPack, false}, {Step::kPack, true}};
}

}  // namespace fulmen::cuda
