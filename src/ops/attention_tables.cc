// SPDX-License-Identifier: Apache-2.0
// Reads the index tensors of an attention call and checks every number in them: they are host memory here, and one
// wrong page id would read outside the cache.
#include <fulmen/attention/call.h>
#include <fulmen/core/ids.h>
#include <fulmen/core/math.h>

#include <limits>

#include "src/ops/host_lengths.h"

namespace fulmen::attention {
namespace {

constexpr int64_t kIntMax = std::numeric_limits<int32_t>::max();

struct Reader {
  const AttentionArgs& args;
  const AttentionDims& dims;
  std::string_view op;

  [[noreturn]] void bad(std::string_view tensor, int64_t request, const std::string& text) const {
    fail(op, tensor, "of request " + std::to_string(request) + " " + text);
  }

  // [indptr[b], indptr[b+1]) inside [0, limit].
  std::pair<int64_t, int64_t> range(const TensorView& indptr, std::string_view name, int64_t b, int64_t limit) const {
    const int64_t begin = Ids{indptr}[b], end = Ids{indptr}[b + 1];
    if (begin < 0 || end < begin || end > limit)
      bad(name, b,
          "is " + std::to_string(begin) + " to " + std::to_string(end) + " (positions " + std::to_string(b) + " and " +
              std::to_string(b + 1) + "), expected a range inside 0 to " + std::to_string(limit));
    return {begin, end};
  }

  template <class T>
  void check_page_ids(const T* ids, int64_t count, std::string_view tensor, int64_t b) const {
    const uint64_t num_pages = uint64_t(args.k.shape[0]);
    bool all = true;
    for (int64_t i = 0; i < count; ++i) all &= uint64_t(int64_t(ids[i])) < num_pages;
    if (all) return;
    for (int64_t i = 0; i < count; ++i)
      if (uint64_t(int64_t(ids[i])) >= num_pages)
        bad(tensor, b,
            "names page " + std::to_string(ids[i]) + " at its position " + std::to_string(i) + ", expected 0 to " +
                std::to_string(args.k.shape[0] - 1));
  }
  void check_pages(const TensorView& table, int64_t offset, int64_t kv_len, std::string_view tensor, int64_t b) const {
    if (table.device_type != DeviceType::kCpu) return;  // the kernel reads page 0 where an id names none
    const int64_t count = math::ceil_div(kv_len, dims.page_size);
    if (table.dtype == DType::kI64) return check_page_ids(table.as<const int64_t>() + offset, count, tensor, b);
    check_page_ids(table.as<const int32_t>() + offset, count, tensor, b);
  }

  int64_t length_from_seq_lens(int64_t b, int64_t num_pages, std::string_view table) const {
    const int64_t len = Ids{args.seq_lens}[b];
    if (len < 0 || len > num_pages * dims.page_size)
      bad("seq_lens", b,
          "is " + std::to_string(len) + ", expected 0 to " + std::to_string(num_pages * dims.page_size) + ", which " +
              std::string(table) + " has pages for");
    return len;
  }

  int64_t paged_kv_len(int64_t b) const {
    if (args.block_tables.defined()) {
      const int64_t len = length_from_seq_lens(b, args.block_tables.shape[1], "block_tables");
      check_pages(args.block_tables, b * args.block_tables.strides[0], len, "block_tables", b);
      return len;
    }
    const auto [begin, end] = range(args.kv_indptr, "kv_indptr", b, args.kv_indices.shape[0]);
    int64_t len = 0;
    if (args.seq_lens.defined()) {
      len = length_from_seq_lens(b, end - begin, "kv_indptr");
    } else if (end > begin) {
      const int64_t last = Ids{args.last_page_len}[b];
      if (last < 1 || last > dims.page_size)
        bad("last_page_len", b, "is " + std::to_string(last) + ", expected 1 to " + std::to_string(dims.page_size));
      len = (end - begin - 1) * dims.page_size + last;
    }
    check_pages(args.kv_indices, begin, len, "kv_indices", b);
    return len;
  }

  int64_t kv_len(int64_t b) const {
    if (dims.paged()) return paged_kv_len(b);
    if (!args.kv_indptr.defined()) return args.k.shape[0];
    const auto [begin, end] = range(args.kv_indptr, "kv_indptr", b, args.k.shape[0]);
    return end - begin;
  }

  void check_mask(int64_t b, const PlanRequest& r) const {
    const int64_t begin = args.mask_indptr.defined() ? Ids{args.mask_indptr}[b] : 0;
    const int64_t bytes = math::ceil_div(int64_t(r.qo_len) * r.kv_len, 8);
    if (begin < 0 || bytes > args.custom_mask.shape[0] - begin)
      bad(args.mask_indptr.defined() ? "mask_indptr" : "custom_mask", b,
          "needs " + std::to_string(bytes) + " bytes from " + std::to_string(begin) + ", custom_mask has " +
              std::to_string(args.custom_mask.shape[0]));
  }
};

}  // namespace

HostLengths::HostLengths(const AttentionArgs& given, const Context& context) : args(given) {
  for (TensorView* t : {&args.qo_indptr, &args.kv_indptr, &args.last_page_len, &args.seq_lens, &args.mask_indptr}) {
    if (!t->defined() || t->device_type == DeviceType::kCpu) continue;
    const runtime::Backend* backend = runtime::find_backend(t->device_type);
    if (backend == nullptr || backend->copy == nullptr)
      throw Error(Code::kUnsupported, "attention: index tensors lie on a device that nothing can copy from");
    const size_t num_bytes = size_t(t->num_elements() * size_of(t->dtype));
    copies_.emplace_back(new char[num_bytes + 1]);
    if (num_bytes > 0) backend->copy(copies_.back().get(), t->data, num_bytes, context);
    t->data = copies_.back().get();
    t->device_type = DeviceType::kCpu;
  }
}

std::vector<PlanRequest> requests_of(const AttentionArgs& args, const AttentionDims& dims, AttentionEntry entry) {
  const Reader reader{args, dims, attention_schema(entry, KvLayout::kNHD, dims.paged()).op()};
  if (dims.total_q > kIntMax) fail(reader.op, "q", "has more than 2^31 - 1 rows");
  if (!args.qo_indptr.defined() && (dims.batch_size == 0 ? dims.total_q != 0 : dims.total_q % dims.batch_size != 0))
    fail(reader.op, "q",
         "has " + std::to_string(dims.total_q) + " rows, expected a multiple of batch_size, " +
             std::to_string(dims.batch_size) + ", where qo_indptr is missing");
  std::vector<PlanRequest> requests(static_cast<size_t>(dims.batch_size));
  for (int64_t b = 0; b < dims.batch_size; ++b) {
    PlanRequest& r = requests[size_t(b)];
    if (args.qo_indptr.defined()) {
      const auto [begin, end] = reader.range(args.qo_indptr, "qo_indptr", b, dims.total_q);
      r = {int32_t(begin), int32_t(end - begin), 0};
    } else {
      r.qo_len = int32_t(dims.total_q / dims.batch_size);
      r.qo_begin = int32_t(b) * r.qo_len;
    }
    const int64_t kv_len = reader.kv_len(b);
    if (kv_len > kIntMax) reader.bad("k", b, "has more than 2^31 - 1 keys");
    r.kv_len = int32_t(kv_len);
    if (args.custom_mask.defined()) reader.check_mask(b, r);
  }
  return requests;
}

}  // namespace fulmen::attention
