"""What is trained on summaries and translations: loss, validation and scores."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax
from transformers import PreTrainedModel

from harness.text import clean_up
from seq2seq import arguments, run_folder
from seq2seq.arguments import Arguments
from seq2seq.decoding import generate, texts
from seq2seq.files import Record
from seq2seq.lightning_base import BaseTransformer, PrefixTransformer
from seq2seq.loading import Loaded
from seq2seq.predict import SCORES
from seq2seq.utils import (
    assert_all_frozen,
    calculate_bleu,
    calculate_rouge,
    freeze_embeds,
    freeze_params,
    label_smoothed_nll_loss,
)


@dataclass(frozen=True)
class _Validated:
    """An example of the validation set."""

    text: str
    """What was generated."""
    n_generated: int
    """Its tokens, without the start token."""
    loss: float
    """Summed over the target, in nats."""
    n_target: int
    """Tokens of the target."""


@dataclass(frozen=True)
class _ValidatedBatch:
    """A batch of the validation set."""

    examples: dict[int, _Validated]
    """By index in the set."""
    seconds: float
    """Seconds of generation per example."""
    legacy: dict[str, float]
    """The original's scores, and its loss."""


class SummarizationModule(BaseTransformer):
    """Fine-tuning of the whole model: loss and validation, which all modules share."""

    mode = "summarization"
    legacy_metrics: ClassVar[Callable[..., dict[str, float]]] = staticmethod(calculate_rouge)
    """The original's scores of one batch, against references cut as training cuts them."""

    def __init__(
        self, args: Arguments, records: Mapping[str, Sequence[Record]], loaded: Loaded
    ) -> None:
        super().__init__(args, records, loaded)
        self.search = arguments.search(args)
        self.metrics: dict[str, list[dict[str, Any]]] = {"val": []}
        self.step_count = 0
        self.outputs: list[_ValidatedBatch] = []

    @classmethod
    def freeze_base(cls, args: Arguments, base: PreTrainedModel) -> None:
        super().freeze_base(args, base)
        if args.freeze_embeds:
            freeze_embeds(base)
        if args.freeze_encoder:
            freeze_params(base.get_encoder())
            assert_all_frozen(base.get_encoder())

    @property
    def is_sum(self) -> bool:
        """Whether the loss of a batch is the sum over its tokens, as in the original, or a mean."""
        return self.args.label_smoothing > 0 and self.args.label_smoothing_mean == "no"

    def step(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of a batch in nats: a mean over tokens, or smoothed, as in the original, a sum.

        Args:
            batch: of :meth:`Seq2SeqDataset.collate_fn`.
        """
        is_target = batch["labels"] != self.tokenizer.pad_token_id
        labels, logits = batch["labels"][is_target], self.logits(batch, is_target).float()
        if not len(labels):  # a process of several that has no example left
            return logits.sum()
        epsilon = self.args.label_smoothing
        if epsilon == 0:
            return cross_entropy(logits, labels)
        loss, _ = label_smoothed_nll_loss(log_softmax(logits, dim=-1), labels, epsilon)
        return loss if self.is_sum else loss / len(labels)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """The loss of a batch, to which several processes contribute as much as they have tokens.

        Raises:
            Diverged: it is not a number, or infinite.
        """
        if self.trainer.world_size > 1:
            is_repeated = self._repetitions(batch["ids"], batch_idx)[:, None]
            pad = self.tokenizer.pad_token_id
            batch["labels"] = batch["labels"].masked_fill(is_repeated, pad)
        loss = self.step(batch)
        n_token = (batch["labels"] != self.tokenizer.pad_token_id).sum()
        share = self.together.share(n_token, loss)
        # With a gradient scaler, steps are skipped until their loss is a number again.
        if self.together.has_diverged and not self.args.fp16:
            step = self.trainer.global_step + 1
            raise run_folder.diverged(self.args, f"the training loss of step {step}")
        if self.trainer.world_size > 1:  # Lightning averages the gradients of the processes
            loss = self.trainer.world_size * (loss if self.is_sum else loss * share)
        source, pad = batch["input_ids"], self.tokenizer.pad_token_id
        padding = (source == pad).sum()
        sizes = {
            "tpb": (source.numel() - padding + n_token).float(),
            "bs": float(len(source)),
            "src_pad_tok": padding.float(),
            "src_pad_frac": padding / source.numel(),
        }
        self.log("loss", loss.detach())
        self.log_dict(sizes)
        # Lightning divides "loss" by the accumulated batches.
        return {"loss": loss, "mean": loss.detach()}

    def _repetitions(self, ids: Tensor, batch_idx: int) -> Tensor:
        """Which examples ``ids [B]`` of the set only make processes have as many, ``[B]`` bool."""
        rank, n_process = self.global_rank, self.trainer.world_size
        if self.args.sortish_sampler:
            return ids % n_process != rank
        n_own = len(range(rank, len(self.datasets["train"]), n_process))
        position = torch.arange(len(ids), device=ids.device)
        return position + batch_idx * self.args.train_batch_size >= n_own

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
        found = self.legacy_metrics([clean_up(text) for text in predictions], targets)
        legacy = {name: float(value) for name, value in found.items()}
        sums, counts = self._row_losses(batch)
        total = sums.sum()
        legacy["loss"] = (total if self.is_sum else total / counts.sum()).item()
        columns = [batch["ids"], lengths, sums, counts]
        examples = {
            index: _Validated(text, *numbers)
            for text, index, *numbers in zip(
                predictions, *(column.tolist() for column in columns), strict=True
            )
        }
        self.outputs.append(_ValidatedBatch(examples, seconds / len(rows), legacy))

    def _row_losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The summed token losses of every row of a batch, in nats, and its tokens, ``[B]``."""
        is_target = batch["labels"] != self.tokenizer.pad_token_id
        labels, logits = batch["labels"][is_target], self.logits(batch, is_target).float()
        losses = cross_entropy(
            logits, labels, reduction="none", label_smoothing=self.args.label_smoothing
        )
        sums = losses.new_zeros(len(is_target), dtype=torch.float64)
        return sums.index_add(0, is_target.nonzero()[:, 0], losses.double()), is_target.sum(1)

    def on_validation_epoch_start(self) -> None:
        self.check_finite()

    def on_validation_epoch_end(self) -> None:
        outputs, self.outputs = self.together.gather(self.outputs), []
        # More processes than batches: the first batch comes several times.
        batches = [*{min(batch.examples): batch for batch in outputs}.values()]
        by_index = {i: found for batch in batches for i, found in batch.examples.items()}
        examples = [by_index[i] for i in sorted(by_index)]
        references = [record.target or "" for record in self.datasets["val"].records]
        scores = SCORES[self.mode](references, [example.text for example in examples]).values

        def mean(values: Sequence[float]) -> float:
            return sum(values) / len(values)

        loss = sum(e.loss for e in examples) / sum(e.n_target for e in examples)
        if not math.isfinite(loss):
            step = self.trainer.global_step
            raise run_folder.diverged(self.args, f"the validation loss at step {step}")
        legacy = {
            name: _finite(mean([batch.legacy[name] for batch in batches]))
            for name in batches[0].legacy
        }
        self.step_count += 1
        self.metrics["val"].append(
            {
                "val_avg_loss": loss,
                **{f"val_avg_{name}": value for name, value in scores.items()},
                "val_avg_gen_time": mean([batch.seconds for batch in batches]),
                "val_avg_gen_len": mean([example.n_generated for example in examples]),
                "step_count": self.step_count,
                **{f"legacy_{name}": value for name, value in legacy.items()},
            }
        )
        # Lightning logs numbers only; one that is not finite chooses no checkpoint.
        logged = {
            f"val_{name}": math.nan if value is None else value
            for name, value in {"loss": loss, **scores}.items()
        }
        self.log_dict(logged, sync_dist=True)

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
