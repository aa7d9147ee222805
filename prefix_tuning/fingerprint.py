"""Recognising the frozen model that a prefix was trained on."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from prefix_tuning.errors import UserError
from prefix_tuning.shape import PrefixShape


def fingerprint(model: PreTrainedModel) -> dict[str, list[float]]:
    """Eight numbers from each of eight matrices of the layers.

    Embeddings are left out: a padding row may be added to them. The numbers survive a change of
    dtype up to its rounding, which a hash would not.
    """
    body = model.base_model if hasattr(model, "base_model") else model
    matrices = {n: p for n, p in body.named_parameters() if p.ndim == 2 and ".weight" in n}
    matrices = {n: p for n, p in matrices.items() if not n.startswith("prefix.")}  # attached
    names = sorted(n for n in matrices if any(part.isdigit() for part in n.split(".")))
    picked = names[:: max(1, len(names) // 8)][:8]
    return {n: _sample(matrices[n]) for n in picked}


def _sample(matrix: torch.Tensor) -> list[float]:
    flat = matrix.detach().reshape(-1)
    at = torch.linspace(0, flat.numel() - 1, 8, dtype=torch.float64).long()
    return flat[at.to(flat.device)].float().tolist()


def describe(model: PreTrainedModel, name: str) -> dict[str, Any]:
    """What a checkpoint keeps of its base model, as JSON values."""
    shape = PrefixShape.from_config(model.config)
    return {
        "name_or_path": name,
        "model_type": model.config.model_type,
        "shape": vars(shape).copy(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "fingerprint": fingerprint(model),
    }


def check_same(described: dict[str, Any], model: PreTrainedModel, where: str) -> None:
    """Raise :class:`UserError` if ``model`` is not the base model a checkpoint was trained on.

    Args:
        described: the value of :func:`describe` at that time.
        where: the checkpoint, for the message.
    """
    compare(described, describe(model, ""), where)


def compare(described: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """:func:`check_same` of two values of :func:`describe`."""
    wanted = f"{where} belongs to {described.get('name_or_path')} ({described['model_type']}"
    advice = "give the model it was trained on with --model_name_or_path"
    for key in ("model_type", "shape"):
        if described[key] != now[key]:
            raise UserError(
                f"{wanted}, {described['shape']}), not to a {now['model_type']} model of "
                f"{now['shape']}: {advice}"
            )
    step = max(torch.finfo(getattr(torch, d.get("dtype", "float32"))).eps for d in (described, now))
    for name, values in (described.get("fingerprint") or {}).items():
        found = (now.get("fingerprint") or {}).get(name)
        if found is None:
            continue  # the library renamed the parameter since
        if len(values) != len(found):
            raise UserError(f"{where}: its fingerprint of {name} is cut: copy the folder again")
        for value, other in zip(values, found, strict=True):
            if abs(value - other) > 2 * step * max(abs(value), 1e-3):
                raise UserError(
                    f"{wanted}), whose weights differ from those of the model given "
                    f"({name}: {value:.6g}, not {other:.6g}): {advice}"
                )
