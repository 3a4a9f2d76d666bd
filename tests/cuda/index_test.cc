// SPDX-License-Identifier: Apache-2.0
// packbits, segment_packbits, get_batch_indices_positions and get_seq_lens on the GPU: exact.
#include <fulmen/reference/get_batch_indices_positions.h>
#include <fulmen/reference/get_seq_lens.h>
#include <fulmen/reference/packbits.h>
#include <fulmen/reference/segment_packbits.h>

#include "tests/support/gpu_case.h"

namespace fulmen::testing {
namespace {

class CudaIndex : public OnGpu {};

constexpr BitOrder kOrders[] = {BitOrder::kBig, BitOrder::kLittle};

Tensor random_bytes(int64_t n) {
  Tensor t(DType::kU8, {n});
  std::mt19937_64 rng(3);
  return t.fill([&](int64_t) { return rng() % 2 == 0 ? 0 : double(rng() % 256); });
}
Tensor ints(DType dtype, const std::vector<int64_t>& values) {
  return Tensor(dtype, {int64_t(values.size())}).fill([&](int64_t i) { return double(values[size_t(i)]); });
}
template <class T = int64_t>
std::vector<T> read(const Tensor& t) {
  std::vector<T> values;
  for (int64_t i = 0; i < t.view().num_elements(); ++i) values.push_back(T(reference::element(t, i)));
  EXPECT_TRUE(t.guards_intact());
  return values;
}

TEST_F(CudaIndex, PackBitsEqualsTheReference) {
  for (int64_t n : {0, 1, 7, 8, 9, 16, 63, 64, 65, 4096, 100001})
    for (BitOrder order : kOrders)
      for (int64_t shift : {0, 8, 3}) {  // of the first boolean: loads of 16, 8, 1
        if (shift > n || (emulated() && n > 5000)) continue;
        Tensor x = random_bytes(n), out(DType::kU8, {(n - shift + 7) / 8});
        GpuTensor dx(x), dout(out);
        TensorView from = dx;
        from.data = from.as<char>() + shift, from.shape[0] = n - shift;
        packbits({.x = from, .out = dout, .bitorder = order});
        EXPECT_EQ(read<uint8_t>(dout.fetch()), reference::packbits(x, shift, n, order)) << n << " from " << shift;
      }
}

TEST_F(CudaIndex, SegmentPackBitsEqualsTheReference) {
  std::vector<int64_t> many{0};
  for (int64_t b = 0; b < 700; ++b) many.push_back(many.back() + b * 7 % 23);
  for (DType ids : {DType::kI32, DType::kI64})
    for (BitOrder order : kOrders)
      for (const std::vector<int64_t>& bounds :
           std::vector<std::vector<int64_t>>{{0}, {0, 0}, {2, 2, 10, 11, 11, 90, 2000}, many}) {
        const int64_t n = int64_t(bounds.size());
        Tensor x = random_bytes(bounds.back() + 3), indptr = ints(ids, bounds), out_indptr(ids, {n}),
               out(DType::kU8, {bounds.back() / 8 + n});
        const reference::SegmentPackBits expected = reference::segment_packbits({x, indptr, out, out_indptr, order});
        std::vector<uint8_t> bytes(size_t(bounds.back() / 8 + n), 0xff);  // what the tensor held before
        std::copy(expected.out.begin(), expected.out.end(), bytes.begin());
        GpuTensor dx(x), dindptr(indptr), dout(out), dout_indptr(out_indptr);
        segment_packbits({dx, dindptr, dout, dout_indptr, order});
        EXPECT_EQ(read<uint8_t>(dout.fetch()), bytes) << n;
        EXPECT_EQ(read(dout_indptr.fetch()), expected.out_indptr) << n;
      }
}

TEST_F(CudaIndex, BatchIndicesAndPositionsEqualTheReference) {
  std::vector<int64_t> indptr{3}, lens;  // three tokens belong to nobody
  for (int64_t b = 0; b < 500; ++b) {
    const int64_t n = b * 7 % 13;
    indptr.push_back(indptr.back() + n), lens.push_back(n + b % 50);
  }
  for (DType in : {DType::kI32, DType::kI64})
    for (DType out : {DType::kI32, DType::kI64})
      for (bool none : {false, true}) {
        Tensor append_indptr = ints(in, none ? std::vector<int64_t>{0} : indptr),
               seq_lens = ints(in, none ? std::vector<int64_t>{} : lens);
        Tensor requests(out, {indptr.back() + 2}), positions(out, {indptr.back() + 2});
        const reference::BatchIndicesPositions expected =
            reference::get_batch_indices_positions({append_indptr, seq_lens, requests, positions});
        GpuTensor dindptr(append_indptr), dlens(seq_lens), drequests(requests), dpositions(positions);
        get_batch_indices_positions({dindptr, dlens, drequests, dpositions});
        EXPECT_EQ(read(drequests.fetch()), expected.batch_indices);
        EXPECT_EQ(read(dpositions.fetch()), expected.positions);
      }
}

TEST_F(CudaIndex, SeqLensEqualTheReference) {
  std::vector<int64_t> indptr{0}, last;
  for (int64_t b = 0; b < 300; ++b) indptr.push_back(indptr.back() + b % 4), last.push_back(1 + b % 16);
  for (DType ids : {DType::kI32, DType::kI64}) {
    Tensor kv_indptr = ints(ids, indptr), last_page_len = ints(ids, last), lens(DType::kI32, {300});
    const std::vector<int64_t> expected = reference::get_seq_lens({kv_indptr, last_page_len, lens, 16});
    GpuTensor dindptr(kv_indptr), dlast(last_page_len), dlens(lens);
    get_seq_lens({dindptr, dlast, dlens, 16});
    EXPECT_EQ(read(dlens.fetch()), expected);
  }
}

}  // namespace
}  // namespace fulmen::testing
