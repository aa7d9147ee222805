"""What is trained on summaries and translations: loss, validation and scores."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax
from transformers import PreTrainedModel

from harness.text import clean_up
from seq2seq import arguments
from seq2seq.arguments import Arguments
from seq2seq.decoding import generate, texts
from seq2seq.files import Record
from seq2seq.lightning_base import BaseTransformer, PrefixTransformer
from seq2seq.predict import SCORES
from seq2seq.utils import (
    assert_all_frozen,
    calculate_bleu,
    calculate_rouge,
    freeze_embeds,
    freeze_params,
    label_smoothed_nll_loss,
)


class SummarizationModule(BaseTransformer):
    """Fine-tuning of the whole model: loss and validation, which all modules share."""

    mode = "summarization"
    legacy_metrics: ClassVar[Callable[..., dict[str, float]]] = staticmethod(calculate_rouge)
    """The original's scores of one batch, against references cut as training cuts them."""

    def __init__(
        self, args: Arguments, records: Mapping[str, Sequence[Record]], resuming: bool = False
    ) -> None:
        super().__init__(args, records, resuming)
        self.search = arguments.search(args)
        self.metrics: dict[str, list[dict[str, Any]]] = {"val": []}
        self.step_count = 0
        self.outputs: list[dict[str, Any]] = []

    def freeze_base(self, base: PreTrainedModel) -> None:
        super().freeze_base(base)
        if self.args.freeze_embeds:
            freeze_embeds(base)
        if self.args.freeze_encoder:
            freeze_params(base.get_encoder())
            assert_all_frozen(base.get_encoder())

    def step(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of a batch in nats: a mean over tokens, or smoothed, as in the original, a sum.

        Args:
            batch: of :meth:`Seq2SeqDataset.collate_fn`.
        """
        is_target = batch["labels"] != self.tokenizer.pad_token_id
        labels, logits = batch["labels"][is_target], self.logits(batch, is_target).float()
        epsilon = self.args.label_smoothing
        if epsilon == 0:
            return cross_entropy(logits, labels)
        loss, _ = label_smoothed_nll_loss(log_softmax(logits, dim=-1), labels, epsilon)
        return loss / len(labels) if self.args.label_smoothing_mean == "yes" else loss

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        loss = self.step(batch)
        source, pad = batch["input_ids"], self.tokenizer.pad_token_id
        padding = (source == pad).sum()
        sizes = {
            "tpb": (source.numel() - padding + (batch["labels"] != pad).sum()).float(),
            "bs": float(len(source)),
            "src_pad_tok": padding.float(),
            "src_pad_frac": padding / source.numel(),
        }
        self.log("loss", loss.detach(), prog_bar=True)
        self.log_dict(sizes)
        # Lightning divides "loss" by the accumulated batches.
        return {"loss": loss, "mean": loss.detach()}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        start = time.perf_counter()
        rows = generate(
            self.language_model,
            self.generation_prefix(),
            batch["input_ids"],
            batch["attention_mask"],
            self.search,
        )
        seconds = time.perf_counter() - start
        predictions = texts(self.tokenizer, rows)
        targets = [clean_up(text) or "." for text in texts(self.tokenizer, batch["labels"])]
        lengths = (rows[:, 1:] != self.tokenizer.pad_token_id).sum(1)
        legacy = self.legacy_metrics([clean_up(text) for text in predictions], targets)
        self.outputs.append(
            {
                "texts": dict(zip(batch["ids"].tolist(), predictions, strict=True)),
                "lengths": lengths.tolist(),
                "loss": self.step(batch).item(),
                "gen_time": seconds / len(rows),
                **{f"legacy_{name}": float(value) for name, value in legacy.items()},
            }
        )

    def on_validation_epoch_end(self) -> None:
        outputs, self.outputs = self._of_all_processes(self.outputs), []
        predicted = {i: text for output in outputs for i, text in output["texts"].items()}
        records = self.datasets["val"].records
        references = [record.target or "" for record in records]  # read_split has required them
        outputs_in_order = [predicted[i] for i in range(len(records))]
        scores = SCORES[self.mode](references, outputs_in_order).values

        def mean(values: list[float]) -> float:
            return sum(values) / len(values)

        loss = mean([output["loss"] for output in outputs])
        lengths = [length for output in outputs for length in output["lengths"]]
        legacy = [name for name in outputs[0] if name.startswith("legacy_")]
        self.step_count += 1
        self.metrics["val"].append(
            {
                "val_avg_loss": loss,
                **{f"val_avg_{name}": value for name, value in scores.items()},
                "val_avg_gen_time": mean([output["gen_time"] for output in outputs]),
                "val_avg_gen_len": mean(lengths),
                "step_count": self.step_count,
                **{name: _finite(mean([o[name] for o in outputs])) for name in legacy},
            }
        )
        # Lightning logs numbers only; one that is not finite chooses no checkpoint.
        logged = {
            f"val_{name}": math.nan if value is None else value
            for name, value in {"loss": loss, **scores}.items()
        }
        self.log_dict(logged, prog_bar=True, sync_dist=True)

    def _of_all_processes(self, values: list[Any]) -> list[Any]:
        if self.trainer.world_size == 1:
            return values
        gathered: list[list[Any]] = [[] for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(gathered, values)
        return [value for part in gathered for value in part]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["validations"] = (self.metrics, self.step_count)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.metrics, self.step_count = checkpoint["validations"]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class PrefixSummarizationModule(PrefixTransformer, SummarizationModule):
    """Prefix-tuning: the same around a frozen model."""


class TranslationModule(SummarizationModule):
    """Fine-tuning scored with BLEU."""

    mode = "translation"
    legacy_metrics = staticmethod(calculate_bleu)


class PrefixTranslationModule(PrefixSummarizationModule, TranslationModule):
    """Prefix-tuning scored with BLEU."""


MODULES = {
    (module.mode, tuning): module
    for tuning, module in (
        ("finetune", SummarizationModule),
        ("finetune", TranslationModule),
        ("prefixtune", PrefixSummarizationModule),
        ("prefixtune", PrefixTranslationModule),
    )
}
