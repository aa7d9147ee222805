"""Adapters: small bottlenecks inside a frozen model (Houlsby et al. 2019; Lin et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from gpt2.tuning.base import MANIFEST, TuningMode
from harness.flags import flag
from harness.ranges import WIDTH
from prefix_tuning.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = "model.safetensors"
ORIGINAL = "pytorch_model.bin"
"""The original's file, which holds the whole model."""


@dataclass(frozen=True)
class Adapters(TuningMode):
    """Adapters (adaptertune)."""

    name: ClassVar[str] = "adaptertune"
    needs_base: ClassVar[bool] = True

    adapter_design: int = flag(
        2, "1: one adapter behind every block; 2: one behind attention, one behind the MLP"
    )
    adapter_bottleneck: int = flag(100, "width of an adapter's bottleneck", within=WIDTH)

    def __post_init__(self) -> None:
        if self.adapter_design not in (1, 2):
            raise UserError(f"--adapter_design {self.adapter_design}: use 1 or 2")

    def note(self) -> str:
        """Design and bottleneck."""
        return f"a={self.adapter_design}_b={self.adapter_bottleneck}"

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        """Put adapters into the blocks; nothing else is trained."""
        from gpt2.tuning.adapter_layers import attach_adapters

        attach_adapters(model, self.adapter_design, self.adapter_bottleneck)
        return model

    def save(
        self, folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        """Write the adapters alone."""
        from prefix_tuning.checkpoint import write_tensors

        trained = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        write_tensors(folder / WEIGHTS, trained)

    @classmethod
    def load(cls, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
        """Put the adapters of ``folder``, ours or the original's, into a base model."""
        from gpt2.tuning.adapter_layers import load_adapters
        from prefix_tuning.checkpoint import read_tensors

        path = folder / (WEIGHTS if (folder / MANIFEST).is_file() else ORIGINAL)
        load_adapters(model, read_tensors(path), str(path))
        return model.eval()
