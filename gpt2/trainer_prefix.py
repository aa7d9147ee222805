"""The training loop: transformers' Trainer, optimising the prefix alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer

from gpt2.data import EXACT, Rounding, rounded, with_targets
from gpt2.keep_best import KeepBest
from harness.loop import SafeTrainer
from harness.samplers import LengthGroupedSampler
from prefix_tuning.objectives import IGNORE, divisor


class TableToTextTrainer(SafeTrainer):
    """What prefix- and fine-tuning share: example order, log and checkpoints.

    Args:
        length_groups: batches of about one length instead of purely random ones.
        save: ``save(folder)`` writes the trained weights and what describes them.
        rounding: of the shapes of batches.
        label_smoothing: of the loss that is trained; an evaluation, which chooses the best, has
            none.
    """

    sums_losses = False
    """Whether the loss of a text is a sum over its tokens."""

    def __init__(
        self,
        *args: Any,
        save: Callable[[Path], None],
        length_groups: bool = False,
        rounding: Rounding = EXACT,
        label_smoothing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.label_smoothing = label_smoothing
        self.data_collator = self._arrange(self.data_collator, rounding)
        # The loss is a mean over the batch already: Trainer must divide it by the accumulation.
        self.model_accepts_loss_kwargs = False
        self._write = save
        self._length_groups = length_groups
        self.last_labels = torch.zeros(1, 2)
        self.add_callback(KeepBest(save))

    def _arrange(self, collator: Callable[..., Any], rounding: Rounding) -> Callable[..., Any]:
        """The collator of batches whose shapes are rounded."""
        return rounded(collator, rounding)

    def loss_text(self) -> str:
        """The loss, and per token where it adds up the tokens of a text."""
        if not self.sums_losses:
            return super().loss_text()
        loss, labels = float(self.last_loss), self.last_labels
        # The first token of a text has no loss.
        n_target = float((labels[:, 1:] != IGNORE).sum()) / len(labels)
        return f"{loss:.2f} ({loss / n_target:.3f} a token)"

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """One step, whose labels are remembered for its loss to be shown."""
        # Counted when it is shown: a GPU would have to be waited for.
        self.last_labels = inputs["labels"]
        return super().training_step(model, inputs, *args, **kwargs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        if not self._length_groups:
            return super()._get_train_sampler(train_dataset)
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        dataset: Any = self.train_dataset
        size = self.args.train_batch_size * self.args.world_size
        return LengthGroupedSampler(dataset.lengths, size, seed)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """What :meth:`batch_loss` returns, the way Trainer asks for it."""
        loss = self.batch_loss(model, inputs)
        return (loss, {"loss": loss}) if return_outputs else loss

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """The model's own loss, a mean over the targets of the batch; a scalar."""
        share = self.share_of_batch(0, model, inputs)
        smoothing = self.smoothing_for(model)
        if not smoothing:
            loss = cast(Tensor, super().compute_loss(model, inputs))
            if self.whole is not None:
                n_target = (inputs["labels"][:, 1:] != IGNORE).sum()
                self.count(loss * n_target, n_target)
            return loss * share
        logits = model(**{name: x for name, x in inputs.items() if name != "labels"}).logits
        logits = logits[:, :-1].flatten(0, 1).float()  # [B, T, V] -> [B * (T - 1), V]
        targets = inputs["labels"][:, 1:].flatten()
        loss = cross_entropy(logits, targets, ignore_index=IGNORE, label_smoothing=smoothing)
        return loss * share

    def smoothing_for(self, model: nn.Module) -> float:
        """The smoothing of the labels: none while ``model`` is evaluated."""
        return self.label_smoothing if model.training else 0.0

    def share_of_batch(self, mode: int, model: nn.Module, inputs: dict[str, Tensor]) -> Any:
        """What makes the mean over processes that over their batches as one batch.

        Objective mode 0 is a mean over the targets of a batch; the others are means over its rows,
        of which 2 and 3 divide by something of the batch, which in every process is another.
        """
        if self.args.world_size == 1 or not model.training:
            return 1.0
        is_target = inputs["labels"][:, 1:] != IGNORE
        if mode == 0:
            return self.share(is_target.sum())
        share = self.share(torch.tensor(len(is_target), device=is_target.device))
        if mode == 1:
            return share
        own = needed = is_target.sum(dim=1).max()
        if mode == 2:
            own, needed = own.new_tensor(is_target.shape[1]), is_target.any(0).nonzero().max() + 1
        mine = (needed * (not self.is_filling)).reshape(1)
        return share * own / self.accelerator.gather(mine).max()

    def first_rows(self, batch: dict[str, Any], n_row: int) -> dict[str, Any]:
        """The first rows, in which targets stand elsewhere."""
        return super().first_rows({k: v for k, v in batch.items() if k != "targets"}, n_row)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.args.should_save:  # asked of every process
            self._write(Path(output_dir or str(self.args.output_dir)))


class Trainer_Prefix(TableToTextTrainer):
    """Optimise a prefix against a frozen model.

    Args:
        model: the prefix (``gpt2.train_control.PrefixTuning``), the only thing optimised.
        model_gpt2: the frozen model, after ``requires_grad_(False)`` and ``enable_prefix``.
        use_dropout: run the frozen model in train mode while training, so that its own dropout
            is active. The original's default is eval mode.
    """

    graphable = True

    def __init__(
        self,
        *,
        model: nn.Module,
        model_gpt2: PreTrainedModel,
        args: TrainingArguments,
        use_dropout: bool = False,
        **kwargs: Any,
    ) -> None:
        # Trainer would ask the prefix to checkpoint; it is the frozen model that should. Newer
        # versions of transformers have a second name for the flag.
        names = [
            n for n in ("gradient_checkpointing", "activation_checkpointing") if hasattr(args, n)
        ]
        self._checkpointing = any(getattr(args, name) for name in names)
        if self._checkpointing:
            model_gpt2.gradient_checkpointing_enable({"use_reentrant": False})
        for name in names:
            setattr(args, name, False)
        self.prefix = model
        self.model_gpt2 = model_gpt2.eval().to(args.device)
        self.use_dropout = use_dropout
        super().__init__(model=model, args=args, **kwargs)

    def _arrange(self, collator: Callable[..., Any], rounding: Rounding) -> Callable[..., Any]:
        # These objectives divide by what padding adds to.
        if self.prefix.objective_mode in (2, 4):
            rounding = replace(rounding, width=1)
        return with_targets(collator, rounding)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One step, with the frozen model in the mode that ``use_dropout`` asks for."""
        if self.model_gpt2.training != self.use_dropout:  # a walk over all modules
            self.model_gpt2.train(self.use_dropout)
        if self._checkpointing:
            # Layers checkpoint only in train mode; their dropout modules stay as they are.
            for module in self.model_gpt2.modules():
                if isinstance(module, GradientCheckpointingLayer):
                    module.training = True
        return super().training_step(*args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate with all dropout off, behind an infix without the padding of its sources.

        The loss behind padded sources, which is the original's and depends on the batches, is
        reported as ``padded_loss``.
        """
        self.model_gpt2.eval()
        self.name_of_batches = "padded_loss" if self.prefix.reads_source else "batch_loss"
        return super().evaluation_loop(*args, **kwargs)

    def _count_unpadded(self, model: nn.Module, inputs: dict[str, Tensor]) -> None:
        """Count an evaluated batch as if no source in front of an infix were padded."""
        lengths = inputs["src_attn"].sum(dim=1)
        for length in lengths.unique().tolist():
            at = lengths == length
            rows = {name: inputs[name][at] for name in ("input_ids", "labels", "src", "src_attn")}
            rows["src"], rows["src_attn"] = rows["src"][:, :length], rows["src_attn"][:, :length]
            output = model(**rows, gpt2_model=self.model_gpt2, targets_only=True)
            self._count_losses(rows, output.loss)

    def _count_losses(self, inputs: dict[str, Tensor], losses: Tensor) -> None:
        """Count evaluated texts with the sum of their losses, or, but for mode 1, by tokens."""
        mode, labels = cast(int, self.prefix.objective_mode), inputs["labels"]
        if mode == 1:
            self.count(losses.sum(), len(labels))
            return
        n = divisor(mode, labels, inputs["input_ids"], cast(int, self.prefix.end_id))
        self.count((losses * n).sum(), (labels[:, 1:] != IGNORE).sum())

    def batch_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """The mean of what the objective mode returns."""
        share = self.share_of_batch(cast(int, self.prefix.objective_mode), model, inputs)
        smoothing = self.smoothing_for(model)
        output = model(**inputs, gpt2_model=self.model_gpt2, targets_only=True, smoothing=smoothing)
        if self.whole is not None and self.prefix.reads_source:
            self._count_unpadded(model, inputs)
        elif self.whole is not None and self.prefix.objective_mode != 1:
            self._count_losses(inputs, output.loss)
        return output.loss.mean() * share
