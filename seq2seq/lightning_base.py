"""What all modules share: model, data loaders, checkpoints.

Two things about Lightning that matter here. It leaves a model in the mode it comes in, and
transformers' models come in eval mode: :meth:`BaseTransformer.on_train_start` switches the whole
module to train mode, so that BART's own dropout is active while its prefix is trained, as it was in
the original. And it resumes at a batch number, not at an example: :class:`ResumedBatches` skips
what was trained on, and every batch starts from a random state of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prefix_tuning import checkpoint, fingerprint
from prefix_tuning.attention import KeyValues, enable_prefix
from seq2seq import arguments, loading, run_folder
from seq2seq.arguments import Arguments
from seq2seq.data import Seq2SeqDataset
from seq2seq.files import Record
from seq2seq.loading import Loaded
from seq2seq.optimization import make_optimizer, make_schedule
from seq2seq.prefixTuning import PrefixTuning
from seq2seq.processes import Processes
from seq2seq.samplers import (
    DistributedSortishSampler,
    ResumedBatches,
    SortishSampler,
    TokenBatchSampler,
)
from seq2seq.utils import assert_all_frozen


class BaseTransformer(pl.LightningModule):
    """A sequence-to-sequence model that is trained, with its data.

    Args:
        args: the flags (:mod:`seq2seq.arguments`).
        records: of the splits "train" and "val".
        loaded: tokenizer, base model, and what is trained.
    """

    model: torch.nn.Module
    """What is trained."""
    together: Processes
    """What the processes of the run tell each other."""
    strict_loading = False
    """Lightning's checkpoints hold trained parameters only."""

    def __init__(
        self, args: Arguments, records: Mapping[str, Sequence[Record]], loaded: Loaded
    ) -> None:
        super().__init__()
        self.args, self.tokenizer, base = args, loaded.tokenizer, loaded.base
        self.together = Processes()
        self.base_described = fingerprint.describe(base, args.model_name_or_path or "")
        self.has_begun = False
        """Whether a step was begun: what fails before is the checkpoint's fault."""
        self.source_prefix = loading.source_prefix(args, base)
        self.datasets = {
            "train": self._dataset(records["train"], args.max_target_length, args.n_train),
            "val": self._dataset(records["val"], args.val_max_target_length, args.n_val),
        }
        self.position = (0, 0)  # epoch, batches of it
        self.model = loaded.trained

    @classmethod
    def load(
        cls, args: Arguments, records: Mapping[str, Sequence[Record]], resuming: bool = False
    ) -> Self:
        """Load the base model, and make the module on it.

        Args:
            resuming: parameters are about to be replaced by those of a checkpoint.

        Raises:
            UserError: this machine cannot do it, the model cannot be had, or a flag is not for it.
        """
        loading.device(args)  # before minutes of loading
        loading.own_options(args)
        tokenizer, base = loading.load_base(args, args.model_name_or_path or "")
        lengths = {n: getattr(args, n) for n in ("max_target_length", "val_max_target_length")}
        lengths["max_source_length"] = args.max_source_length or 512
        lengths["eval_max_gen_length"] = arguments.search(args).max_length
        loading.check_positions(base, lengths)
        if args.gradient_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        cls.freeze_base(args, base)
        trained = cls.make_trained(args, tokenizer, base, not resuming)
        return cls(args, records, Loaded(tokenizer, base, trained))

    @classmethod
    def freeze_base(cls, args: Arguments, base: PreTrainedModel) -> None:
        """Freeze what is not trained of the base model: here nothing."""

    @classmethod
    def make_trained(
        cls, args: Arguments, tokenizer: PreTrainedTokenizerBase, base: PreTrainedModel, fit: bool
    ) -> torch.nn.Module:
        """What is trained: here the base model itself."""
        return base

    def _dataset(self, records: Sequence[Record], length: int, n_obs: int) -> Seq2SeqDataset:
        return Seq2SeqDataset(
            self.tokenizer,
            records,
            self.args.max_source_length or 512,
            length,
            n_obs,
            self.source_prefix,
            self.args.src_lang,
            self.args.tgt_lang,
        )

    @property
    def language_model(self) -> Any:
        """The whole model, frozen or not."""
        return self.model

    def generation_prefix(self) -> KeyValues | None:
        """What ``generate`` puts in front; None where there is no prefix."""
        return None

    def logits(self, batch: dict[str, Tensor], is_target: Tensor) -> Tensor:
        """``[N, V]`` where ``is_target [B, T]``; the decoder reads the labels shifted right."""
        return self.model(**self._inputs(batch)).logits[is_target]

    def _inputs(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        shifted = self.language_model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return {**inputs, "decoder_input_ids": shifted, "use_cache": False}

    def save(self, folder: Path) -> None:
        """Write what was trained, for decoding."""
        self.language_model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    # Optimisation.

    def total_steps(self) -> float:
        """Optimiser steps as the schedule counts them: the original's formula, not rounded."""
        args = self.args
        if args.max_steps > 0:
            return args.max_steps
        if args.max_tokens_per_batch is not None:
            n_batch: float = len(self._token_batches)
        else:
            world = self.trainer.world_size
            n_batch = len(self.datasets["train"]) / (args.train_batch_size * world)
        return n_batch / args.gradient_accumulation_steps * args.num_train_epochs

    def configure_optimizers(self) -> Any:
        trained = ((n, p) for n, p in self.model.named_parameters() if p.requires_grad)
        optimizer = make_optimizer(self.args, trained)
        schedule = make_schedule(self.args, optimizer, self.total_steps())
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    # Data.

    def train_dataloader(self) -> DataLoader:
        """The order of examples follows from the seed and the epoch alone."""
        args, dataset = self.args, self.datasets["train"]
        world, rank = self.trainer.world_size, self.trainer.global_rank
        size, seed = args.train_batch_size, args.seed
        if args.max_tokens_per_batch is not None:
            by_tokens = self._token_batches
            return self._loader(dataset, ResumedBatches(by_tokens, by_tokens, *self.position))
        sampler: SortishSampler | DistributedSampler[int]
        if args.sortish_sampler and world > 1:
            sampler = DistributedSortishSampler(dataset.src_lens, size, world, rank, seed=seed)
        elif args.sortish_sampler:
            sampler = SortishSampler(dataset.src_lens, size, seed=seed)
        else:
            sampler = DistributedSampler(dataset, world, rank, shuffle=True, seed=seed)
        batches = BatchSampler(sampler, size, drop_last=False)
        return self._loader(dataset, ResumedBatches(batches, sampler, *self.position))

    @cached_property
    def _token_batches(self) -> TokenBatchSampler:
        lengths = self.datasets["train"].token_lengths()
        return TokenBatchSampler(lengths, self.args.max_tokens_per_batch or 0, seed=self.args.seed)

    def val_dataloader(self) -> DataLoader:
        """The batches of one process, dealt out to all."""
        dataset, trainer = self.datasets["val"], self.trainer
        batches = [*BatchSampler(range(len(dataset)), self.args.eval_batch_size, drop_last=False)]
        own = batches[trainer.global_rank :: trainer.world_size]
        return self._loader(dataset, own or batches[:1])  # Lightning takes no empty one

    def _loader(self, dataset: Seq2SeqDataset, batches: Any) -> DataLoader:
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=dataset.collate_fn,
            num_workers=self.args.num_workers,
            pin_memory=self.device.type == "cuda",
        )

    # Going on where a run was stopped.

    def on_train_start(self) -> None:
        self.has_begun = True
        self.train()

    def check_finite(self) -> None:
        """Refuse to keep or publish what is no numbers.

        Raises:
            Diverged: a trained parameter is not finite.
        """
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                step = self.trainer.global_step
                raise run_folder.diverged(self.args, f"{name} at step {step}")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # A random state that follows from the position: the same dropout after a restart.
        position = (self.args.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(hash(position))

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Only what is trained: the frozen model has a file of its own."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        state = super().state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if name in trained}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["position"] = self.position

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.position = tuple(checkpoint["position"])


_MLP = {"mid_dim": "mid_dim", "use_deep": "deep"}
"""The original's keys of a prefix's configuration -> options of the MLP."""


class PrefixTransformer(BaseTransformer):
    """A frozen model and the prefix in front of it, the only thing that is trained."""

    model: PrefixTuning

    def __init__(
        self, args: Arguments, records: Mapping[str, Sequence[Record]], loaded: Loaded
    ) -> None:
        super().__init__(args, records, loaded)
        self.seq2seq_model = loaded.base

    @classmethod
    def freeze_base(cls, args: Arguments, base: PreTrainedModel) -> None:
        super().freeze_base(args, base)
        base.requires_grad_(False)
        assert_all_frozen(base)

    @classmethod
    def make_trained(
        cls, args: Arguments, tokenizer: PreTrainedTokenizerBase, base: PreTrainedModel, fit: bool
    ) -> PrefixTuning:
        prefix = loading.make_prefix(args, tokenizer, enable_prefix(base), fit)
        return prefix.requires_grad_(True)

    @property
    def language_model(self) -> Any:
        return self.seq2seq_model

    def generation_prefix(self) -> KeyValues:
        return self.model.prompt(self.seq2seq_model)

    def logits(self, batch: dict[str, Tensor], is_target: Tensor) -> Tensor:
        inputs = self._inputs(batch)
        return self.model(gpt2_model=self.seq2seq_model, is_target=is_target, **inputs).logits

    def save(self, folder: Path) -> None:
        args, prefix = self.args, self.model
        task = {name: getattr(args, name) for name in ("task_mode", "src_lang", "tgt_lang")}
        task |= {
            "source_prefix": self.source_prefix,
            "max_source_length": args.max_source_length or 512,
        }
        meta = checkpoint.metadata(
            prefix, self.seq2seq_model, args.model_name_or_path or "", task=task
        )
        own = prefix.options()
        config = {
            **self.seq2seq_model.config.to_dict(),
            "optim_prefix": True,
            "preseqlen": prefix.length,
            **{flag: own[name] for flag, name in _MLP.items() if name in own},
            "prefix_dropout": prefix.dropout.p,
            "format_mode": args.format_mode,
        }
        checkpoint.save(folder, prefix, config, meta)
        checkpoint.export(folder / "export", prefix, meta)
