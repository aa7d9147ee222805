"""Prefix and model trained together: as one module, and by which trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel

from gpt2.trainer_prefix import Trainer_Prefix
from prefix_tuning.checkpoint import read_tensors


class PrefixAndModel(nn.Module):
    """A prefix and its model as one module, so that one optimiser trains both.

    Trainer takes one ``nn.Module``, whose parameters it optimises, moves and wraps for several
    GPUs; a prefix that owned its model instead would save it as a part of itself.

    Args:
        prefix: whose ``forward`` this is.
        model_gpt2: the model, whose train mode is left to the trainer.
    """

    def __init__(self, prefix: nn.Module, model_gpt2: PreTrainedModel) -> None:
        super().__init__()
        self.prefix = prefix
        self.model_gpt2 = model_gpt2
        self.forward = prefix.forward  # Trainer reads its signature

    @property
    def objective_mode(self) -> Any:
        """The objective mode of the prefix."""
        return self.prefix.objective_mode

    def train(self, mode: bool = True) -> PrefixAndModel:
        """Set the prefix's mode alone."""
        self.training = mode
        self.prefix.train(mode)
        return self


class Trainer_Both(Trainer_Prefix):
    """Optimise a :class:`PrefixAndModel`; checkpoints hold the model in a folder of its own.

    Args:
        model_folder: its name.
    """

    graphable = False

    def __init__(self, *, model: nn.Module, model_gpt2: PreTrainedModel, **kwargs: Any) -> None:
        self.model_folder = kwargs.pop("model_folder")
        both = PrefixAndModel(model, model_gpt2)
        super().__init__(model=both, model_gpt2=model_gpt2, **kwargs)
        self.prefix = model
        self.label_names = ["labels"]  # Trainer asks the class, which has no forward of its own

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder, both = Path(resume_from_checkpoint), cast(PrefixAndModel, self.model)
        both.prefix.load_state_dict(read_tensors(folder / "model.safetensors"))
        # Without the output matrix where it is the word embeddings.
        state = read_tensors(folder / self.model_folder / "model.safetensors")
        both.model_gpt2.load_state_dict(state, strict=False)
