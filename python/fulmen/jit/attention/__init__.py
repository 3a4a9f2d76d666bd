# SPDX-License-Identifier: Apache-2.0
"""FlashInfer's place for the factories of attention modules."""

from __future__ import annotations

from typing import Any

from .. import (
    gen_customize_batch_attention_module,
    gen_customize_batch_decode_module,
    gen_customize_batch_pod_module,
    gen_customize_batch_prefill_module,
    gen_customize_pod_module,
    gen_customize_single_decode_module,
    gen_customize_single_prefill_module,
)

__all__ = [
    "gen_customize_batch_attention_module",
    "gen_customize_batch_decode_module",
    "gen_customize_batch_pod_module",
    "gen_customize_batch_prefill_module",
    "gen_customize_pod_module",
    "gen_customize_single_decode_module",
    "gen_customize_single_prefill_module",
]


def __getattr__(name: str) -> Any:
    from .. import __getattr__ as factory

    return factory(name)
