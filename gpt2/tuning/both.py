"""Prefix and model trained together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gpt2.tuning.base import MANIFEST, Json, Setting
from gpt2.tuning.prefix import WithPrefix
from prefix_tuning.files import let_read, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prefix_tuning.prefix import Prefix

MODEL_FOLDER = "gpt2"
"""Where a run keeps the model that belongs to its prefix."""


@dataclass(frozen=True)
class BothTune(WithPrefix):
    """Prefix and model together (bothtune)."""

    name: ClassVar[str] = "bothtune"
    keeps_base: ClassVar[bool] = True

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        """Train everything."""
        return model.requires_grad_(True)

    def trainer_class(self, model: PreTrainedModel) -> Callable[..., Any]:
        """What trains both."""
        from gpt2.prefix_and_model import Trainer_Both

        return partial(Trainer_Both, model_folder=MODEL_FOLDER)

    def save_prefix(
        self, folder: Path, prefix: Prefix, config: Json, meta: Json, setting: Setting
    ) -> None:
        """Write the prefix, which is exported never: it is nothing without the model beside it."""
        from prefix_tuning import checkpoint, fingerprint

        inner = folder / MODEL_FOLDER
        beside = fingerprint.describe(setting.model, f"the {MODEL_FOLDER}/ beside it")
        inner.mkdir(parents=True, exist_ok=True)
        setting.model.save_pretrained(inner)
        setting.tokenizer.save_pretrained(inner)
        let_read(inner)
        write_json(inner / MANIFEST, {"task": meta["task"]})
        checkpoint.save(folder, prefix, config, {**meta, "base_model": beside})
