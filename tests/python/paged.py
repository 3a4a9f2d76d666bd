# SPDX-License-Identifier: Apache-2.0
"""A batch over a paged cache, for tests of several files."""

import numpy as np
from conftest import assert_near, f64
from numpy_oracle import attention, gather

ULPS = 8.0  # of the output's dtype, relative to the largest value: sums of thousands of products


def near(got, expected, scale=None):
    assert_near(got, expected, ULPS, scale=np.abs(expected).max(initial=0.1) if scale is None else scale)


class Paged:
    """A batch with shuffled pages: lengths of queries and keys per request."""

    def __init__(self, xp, rng, kv_lens, qo_lens=None, page_size=4, heads=(4, 2), dims=(64, 64), dtype="float16",
                 kv_dtype=None, layout="NHD"):  # fmt: skip
        self.xp, self.kv_lens, self.layout, self.page_size = xp, np.array(kv_lens), layout, page_size
        self.qo_lens = np.array([1] * len(kv_lens) if qo_lens is None else qo_lens)
        self.heads, self.dims, self.dtype, self.kv_dtype = heads, dims, dtype, kv_dtype or dtype
        pages = -(-self.kv_lens // page_size)
        total = int(pages.sum()) + 3
        self.indptr = np.concatenate([[0], np.cumsum(pages)]).astype(np.int32)
        self.indices = rng.permutation(total)[: pages.sum()].astype(np.int32)
        self.last = np.where(pages > 0, self.kv_lens - (pages - 1) * page_size, 1).astype(np.int32)
        self.qo_indptr = np.concatenate([[0], np.cumsum(self.qo_lens)]).astype(np.int32)
        self.q = xp.array(rng.normal(size=(self.qo_lens.sum(), heads[0], dims[0])), dtype)
        shape = (total, page_size, heads[1]) if layout == "NHD" else (total, heads[1], page_size)
        self.k, self.v = (xp.array(rng.normal(size=(*shape, d)), self.kv_dtype) for d in dims)

    def ints(self, *names):
        return [self.xp.array(getattr(self, n), "int32") for n in names]

    def expected(self, mask=None, **options):
        outs, lses = [], []
        k, v = (f64(x) if self.layout == "NHD" else f64(x).swapaxes(1, 2) for x in (self.k, self.v))
        for b in range(len(self.kv_lens)):
            q = f64(self.q)[self.qo_indptr[b] : self.qo_indptr[b + 1]]
            keys, values = (gather(x, self.indices, self.indptr, self.kv_lens, b) for x in (k, v))
            own = None if mask is None else mask[b]
            out, lse = attention(q, keys, values, mask=own, **options)
            outs.append(out), lses.append(lse)
        return np.concatenate(outs), np.concatenate(lses)
