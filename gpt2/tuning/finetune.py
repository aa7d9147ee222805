"""Fine-tuning: all of the model, or its top blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gpt2.tuning.base import TuningMode
from harness.flags import flag, yes_no
from harness.only import Only
from harness.ranges import COUNT_OR_NONE, FRACTION
from prefix_tuning.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOP_LAYERS = {0: (0, True), 1: (1, True), 2: (2, True), 11: (1, False), 22: (2, False)}
"""The original's codes: how many blocks train, and whether the word embeddings do."""


@dataclass(frozen=True)
class FineTune(TuningMode):
    """Fine-tuning."""

    name: ClassVar[str] = "finetune"

    teacher_dropout: float | None = flag(
        None, "residual dropout of a model trained as a teacher", within=FRACTION
    )

    def note(self) -> str:
        """Whether there is a dropout for a teacher, as the original notes it."""
        return f"uctd={'no' if self.teacher_dropout is None else 'yes'}"

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        """Train everything."""
        self._set_dropout(model)
        return model.requires_grad_(True)

    def _set_dropout(self, model: PreTrainedModel) -> None:
        if self.teacher_dropout is not None:
            from gpt2.tuning.blocks import set_residual_dropout

            set_residual_dropout(model, self.teacher_dropout)


@dataclass(frozen=True)
class TopLayers(FineTune):
    """Fine-tuning of the top blocks (finetune-top)."""

    name: ClassVar[str] = "finetune-top"
    # The launcher's default is 1.
    only: ClassVar[dict[str, Only]] = {
        "top_layers": Only("without --train_top", lambda mode: mode.train_top is None, idle=(1,))
    }

    top_layers: int = flag(
        2, f"the original's code for the blocks that train: {', '.join(map(str, TOP_LAYERS))}"
    )
    train_top: int | None = flag(
        None, "train the top N blocks, instead of giving a code", within=COUNT_OR_NONE
    )
    train_embs: str = yes_no("no", "with --train_top: train the word embeddings too")

    def __post_init__(self) -> None:
        if self.top_layers not in TOP_LAYERS:
            codes = ", ".join(map(str, TOP_LAYERS))
            raise UserError(
                f"--top_layers {self.top_layers}: the codes are {codes}; use --train_top"
            )
        if self.train_embs == "yes" and self.train_top is None:
            raise UserError("--train_embs yes: only with --train_top")

    def note(self) -> str:
        """The code, or the number of blocks."""
        if self.train_top is None:
            return f"l={self.top_layers}"
        return f"l=top{self.train_top}" + ("+embs" if self.train_embs == "yes" else "")

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        """Train the last layer norm, the top blocks, and the word embeddings where asked for.

        GPT-2's embeddings are also its output matrix.
        """
        from gpt2.tuning.blocks import blocks, last_norm

        count, embeddings = TOP_LAYERS[self.top_layers]
        if self.train_top is not None:
            count, embeddings = self.train_top, self.train_embs == "yes"
        layers = blocks(model)
        if count > len(layers):
            raise UserError(f"--train_top {count}: the model has {len(layers)} blocks")
        self._set_dropout(model)
        model.requires_grad_(False)
        trained = [last_norm(model), *layers[len(layers) - count :]]
        if embeddings:
            trained += [model.get_input_embeddings(), model.get_output_embeddings()]
        for module in trained:
            module.requires_grad_(True)
        return model
