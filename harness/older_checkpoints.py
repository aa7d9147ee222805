"""Checkpoints of Trainer without a manifest, as older versions wrote them."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from transformers.trainer_pt_utils import safe_globals

from prefix_tuning.checkpoint import read_tensors
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object


def fault(checkpoint: Path) -> str | None:
    """What is wrong with such a checkpoint, as "is damaged"; None if nothing."""
    try:
        step = read_json_object(checkpoint / "trainer_state.json")["global_step"]
    except (UserError, KeyError):
        return "lacks a readable trainer_state.json"
    if not isinstance(step, int):
        return "lacks a readable trainer_state.json"
    for names in ("optimizer.pt", "scheduler.pt", "rng_state*.pth", "*.safetensors"):
        paths = [path for path in checkpoint.glob(names) if path.is_file()]
        if not paths:
            return f"lacks {names.replace('*', '')}"
        for path in paths:
            if not _is_readable(path):
                return f"is damaged ({path.name})"
    return None


def _is_readable(path: Path) -> bool:
    try:
        if path.suffix == ".safetensors":
            read_tensors(path)
        else:
            with safe_globals():
                torch.load(path, map_location="cpu", weights_only=True)
    except (UserError, OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
        return False
    return True
