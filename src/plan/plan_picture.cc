// SPDX-License-Identifier: Apache-2.0
// A plan for people: as text, and as a picture of who is busy when.
#include <fulmen/attention/plan.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>

namespace fulmen::attention {
namespace {

int64_t cost_of(const PlanConfig& c, const PlanItem& i) {
  return (int64_t(i.kv_end) - i.kv_begin + 32) * (c.key_cost + int64_t(i.num_rows) * c.row_cost) * i.num_kv_heads;
}

// A C function, so that the compiler compares the format with its arguments.
__attribute__((format(printf, 2, 3))) void print(std::string& out, const char* format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  out += line;
}

}  // namespace

std::string to_string(const PlanView& p) {
  std::string out;
  const PlanHeader& h = p.header;
  const double ideal = double(h.total_cost) / h.config.num_workers;
  print(out, "plan: %d requests, %d items, %d merges, %d slots, %d workers, balance %.1f %%\n", h.batch_size,
        h.num_items, h.num_merges, h.num_slots, h.config.num_workers,
        h.makespan > 0 ? 100 * ideal / double(h.makespan) : 100.0);
  for (const PlanItem& i : p.items()) {
    print(out, "  item: request %d heads %d+%d rows %d+%d keys %d..%d", i.request_idx, i.kv_head, i.num_kv_heads,
          i.row_begin, i.num_rows, i.kv_begin, i.kv_end);
    if (i.split_len > 0) print(out, " folded by %d", i.split_len);
    if (i.slot >= 0) print(out, " -> slot %d", i.slot);
    out += '\n';
  }
  for (const PlanMerge& m : p.merges())
    print(out, "  merge: request %d heads %d+%d rows %d+%d slots %d+%d\n", m.request_idx, m.kv_head, m.num_kv_heads,
          m.row_begin, m.num_rows, m.slot_begin, m.num_slots);
  return out;
}

std::string to_svg(const PlanView& p) {
  constexpr int32_t kLane = 18, kWidth = 1000, kLeft = 70, kTop = 30;
  const PlanHeader& h = p.header;
  const int32_t lanes = std::max(1, std::min(h.config.num_workers, h.num_items));
  const double scale = double(kWidth) / double(std::max<int64_t>(1, h.makespan));
  std::vector<int64_t> busy(size_t(lanes), 0);
  std::string out;
  print(out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" "
        "font-size=\"11\">\n",
        kLeft + kWidth + 20, kTop + lanes * kLane + 20);
  print(out,
        "<text x=\"%d\" y=\"16\">%d requests, %d items, %d merges, %d workers; the dashed line is perfect "
        "balance</text>\n",
        kLeft, h.batch_size, h.num_items, h.num_merges, h.config.num_workers);
  for (const PlanItem& i : p.items()) {
    const auto lane = std::min_element(busy.begin(), busy.end());
    const int64_t cost = cost_of(h.config, i);
    print(out, "<rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\" fill=\"hsl(%d,60%%,%d%%)\" stroke=\"white\">",
          kLeft + double(*lane) * scale, kTop + int32_t(lane - busy.begin()) * kLane, double(cost) * scale, kLane - 2,
          int32_t(int64_t(i.request_idx) * 137 % 360), i.slot >= 0 ? 75 : 55);
    print(out, "<title>request %d, kv heads %d+%d, rows %d+%d, keys %d..%d%s</title></rect>\n", i.request_idx,
          i.kv_head, i.num_kv_heads, i.row_begin, i.num_rows, i.kv_begin, i.kv_end, i.slot >= 0 ? ", partial" : "");
    *lane += cost;
  }
  for (int32_t w = 0; w < lanes; ++w) print(out, "<text x=\"4\" y=\"%d\">worker %d</text>\n", kTop + w * kLane + 13, w);
  const double ideal = kLeft + double(h.total_cost) / h.config.num_workers * scale;
  print(out, "<line x1=\"%.2f\" x2=\"%.2f\" y1=\"%d\" y2=\"%d\" stroke=\"black\" stroke-dasharray=\"4\"/>\n</svg>\n",
        ideal, ideal, kTop - 4, kTop + lanes * kLane);
  return out;
}

}  // namespace fulmen::attention
