"""A training run: data, model, trainer, results."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging as library_logging

from gpt2.arguments import DataArguments, ModelArguments
from gpt2.data import Format, Rounding, TableToTextDataset, collate, collate_infix
from gpt2.readers import Record
from gpt2.records import as_json, development_size, hold_out, sample_pairs
from gpt2.run_arguments import RunArguments
from gpt2.tasks import TASKS, read_records
from gpt2.train_control import add_pad_row
from gpt2.train_request import TrainRequest
from gpt2.trainer_prefix import TableToTextTrainer
from gpt2.tuning.base import Setting, TrainerOptions
from gpt2.tuning.prefix import WithPrefix
from harness import graphs, loop, report
from harness.folder import AGAIN, RunFolder
from harness.models import check_rows, load_causal_lm, token_ids, tokenizer_for
from harness.processes import is_first
from harness.trainer import check_batches, set_up
from prefix_tuning import fingerprint
from prefix_tuning.activation import fuse_activations
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, write_json, write_lines
from prefix_tuning.positions import room

T = TypeVar("T")
HELD_OUT = "held_out.jsonl"
"""What a run kept of its training data to evaluate on."""


class Shared:
    """What several runs have in common: each thing is read or loaded once."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` returned when the key was first asked for."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made


def run_folder(request: TrainRequest) -> RunFolder:
    """The folder of a run."""
    path = Path(str(request.run.output_dir))
    best = f"{glob.escape(path.name)}-checkpoint-*"
    return RunFolder(
        path,
        request.settings(),
        finished="log_history.json",
        leftovers=("loss.png", "checkpoint-*", best),
        overwrite=request.run.overwrite_output_dir,
        resume_from=request.run.resume_from_checkpoint,
        data=request.data_files(),
    )


def train(request: TrainRequest, shared: Shared | None = None) -> Path:
    """Train as requested, or go on where it was stopped; return the folder of the run.

    Args:
        shared: what other runs of this process have read and loaded.

    Raises:
        UserError: the folder, the data or the model is not what the request needs.
    """
    library_logging.set_verbosity_error()
    folder = run_folder(request)
    with folder.held() as state:
        if state.kind == "finished":
            print(f"{folder.path} is trained already; {AGAIN}")
        else:
            _train(request, folder, state.checkpoint, shared or Shared())
    return folder.path


def _train(
    request: TrainRequest, folder: RunFolder, resume_from: Path | None, shared: Shared
) -> None:
    run_args = request.run
    set_seed(run_args.seed)
    records = shared.get(request.data, lambda: _read(request.data))
    setting = _load(request, folder, records, shared)
    eval_records = records[1]
    built = request.tuning.build(setting)
    trainer = built.trainer
    if resume_from:
        print(f"going on from {resume_from}")
    else:
        built.start()
    if is_first():
        if not resume_from:
            folder.create()
            if request.data.eval_fraction and eval_records:
                lines = (json.dumps(as_json(record), ensure_ascii=False) for record in eval_records)
                write_lines(folder.path / HELD_OUT, lines)
        built.sizes.write(folder.path)
    before = 0
    if resume_from:
        before = read_json_object(resume_from / "trainer_state.json")["global_step"]
    trainer.sums_losses = request.tuning.sums_losses
    _note_learning_rate(run_args.learning_rate, setting.model, request)
    graphs.use_if_asked(trainer, run_args.cuda_graphs)
    result = loop.train(trainer, folder, resume_from)
    losses = _final_losses(trainer, run_args.evaluate_train_set == "yes")  # by all processes
    if is_first():
        built.save(folder.path)
        write_json(folder.path / "train_results.json", _costs(trainer, result, before))
        _finish(trainer, folder.path, losses)


def _load(
    request: TrainRequest,
    folder: RunFolder,
    records: tuple[list[Record], list[Record] | None],
    shared: Shared,
) -> Setting:
    """The base model with its tokenizer, and the records as batches for it."""
    model_args, data_args, run_args = request.model, request.data, request.run
    name, tuning = model_args.model_name_or_path, request.tuning
    is_shared = tuning.freezes and run_args.shard_model == "no"
    base = (shared if is_shared else Shared()).get(model_args, lambda: _base(model_args))
    tokenizer, model, n_word = base
    words: Any = model.get_input_embeddings()
    if words.num_embeddings != n_word:  # the [PAD] row of another run
        with torch.random.fork_rng():
            model.resize_token_embeddings(n_word, mean_resizing=False)
    folder.check_base(fingerprint.describe(model, name))
    layout = TASKS[data_args.task_mode].layout
    strings = (data_args.separator, layout, data_args.source_prefix)
    text_format = Format(tokenizer, *strings, spaces=data_args.spaces == "yes")
    pad_id = _add_padding(model_args, model, tokenizer, run_args.seed)

    max_tokens = _room(model, tuning.slots(tokenizer))

    def encode() -> tuple[TableToTextDataset, TableToTextDataset | None]:
        make = partial(TableToTextDataset, text_format=text_format, max_tokens=max_tokens)
        train_records, eval_records = records
        return make(train_records), make(eval_records, training=False) if eval_records else None

    train_set, eval_set = shared.get((data_args, model_args, max_tokens), encode)
    print(f"{len(train_set):,} training pairs from {data_args.train_data_file}")
    check_batches(run_args, len(train_set))

    has_no_strategy = run_args.eval_strategy == "no"
    if has_no_strategy and run_args.evaluate_during_training and eval_set is not None:
        run_args.eval_strategy = "steps"
    # One GPU, for DataParallel would replicate the prefix without its frozen model.
    set_up(run_args, run_args.logging_dir or folder.path / "runs")
    task = {
        "task_mode": data_args.task_mode,
        "separator": text_format.separator,
        "source_prefix": text_format.source_prefix,
        **({"spaces": "no"} if data_args.spaces == "no" else {}),
        **({"chat": True} if any(record.chat for record in records[0]) else {}),
    }
    arrange = collate_infix if tuning.reads_source else collate
    options: TrainerOptions = {
        "args": run_args,
        "data_collator": partial(arrange, pad_id=pad_id),
        "train_dataset": train_set,
        "eval_dataset": eval_set,
        "length_groups": run_args.length_groups == "yes",
        "rounding": _rounding(run_args, max_tokens),
        "label_smoothing": run_args.label_smoothing,
    }
    return Setting(model, name, tokenizer, task, options)


def _base(model_args: ModelArguments) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, int]:
    """The base model, its tokenizer, and how many word embeddings it comes with."""
    name = model_args.model_name_or_path
    print(f"loading {name} ...", flush=True)
    tokenizer = tokenizer_for(name, model_args.tokenizer_name, model_args.cache_dir)
    model = load_causal_lm(name, model_args.dtype, model_args.cache_dir)
    check_rows(name, model.config, token_ids(tokenizer, ("bos", "eos")))
    if model_args.activation == "fused":
        fuse_activations(model)
    embeddings: Any = model.get_input_embeddings()
    return tokenizer, model, embeddings.num_embeddings


def _read(data_args: DataArguments) -> tuple[list[Record], list[Record] | None]:
    """The records to train on and those of the evaluation loss, subsets where asked for."""
    read = partial(
        read_records,
        data_args.task_mode,
        skip_empty=data_args.empty_sources == "skip",
        columns=data_args.columns,
    )
    eval_records = None
    assert data_args.train_data_file is not None
    train_records = read(data_args.train_data_file, training=True)
    if data_args.eval_data_file:
        eval_records = read(data_args.eval_data_file, training=True, split="valid")
    elif data_args.eval_fraction:
        fraction, seed = data_args.eval_fraction, data_args.sample_seed
        train_records, eval_records = hold_out(train_records, fraction, seed)
        print(f"{len(eval_records)} inputs are held out to evaluate on (--eval_fraction)")
    if data_args.test_data_file and data_args.generate == "yes":
        # Read now, for a mistake in it would otherwise show after hours of training.
        read(data_args.test_data_file, training=False, split="test")
    size, seed = data_args.train_size, data_args.sample_seed
    if size:
        train_records = sample_pairs(train_records, size, seed)
        if eval_records:
            eval_records = sample_pairs(eval_records, development_size(size), seed)
    return train_records, eval_records


def _rounding(run_args: RunArguments, max_tokens: int | None) -> Rounding:
    """Few shapes for a GPU, where each costs time when it is met first; exact ones for a CPU."""
    width = run_args.pad_multiple or (16 if run_args.device.type == "cuda" else 1)
    return Rounding(width, max_tokens, targets=64 if width > 1 else 1)


def _note_learning_rate(rate: float, model: PreTrainedModel, request: TrainRequest) -> None:
    """Say so where a prefix of another model than GPT-2 medium or large gets their rate."""
    config = model.config
    is_gpt2 = config.model_type == "gpt2" and config.num_hidden_layers >= 24
    if isinstance(request.tuning, WithPrefix) and rate <= 1e-4 and not is_gpt2:
        print(
            f"note: --learning_rate {rate:g} was chosen for GPT-2 medium on 42,000 pairs; other "
            "models and little data learn faster with 1e-3",
            flush=True,
        )


def _room(model: PreTrainedModel, n_slot: int) -> int | None:
    """Tokens that fit into the model's positions beside the prefix; None without a limit."""
    free = room(model.config, n_slot)
    if free is not None and free < 1:
        raise UserError(
            f"a prefix of {n_slot} slots leaves no room for text in the {free + n_slot} positions "
            "of the model: lower --preseqlen, or shorten the text it starts from"
        )
    return free


def _add_padding(
    model_args: ModelArguments,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> int:
    """Give model and tokenizer a [PAD] row if they are to have one; return the padding id."""
    is_gpt2 = model.config.model_type == "gpt2"
    if model_args.pad_row == "no" or (model_args.pad_row == "auto" and not is_gpt2):
        pad_id = tokenizer.pad_token_id
        return tokenizer.eos_token_id if pad_id is None else pad_id
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    add_pad_row(model, tokenizer.pad_token_id, seed)
    return tokenizer.pad_token_id


def _costs(trainer: TableToTextTrainer, result: TrainOutput, before: int) -> dict[str, Any]:
    """What training took; time and memory are those of this process, from step ``before`` on."""
    return {
        "trained_parameters": report.n_parameters(
            cast(nn.Module, trainer.model), trainable_only=True
        ),
        "steps": result.global_step - before,
        "seconds": result.metrics["train_runtime"],
        "peak_bytes": report.peak_memory(),
    }


def _final_losses(trainer: TableToTextTrainer, evaluate_train_set: bool) -> dict[str, float]:
    results = {}
    if trainer.eval_dataset is not None:
        logs = (log for log in reversed(trainer.state.log_history) if "eval_loss" in log)
        last = next(logs, {"step": -1})
        fresh = last["step"] == trainer.state.global_step
        results["eval_loss"] = (last if fresh else trainer.evaluate())["eval_loss"]
    if evaluate_train_set:
        # The original writes this number as "perplexity".
        # By another name than eval_loss, which would make it the best evaluation.
        losses = trainer.evaluate(trainer.train_dataset, metric_key_prefix="train_set")
        results["train_set_loss"] = losses["train_set_loss"]
    return results


def _finish(trainer: TableToTextTrainer, output_dir: Path, losses: dict[str, float]) -> None:
    """Final losses, the log and its picture."""
    lines = "".join(f"{name} = {value}\n" for name, value in losses.items())
    (output_dir / "eval_results_lm.txt").write_text(lines, encoding="utf-8")
    print(lines, end="")
    report.draw_loss(trainer.state.log_history, output_dir / "loss.png")
    write_json(output_dir / "log_history.json", trainer.state.log_history)
