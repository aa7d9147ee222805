"""Cases of the original's numbers: two files each, tensors and a description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from prefix_tuning.files import read_json_object
from scripts.verify.checks import Difference

BEAM = "gpt2_beam"
"""Cases of GPT-2's search share one description."""


@dataclass(frozen=True)
class Case:
    """Weights, inputs and what the original computes from them.

    Attributes:
        name: of its files.
        about: configuration, tolerances and scalar results.
        tensors: by name, such as ``base.*``, ``prefix.*``, ``in.*``, ``out.*`` and ``grad.*``.
    """

    name: str
    about: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> Case:
        """Read a case from its ``.safetensors`` file and the ``.json`` beside it."""
        name = path.stem
        if name.startswith(f"{BEAM}_"):
            models = read_json_object(path.with_name(f"{BEAM}.json"))["models"]
            about = next(m for m in models if m["name"] == name.removeprefix(f"{BEAM}_"))
        else:
            about = read_json_object(path.with_suffix(".json"))
        return cls(name, about, load_file(path))

    def part(self, start: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``start``, without it."""
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}

    @property
    def tolerance(self) -> Mapping[str, float]:
        """What counts as equal, per quantity."""
        return self.about["reproduction"]["recommended_tolerance"]


def files(folders: Iterable[Path]) -> dict[str, Path]:
    """Name -> file of all cases in some folders; the first folder that has a case gives it."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.safetensors")):
            found.setdefault(path.stem, path)
    return found


def difference(
    what: str, found: Tensor, expected: Tensor, bound: float, where: Tensor | None = None
) -> Difference:
    """The largest absolute difference of two tensors, where ``where`` is true if it is given."""
    if found.shape != expected.shape:
        return Difference(f"{what}: shape {[*found.shape]}", torch.inf, bound)
    apart = (found.detach() - expected).abs()
    apart = apart if where is None else apart[where]
    return Difference(what, apart.max().item() if apart.numel() else torch.inf, bound)


def gradients(
    found: Mapping[str, Tensor | None], expected: Mapping[str, Tensor], bound: float, what: str
) -> Difference:
    """The largest difference of any gradient; infinite if one is missing on either side."""
    if found.keys() != expected.keys() or any(g is None for g in found.values()):
        return Difference(f"{what}: of other parameters", torch.inf, bound)
    apart = [(found[name] - value).abs().max().item() for name, value in expected.items()]  # type: ignore[operator]
    return Difference(what, max(apart), bound)
