// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/attention.h"

#include <fulmen/core/math.h>

#include <cmath>
#include <cstring>
#include <map>

#include "src/cuda/attention_cluster.h"
#include "src/cuda/attention_lists.h"
#include "src/cuda/attention_mixed.h"
#include "src/cuda/attention_plan.h"
#include "src/cuda/attention_prepare.h"
#include "src/cuda/cascade_attention.h"
#include "src/cuda/ids.h"
#include "src/cuda/stream_memory.h"

namespace fulmen::cuda {
namespace {

using attention::AttentionCall, attention::PlanConfig, attention::PlanRequest;
using batch_attention::Common, batch_attention::Key, batch_attention::Params, batch_attention::SharedLayout;

constexpr int32_t kReserved = 1024;  // shared memory that the driver takes of each CTA
constexpr int32_t kTiles[] = {16, 32, 64, 128, 256};
constexpr int64_t kLongRows = 8192;  // of a request that tiles of 256 pay for
constexpr int64_t kFewRows = 32;     // those of one warp
constexpr size_t kFewRequests = 64;

// The tile that a batch wants most; smaller devices and larger heads may get another.
int32_t wanted_tile(const AttentionCall& call, const runtime::DeviceInfo& device) {
  if (call.args->options.fixed_split_len > 0) return 64;  // bits must not depend on the rest of the batch
  int64_t most = call.step == AttentionCall::kShape ? likely_rows(call) : 0;
  bool has_few = false;
  if (call.step == AttentionCall::kShape && expects_one_long(call)) return 256;
  for (const PlanRequest& r : call.requests) {
    const int64_t rows = int64_t(r.qo_len) * (call.dims.num_qo_heads / call.dims.num_kv_heads);
    most = std::max(most, rows), has_few |= rows > 0 && rows <= kFewRows;
  }
  // A cascade's level above of few rows that may be empty costs less where it is run by the last level's kernel.
  const int64_t least = call.step == AttentionCall::kShape && call.dims.total_q > 1 ? kTiles[0] : kFewRows;
  if (call.dims.batch_size == 1 && most > least)
    if (const int32_t tile = small_tile(most, call.dims.num_kv_heads, device.num_workers)) return tile;
  for (int32_t tile : kTiles)
    if (most <= tile && tile <= 128) return tile;
  return most < kLongRows || has_few ? 128 : 256;
}

std::optional<Key> key_of(const AttentionCall& call, int32_t tile_q, const runtime::DeviceInfo& device,
                          bool alone = false) {
  const AttentionArgs& a = *call.args;
  return attention_key(tile_q, call.dims.head_dim_qk, call.dims.head_dim_vo, a.q.dtype, a.k.dtype,
                       cuda::device(device.id).max_shared_bytes, alone);
}

}  // namespace

int32_t ctas_per_sm(const Key& key, int32_t max_shared_bytes) {
  const bool small = key.warps_q == 4 && key.d_vo <= 64 && key.block_kv <= 16;  // registers suffice for three
  return std::clamp((max_shared_bytes + kReserved) / (SharedLayout(key).bytes + kReserved), 1, small ? 3 : 2);
}

// The first tile from the wanted one down, then up, that a kernel exists for.
std::optional<Key> choose_attention_key(const AttentionCall& call, const runtime::DeviceInfo& device) {
  const int32_t wanted = wanted_tile(call, device);
  std::vector<int32_t> order = {wanted};
  for (int32_t i = 4; i >= 0; --i)
    if (kTiles[i] < wanted && kTiles[i] >= 64) order.push_back(kTiles[i]);
  for (int32_t tile : kTiles)
    if (tile > wanted) order.push_back(tile);
  for (int32_t tile : order)
    if (const std::optional<Key> key = key_of(call, tile, device)) return key;
  return {};
}

void set_costs(const Key& key, PlanConfig& c) {
  c.tile_q = tile_q(key);
  c.tile_kv = 64;
  c.min_split_len = 128;
  c.span_rows = 0, c.span_heads = 1;
  c.row_cost = key.warps_q == 1 ? 0 : 1;  // idle rows of a decode tile cost what busy ones do
  c.key_cost = key.warps_q == 1 ? 1 : 16;
}

namespace {

void configure(const AttentionCall& call, const Device& device, const Context& context) {
  if (may_overlap(device, context)) {
    if (call.beside != nullptr && configure_beside(call, device)) return;
    if (configure_mixed(call, device)) return;
  }
  const Key key = *choose_attention_key(call, device.info());
  PlanConfig& c = *call.config;
  set_costs(key, c);
  c.num_workers = device.num_sms * ctas_per_sm(key, device.max_shared_bytes);
  if (key.warps_q > 1 || call.requests.size() > kFewRequests) return;
  // Two CTAs share an SM's bandwidth; few long tiles may go into half as many, twice as fast workers with less waste.
  PlanConfig alone = c;
  alone.num_workers = device.num_sms;
  if (make_plan(alone, call.requests).header.makespan < 2 * make_plan(c, call.requests).header.makespan) c = alone;
  share_tiles(call, device, c);
}

}  // namespace

Key planned_attention_key(const AttentionCall& call, const PlanConfig& config, const Device& device) {
  const bool alone = config.num_workers <= device.num_sms;
  const std::optional<Key> key = key_of(call, config.tile_q, device.info(), alone);
  if (!key)
    fail("batch_attention", "plan",
         "has tiles of " + std::to_string(config.tile_q) +
             " rows, which no CUDA kernel has; plan on "
             "the device that runs");
  return *key;
}

namespace {

// Every row of K, V and Q starts at a multiple of 16 bytes.
std::string refuses_alignment(const TensorView& t, const char* name, int32_t num_axes) {
  uint64_t bits = uint64_t(t.data);
  for (int32_t i = 0; i < num_axes; ++i)
    if (t.shape[i] > 1) bits |= uint64_t(t.strides[i]) * uint64_t(size_of(t.dtype));
  return bits % 16 == 0 ? "" : std::string("rows of ") + name + " are not aligned to 16 bytes";
}

std::string refuses_dtypes(const AttentionArgs& a, const AttentionDims& d, int32_t arch) {
  const bool narrow = size_of(a.k.dtype) == 1;
  if (a.q.dtype != DType::kF16 && a.q.dtype != DType::kBF16)
    return std::string("q is ") + name_of(a.q.dtype) + ", expected float16 or bfloat16";
  if (!narrow && a.k.dtype != a.q.dtype)
    return std::string("k is ") + name_of(a.k.dtype) + ", expected q's dtype or FP8";
  if (size_of(a.out.dtype) == 1) return std::string("out is ") + name_of(a.out.dtype) + ", expected a wider type";
  if (a.q.dtype == DType::kBF16 && arch < 80) return "bfloat16 needs sm_80 or later";
  if (narrow && a.options.rope_theta > 0) return "RoPE on the fly of FP8 keys";
  if (narrow && (d.head_dim_qk % 16 != 0 || d.head_dim_vo % 16 != 0))
    return "FP8 keys and values with a head_dim that is no multiple of 16";
  return {};
}

// Tables that the kernel itself reads.
std::string refuses_tables(const AttentionArgs& a) {
  for (const TensorView* t : {&a.kv_indptr, &a.kv_indices, &a.block_tables, &a.custom_mask, &a.mask_indptr})
    if (t->defined() && t->device_type != DeviceType::kCuda)
      return "kv_indptr, kv_indices, block_tables or mask_indptr lie in host memory";
  return {};
}

}  // namespace

std::optional<Key> attention_key(int32_t tile, int64_t d_qk, int64_t d_vo, DType q, DType kv, int32_t max_shared_bytes,
                                 bool alone) {
  if (d_qk > batch_attention::kMaxHeadDim || d_vo > batch_attention::kMaxHeadDim) return {};
  const int64_t d = std::max(d_qk, d_vo), m_tiles = tile == 32 || tile >= 128 ? 2 : 1;
  if (m_tiles == 2 && d > 128) return {};                       // outputs alone would take all registers
  if (tile == 256 && (d <= 64 || size_of(kv) == 1)) return {};  // not faster, and not tried
  Key key{.q = q,
          .kv = kv,
          .d_qk = int32_t(math::ceil_div(d_qk, 16) * 16),
          .d_vo = int32_t(math::ceil_div(d_vo, 16) * 16),
          .m_tiles = int32_t(m_tiles),
          .warps_q = tile <= 32    ? 1
                     : tile <= 128 ? 4
                                   : 8,
          .tile_kv = 16,
          .block_kv = 16,
          .stages = 3};
  if (tile == 32 && alone && d == 128 && size_of(kv) == 2) key.stages = 2;  // measured: 1 % faster than 3
  const int32_t least = size_of(kv) == 1 ? 32 : 16;
  if (key.warps_q == 1)
    key.tile_kv = key.block_kv = size_of(kv) == 1 || d <= 64 || (alone && d <= 128) ? 32 : 16;
  else  // blocks: what leaves registers for the queries of 32 rows
    key.tile_kv = d > 128 ? 32 : tile > 128 ? 192 : 64, key.stages = 2, key.block_kv = least;
  for (;;) {
    if (SharedLayout(key).bytes <= max_shared_bytes) return key;
    if (tile > 128) return {};
    if (key.stages > 2)
      --key.stages;
    else if (key.tile_kv > least)
      key.tile_kv = key.tile_kv > 32 ? 32 : 16, key.block_kv = std::min(key.block_kv, key.tile_kv);
    else
      break;
  }
  if (key.warps_q != 4) return {};
  for (int32_t stages : {3, 1})  // sums pass through shared memory some columns at a time
    for (key.tile_kv = d > 128 ? 32 : 64; key.tile_kv >= least; key.tile_kv /= 2) {
      key.stages = stages, key.block_kv = least;
      if (SharedLayout(key).bytes <= max_shared_bytes) return key;
    }
  return {};
}

runtime::Refusal Attention::refuses(const Args& call, const runtime::DeviceInfo& device) {
  const AttentionArgs& a = *call.args;
  if (std::string why = refuses_dtypes(a, call.dims, device.arch); !why.empty()) return why;
  const int64_t d = std::max(call.dims.head_dim_qk, call.dims.head_dim_vo);
  if (d > batch_attention::kMaxHeadDim)
    return "head_dim " + std::to_string(d) + " exceeds " + std::to_string(batch_attention::kMaxHeadDim);
  if (call.step == AttentionCall::kConfigure || call.step == AttentionCall::kShape)
    return choose_attention_key(call, device)
               ? ""
               : "head_dim " + std::to_string(d) + " does not fit this device's shared memory";
  if (call.step != AttentionCall::kRun) return {};
  if (call.beside != nullptr)
    if (std::string why = refuses(*call.beside, device); !why.empty()) return why;
  for (std::string why : {refuses_alignment(a.q, "q", 2), refuses_alignment(a.k, "k", a.k.rank - 1),
                          refuses_alignment(a.v, "v", a.v.rank - 1)})
    if (!why.empty()) return why;
  return refuses_tables(a);
}

void set_caches(const AttentionArgs& a, const AttentionDims& d, Common& p) {
  const auto bytes = [](const TensorView& t, int32_t axis) { return t.strides[axis] * size_of(t.dtype); };
  p.k = a.k.as<const char>(), p.v = a.v.as<const char>();
  p.k_token = bytes(a.k, a.k.rank - 3), p.v_token = bytes(a.v, a.v.rank - 3);
  p.k_head = bytes(a.k, a.k.rank - 2), p.v_head = bytes(a.v, a.v.rank - 2);
  p.kv_begin = ids_of(a.kv_indptr);
  if (a.kv_indptr.defined())
    p.num_bases = int32_t(std::min<int64_t>(a.kv_indptr.shape[0] - 1, batch_attention::kBases));
  if (!d.paged()) return;
  p.k_page = bytes(a.k, 0), p.v_page = bytes(a.v, 0);
  p.page_ids = ids_of(a.block_tables.defined() ? a.block_tables : a.kv_indices);
  p.table_stride = a.block_tables.defined() ? std::max<int64_t>(1, a.block_tables.strides[0]) : 0;
  p.num_pages = a.k.shape[0];
  p.page_size = Divisor(int32_t(d.page_size));
}

namespace {

void set_rope(const AttentionOptions& o, int64_t head_dim, Common& p) {
  constexpr double kTwoPi = 6.283185307179586;
  if (o.rope_theta <= 0) return;
  p.rope_pairs = int32_t(head_dim / 2);
  for (int32_t i = 0; i < p.rope_pairs; ++i) {
    const double turns = std::pow(double(o.rope_theta), -2.0 * i / double(head_dim)) / double(o.rope_scale) / kTwoPi;
    p.rope_turns[i] = uint64_t(std::ldexp(turns - std::floor(turns), 64));
  }
}

Common common_of(const AttentionCall& call, char* workspace) {
  const AttentionArgs& a = *call.args;
  Common p{};
  p.q = a.q.as<const char>();
  p.q_token = a.q.strides[0] * size_of(a.q.dtype), p.q_head = a.q.strides[1] * size_of(a.q.dtype);
  set_caches(a, call.dims, p);
  p.out = a.out.data, p.out_dtype = a.out.dtype;
  p.out_token = a.out.strides[0], p.out_head = a.out.strides[1];
  const uint64_t size = uint64_t(size_of(a.out.dtype));
  const uint64_t places = uint64_t(a.out.data) | uint64_t(p.out_token) * size | uint64_t(p.out_head) * size;
  p.out_in_fours = places % (4 * size) == 0, p.out_in_eights = places % (8 * size) == 0;
  if (a.lse.defined()) p.lse = a.lse.as<float>(), p.lse_token = a.lse.strides[0], p.lse_head = a.lse.strides[1];
  p.lse_scale = a.options.lse_base == LogBase::k2 ? 1.f : math::kLn2;
  p.v_scale = a.options.v_scale;
  p.group = Divisor(int32_t(call.dims.num_qo_heads / call.dims.num_kv_heads));
  p.d_qk = int32_t(call.dims.head_dim_qk), p.d_vo = int32_t(call.dims.head_dim_vo);
  set_rope(a.options, call.dims.head_dim_qk, p);
  if (const attention::PlanHeader& plan = call.plan->header; plan.on_device != 0) {
    p.record_heads = Divisor(plan.config.num_kv_heads);
    p.merges_per_head = plan.num_merges;
  }
  p.workspace = workspace;
  return p;
}

Shape shape_of(const AttentionCall& call, const Key& key, const Turn& turn, const Device& device) {
  const PlanConfig& c = call.plan->header.config;
  const int32_t cluster = turn.queue_peers >= 0 ? 1 : cluster_size(c, device);  // a queue is a CTA's
  return {.grid = uint32_t(turn.queue_peers >= 0 && turn.num_ctas > 0 ? turn.num_ctas : c.num_workers * cluster),
          .num_threads = uint32_t(num_threads(key)),
          .shared_bytes = uint32_t(batch_attention::shared_bytes(key, cluster)),
          .cluster = uint32_t(cluster)};
}

void set_turn(const Turn& turn, Common& p) {
  p.is_beside = turn.is_beside, p.queue_peers = turn.queue_peers, p.is_settled = turn.is_settled;
}

Work<Key, Params> work_of(const AttentionCall& call, const Key& key, char* workspace, const Turn& turn,
                          const Device& device) {
  const Shape shape = shape_of(call, key, turn, device);
  Work<Key, Params> work{.key = key, .params = {}, .shape = shape, .persistent = shape.cluster == 1};
  static_cast<Common&>(work.params) = common_of(call, workspace);
  set_turn(turn, work.params);
  work.params.variant = attention::standard_variant(*call.args);
  return work;
}

// The kernel of a variant given as text; found by its source.
const Function& variant_function(const jit::Unit& unit, const Device& device, const Shape& shape) {
  static std::mutex mutex;
  static auto* functions = new std::map<std::pair<std::string, int32_t>, Function>;  // never destroyed
  const std::lock_guard lock(mutex);
  const auto found = functions->find({unit.source, device.id});
  if (found != functions->end()) return found->second;
  return functions->emplace(std::pair{unit.source, device.id}, load(unit, device, shape)).first->second;
}

jit::Unit variant_unit(const Key& key, const attention::VariantCode& variant) {
  jit::Unit unit = jit::unit_of(Attention::kName, key);
  unit.key += " variant=" + variant.name;
  const std::string params = "Params params";
  unit.source.insert(unit.source.find("using namespace"),
                     jit::in_namespace("fulmen::attention", variant.name, variant.text));
  unit.source.replace(unit.source.find(params), params.size(),
                      "ParamsOf<fulmen::attention::" + variant.name + "> params");
  return unit;
}

void run_variant(const AttentionCall& call, const LaunchList& list, const Turn& turn, const Device& device,
                 const Context& context) {
  const attention::VariantCode& v = *call.variant;
  constexpr int64_t kMostBytes = 4000;  // what a kernel takes as parameters, less a little
  const int64_t at = batch_attention::variant_offset();
  if (v.num_bytes < 0 || at + v.num_bytes > kMostBytes)
    fail("batch_attention", "variant",
         "has " + std::to_string(v.num_bytes) + " bytes, expected at most " + std::to_string(kMostBytes - at));
  alignas(batch_attention::kVariantAlign) char params[kMostBytes] = {};
  Common common = common_of(call, list.place.plan);
  set_turn(turn, common);
  std::memcpy(params, &common, sizeof common);
  if (v.num_bytes > 0) std::memcpy(params + at, v.fields, size_t(v.num_bytes));
  Shape shape = shape_of(call, list.key, turn, device);
  const Function& function = variant_function(variant_unit(list.key, v), device, shape);
  if (shape.cluster == 1) shape.grid = std::min(shape.grid, uint32_t(function.max_single));
  cuda::launch(Attention::kName, function, shape, params, context);
}

}  // namespace

void Attention::launch(const Args& call, const Device& device, const Context& context) {
  if (call.step == AttentionCall::kConfigure) return configure(call, device, context);
  if (call.step == AttentionCall::kShape) return shape_plan(call, device, context);
  if (call.step == AttentionCall::kMeasure) {
    const AttentionLists lists(call, device);
    call.workspace_bytes = lists.bytes(), call.plan_bytes = lists.plan_bytes();
    return;
  }
  const CurrentContext current(device.primary);
  const PlacedCall mine(call, device, context);
  if (call.step != AttentionCall::kRun) return;
  // Of a plan that was made before: it may be read before the predecessor's end, but for what CTAs take from queues.
  const auto launch_with = [&](bool is_new) {
    return [&device, &context, is_new](const AttentionCall& part, const LaunchList& list, Turn turn) {
      turn.is_settled = !is_new && turn.queue_peers < 0;
      if (part.variant != nullptr && part.above == nullptr) return run_variant(part, list, turn, device, context);
      const Work<Key, Params> work = work_of(part, list.key, list.place.plan, turn, device);
      if (part.above != nullptr) return run_level(part, work, device, context);
      run(kName, work, device, context);
    };
  };
  const auto launch_mine = launch_with(mine.is_new);
  if (call.beside == nullptr) return mine.lists.for_launches(launch_mine);
  const PlacedCall other(*call.beside, device, context);
  if (may_overlap(device, context) && may_run_beside(call.beside->plan->header))
    return mine.lists.for_launches_beside(other.lists, launch_mine);  // all from queues
  other.lists.for_launches(launch_with(other.is_new));
  mine.lists.for_launches(launch_mine);
}

void Attention::prepare(const Args& call, const Device& device) {
  if (call.plan == nullptr) return;
  AttentionLists(call, device).for_lists([&](const AttentionCall& part, const LaunchList& list) {
    cuda::prepare(kName, work_of(part, list.key, nullptr, {}, device), device);
    if (part.plan->header.on_device != 0) prepare_planner(part, list.key, device);
  });
}

// For the three sizes of shared memory that devices of these architectures have.
std::vector<Key> Attention::common_keys(int32_t arch) {
  const std::vector<int32_t> archs = arch > 0 ? std::vector{arch} : std::vector{75, 80, 89, 90};
  const auto dims = {std::pair{64, 64}, {96, 96}, {128, 128}, {192, 128}, {256, 256}};
  std::vector<Key> keys;
  for (DType q : {DType::kF16, DType::kBF16})
    for (DType kv : {DType::kE5M2, DType::kE4M3, q})
      for (const auto& [d_qk, d_vo] : dims)
        for (int32_t tile : kTiles)
          for (bool alone : {false, true})
            for (int32_t a : archs)
              if (const std::optional<Key> key = attention_key(tile, d_qk, d_vo, q, kv, shared_bytes_of(a), alone))
                if (a >= 80 || q == DType::kF16) keys.push_back(*key);
  return keys;
}

}  // namespace fulmen::cuda
