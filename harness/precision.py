"""Which precision a machine multiplies matrices fastest in."""

from __future__ import annotations

import torch

AUTO = "auto"
"""A precision's name that means bfloat16 where the machine multiplies it, else float32."""


def resolve(dtype: str) -> str:
    """The name of a precision, chosen for this machine where it is :data:`AUTO`.

    It is that of the frozen model. The prefix, its optimiser and the softmax of the loss are in
    fp32 whatever it is.
    """
    if dtype != AUTO:
        return dtype
    return "bfloat16" if multiplies_bfloat16() else "float32"


def resolve_for_decoding(dtype: str) -> str:
    """:func:`resolve` for beam search, which a CPU does faster in fp32: its products are small."""
    if dtype == AUTO and not torch.cuda.is_available():
        return "float32"
    return resolve(dtype)


def multiplies_bfloat16() -> bool:
    """Whether the GPU, or else the processor (AMX, AVX512-BF16), multiplies in bfloat16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    can = torch.cpu.get_capabilities()
    return bool(can.get("amx_bf16") or can.get("avx512_bf16"))
