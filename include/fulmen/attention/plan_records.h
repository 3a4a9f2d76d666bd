// SPDX-License-Identifier: Apache-2.0
// The records of a plan (attention/plan.h), as host and device read them: arrays of int32.
#pragma once
#include <fulmen/core/portable.h>

namespace fulmen::attention {

struct PlanRequest {
  int32_t qo_begin, qo_len, kv_len;
};
struct PlanItem {
  int32_t request_idx, kv_head, num_kv_heads, row_begin, num_rows;
  int32_t kv_begin, kv_end;  // keys that some row of the tile may see
  int32_t split_len;         // fold in ranges that end at multiples of this; 0: one range
  int32_t slot;              // -1: the item has its tile for itself and writes the result
};
struct PlanMerge {
  int32_t request_idx, kv_head, num_kv_heads, row_begin, num_rows, slot_begin, num_slots;
};

}  // namespace fulmen::attention
