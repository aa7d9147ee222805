"""The precision that a machine gets by itself."""

from __future__ import annotations

import pytest
import torch

from harness.precision import resolve, resolve_for_decoding


@pytest.mark.parametrize(
    ("gpu", "cpu", "training", "decoding"),
    [
        (None, {}, "float32", "float32"),
        (None, {"amx_bf16": True}, "bfloat16", "float32"),
        (None, {"avx512_bf16": True, "amx_bf16": False}, "bfloat16", "float32"),
        (True, {}, "bfloat16", "bfloat16"),
        (False, {"amx_bf16": True}, "float32", "float32"),
    ],
)
def test_auto_is_what_the_machine_has(
    monkeypatch: pytest.MonkeyPatch,
    gpu: bool | None,
    cpu: dict[str, bool],
    training: str,
    decoding: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
    assert resolve("auto") == training
    assert resolve_for_decoding("auto") == decoding
    assert resolve("float16") == resolve_for_decoding("float16") == "float16"
