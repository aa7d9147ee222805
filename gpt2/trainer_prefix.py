"""The training loop: transformers' Trainer, optimising the prefix alone."""

from __future__ import annotations

import glob
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import (
    PreTrainedModel,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from gpt2.data import EXACT, Rounding, rounded, with_targets
from harness.loop import SafeTrainer
from harness.progress import Progress
from prefix_tuning.checkpoint import read_tensors
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, write_json
from prefix_tuning.objectives import IGNORE


class LengthGroupedSampler(Sampler[int]):
    """A random order in which every batch holds examples of about one length.

    An epoch contains every example once, as with random order. Examples are shuffled, sorted by
    length within groups of ``batches_per_group`` batches, and the batches shuffled again.

    Args:
        lengths: tokens of every example.
        batch_size: consecutive indices that will form a batch.
        seed: with the epoch, decides the order.
    """

    batches_per_group = 50

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self), generator=generator)
        groups = order.split(self.batch_size * self.batches_per_group)
        order = torch.cat([g[self.lengths[g].argsort(stable=True)] for g in groups])
        batches = list(order.split(self.batch_size))
        # A short batch stays last: anywhere else it would shift the borders of those behind it.
        last = batches.pop() if len(batches[-1]) < self.batch_size else order[:0]
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        yield from torch.cat([*(batches[i] for i in shuffled), last]).tolist()


class TableToTextTrainer(SafeTrainer):
    """What prefix- and fine-tuning share: example order, log and checkpoints.

    Args:
        length_groups: batches of about one length instead of purely random ones.
        save: ``save(folder)`` writes the trained weights and what describes them.
        rounding: of the shapes of batches.
    """

    graphable = False
    """Whether the loss is computed without looking at what a tensor holds (harness/graphs.py)."""

    def __init__(
        self,
        *args: Any,
        save: Callable[[Path], None],
        length_groups: bool = False,
        rounding: Rounding = EXACT,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.data_collator = self._arrange(self.data_collator, rounding)
        # The loss is a mean over the batch already: Trainer must divide it by the accumulation.
        self.model_accepts_loss_kwargs = False
        self._write = save
        self._length_groups = length_groups
        self.last_loss, self.last_targets = torch.zeros(()), 1.0
        self.add_callback(_KeepBest(save))

    def _arrange(self, collator: Callable[..., Any], rounding: Rounding) -> Callable[..., Any]:
        """The collator of batches whose shapes are rounded."""
        return rounded(collator, rounding)

    def show_progress(self, is_sum: bool) -> None:
        """Show the loss of some steps, and the time left, instead of what Trainer shows.

        Args:
            is_sum: the loss adds up the tokens of a text; it is shown per token as well.
        """

        def text() -> str:
            loss = float(self.last_loss)
            return (
                f"{loss:.2f} ({loss / self.last_targets:.3f} a token)" if is_sum else f"{loss:.3f}"
            )

        self.remove_callback(ProgressCallback)
        self.add_callback(Progress(text, lambda: float(self.last_loss)))

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """One step, whose loss is remembered to be shown."""
        labels = inputs["labels"]
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.last_loss = loss.detach() * self.current_gradient_accumulation_steps
        # As many positions have a loss as labels that count: the first token of a text has none.
        self.last_targets = float((labels[:, 1:] != IGNORE).sum()) / len(labels)
        return loss

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        if not self._length_groups:
            return super()._get_train_sampler(train_dataset)
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        dataset: Any = self.train_dataset
        return LengthGroupedSampler(dataset.lengths, self.args.train_batch_size, seed)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The model's own loss, a mean over the targets of the batch."""
        share = self.share_of_batch(0, model, inputs)
        result = super().compute_loss(model, inputs, return_outputs)
        return result if return_outputs else result * share

    def share_of_batch(self, mode: int, model: nn.Module, inputs: dict[str, Tensor]) -> Any:
        """What makes the mean over processes that over their batches as one batch.

        Objective modes 0, 2 and 3 divide by something of the batch, which in every process is
        another: the factor is that number here over the one of the batch of all.
        """
        if self.args.world_size == 1 or not model.training or mode == 1:
            return 1.0
        n_target = (inputs["labels"][:, 1:] != IGNORE).sum(dim=1)
        own = {0: n_target.sum(), 2: n_target.new_tensor(inputs["labels"].shape[1] - 1)}
        count = own.get(mode, n_target.max()).float().reshape(1)
        of_all = self.accelerator.gather(count)
        return count[0] / (of_all.mean() if mode == 0 else of_all.max())

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
        self.set_modes()
        return super().training_step(*args, **kwargs)

    def set_modes(self) -> None:
        """Bring the prefix into train mode, and the model into that of ``use_dropout``."""
        assert self.model is not None
        self.model.train()
        if self.model_gpt2.training != self.use_dropout:  # a walk over all modules
            self.model_gpt2.train(self.use_dropout)
        if self._checkpointing:
            # Layers checkpoint only in train mode; their dropout modules stay as they are.
            for module in self.model_gpt2.modules():
                if isinstance(module, GradientCheckpointingLayer):
                    module.training = True

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate with all dropout off."""
        self.model_gpt2.eval()
        return super().evaluation_loop(*args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The mean of what the objective mode returns."""
        share = self.share_of_batch(cast(int, self.prefix.objective_mode), model, inputs)
        output = model(**inputs, gpt2_model=self.model_gpt2, targets_only=True)
        loss = output.loss.mean() * share
        return (loss, {"loss": loss}) if return_outputs else loss


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
        """That of the prefix."""
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


class _KeepBest(TrainerCallback):
    """Keep the weights of the best evaluation in ``<run>/<run>-checkpoint-<step>``.

    The original calls this early stopping; it never stops. The folder's name is the original's. A
    run that begins or goes on keeps what is there until it finds a better one.
    """

    def __init__(self, save: Callable[[Path], None]) -> None:
        self.save = save
        self.best: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look up what is kept already."""
        logged = {
            int(log["step"]): log["eval_loss"] for log in state.log_history if "eval_loss" in log
        }
        found = [_loss_of(folder, logged) for folder in best_checkpoints(_run(args))]
        self.best = min((loss for loss in found if loss is not None), default=None)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Keep the weights if their loss is less than any before."""
        loss = kwargs["metrics"].get("eval_loss")
        if loss is None or not math.isfinite(loss) or not state.is_world_process_zero:
            return
        if self.best is not None and loss >= self.best:
            return
        self.best, run = loss, _run(args)
        older = best_checkpoints(run)
        best = run / f"{run.name}-checkpoint-{state.global_step}"
        (best / EVALUATION).unlink(missing_ok=True)
        self.save(best)
        write_json(best / EVALUATION, {"step": state.global_step, "eval_loss": loss})
        for folder in older:
            if folder != best:
                shutil.rmtree(folder)


EVALUATION = "evaluation.json"
"""In the folder of the best evaluation, written last: its step and its loss."""


def _run(args: TrainingArguments) -> Path:
    assert args.output_dir is not None
    return Path(args.output_dir)


def _loss_of(best: Path, logged: Mapping[int, float]) -> float | None:
    """The loss that a folder was kept for; None if that is unknown, as when it is not complete."""
    try:
        loss = read_json_object(best / EVALUATION)["eval_loss"]
    except (UserError, KeyError):
        step = best.name.rpartition("-")[2]
        loss = logged.get(int(step)) if step.isdecimal() else None
    return loss if isinstance(loss, float) and math.isfinite(loss) else None


def best_checkpoints(run: Path) -> list[Path]:
    """The folders of the best evaluation in a run (one, or none yet)."""
    return sorted(run.glob(f"{glob.escape(run.name)}-checkpoint-*"))
