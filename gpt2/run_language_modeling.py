"""Train a prefix, or a baseline (``gpt2/baselines.py``), to write texts.

``train_e2e.py`` builds the command line of this script; it can also be called directly. A run
folder ends up with the trained prefix as a checkpoint (``model.safetensors``, ``config.json``), its
export (``export/``), the best evaluation (``<run>-checkpoint-<step>/``), ``train_results.json``
(time, memory, trained parameters), ``log_history.json``, ``eval_results_lm.txt`` and ``loss.png``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging as library_logging

from gpt2 import prefix_flags, run_folder
from gpt2.arguments import Arguments, DataArguments, ModelArguments, RunArguments, parse
from gpt2.baselines import BOTH, PREPARE, WITH_PREFIX, saver, set_residual_dropout
from gpt2.data import Format, TableToTextDataset, collate, collate_infix
from gpt2.distillation import Trainer_Distill, load_teacher
from gpt2.records import Record, development_size, sample_pairs
from gpt2.tasks import TASKS, read_records
from gpt2.train_control import add_pad_row
from gpt2.trainer_prefix import (
    TableToTextTrainer,
    Trainer_Both,
    Trainer_Prefix,
    best_checkpoints,
)
from harness import report
from harness.models import load_causal_lm, load_tokenizer
from prefix_tuning import checkpoint, fingerprint
from prefix_tuning.attention import enable_prefix
from prefix_tuning.errors import UserError, run_command
from prefix_tuning.files import read_json_object, write_json


def main(argv: Sequence[str] | None = None) -> None:
    """Train as ``argv`` says, then evaluate and decode."""
    library_logging.set_verbosity_error()
    arguments = parse(argv)
    _, data_args, run_args = arguments
    output_dir = Path(run_args.output_dir)
    resume_from = run_folder.prepare(arguments, output_dir)
    if (output_dir / "log_history.json").is_file() and not run_args.overwrite_output_dir:
        print(f"{output_dir} is trained already; to train it again {run_folder.AGAIN}")
    else:
        _train(arguments, output_dir, resume_from)
    if data_args.generate == "yes":
        _generate(arguments, output_dir)


def _train(arguments: Arguments, output_dir: Path, resume_from: Path | None) -> None:
    model_args, data_args, run_args = arguments
    set_seed(run_args.seed)
    train_records, eval_records = _read(data_args)
    name = model_args.model_name_or_path
    print(f"loading {name} ...", flush=True)
    tokenizer = load_tokenizer(model_args.tokenizer_name or name, model_args.cache_dir)
    model = load_causal_lm(name, model_args.dtype, model_args.cache_dir)
    layout = TASKS[data_args.task_mode].layout
    text_format = Format(tokenizer, data_args.separator, layout, data_args.source_prefix)
    pad_id = _pad(model_args, model, tokenizer, run_args.seed)

    limit = getattr(model.config, "max_position_embeddings", None)
    has_prefix = model_args.tuning_mode in WITH_PREFIX
    if limit is not None and has_prefix:
        length, n_position = prefix_flags.length(model_args, tokenizer), limit
        limit -= length
        if limit < 1:
            raise UserError(
                f"a prefix of {length} slots leaves no room for text in the {n_position} positions "
                "of the model: lower --preseqlen, or shorten the text it starts from"
            )
    make = partial(TableToTextDataset, text_format=text_format, max_tokens=limit)
    train_set = make(train_records)
    eval_set = make(eval_records, training=False) if eval_records else None
    print(f"{len(train_set):,} training pairs from {data_args.train_data_file}")

    is_infix = has_prefix and prefix_flags.reads_source(model_args)
    _configure(run_args, output_dir, has_eval=eval_set is not None)
    common = {
        "args": run_args,
        "data_collator": partial(collate_infix if is_infix else collate, pad_id=pad_id),
        "train_dataset": train_set,
        "eval_dataset": eval_set,
        "length_groups": run_args.length_groups == "yes",
    }
    build = _prefix_trainer if has_prefix else _baseline_trainer
    trainer, save = build(arguments, model, tokenizer, text_format, common)

    if resume_from:
        print(f"going on from {resume_from}")
    else:
        if has_prefix:
            prefix_flags.start(model_args, trainer.prefix, model, tokenizer)
        run_folder.start(output_dir, run_folder.settings_of(arguments))
    sized = (model, trainer.prefix) if has_prefix else (trainer.model, None)
    report.sizes(*sized).write(output_dir)
    before = _step_of(resume_from)
    result = trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    save(output_dir)
    write_json(output_dir / "train_results.json", _costs(trainer, result, before))
    _finish(trainer, output_dir, run_args.evaluate_train_set == "yes")


def _read(data_args: DataArguments) -> tuple[list[Record], list[Record] | None]:
    """The records to train on and those of the evaluation loss, subsets where asked for."""
    mode, eval_records = data_args.task_mode, None
    assert data_args.train_data_file is not None
    train_records = read_records(mode, data_args.train_data_file, training=True)
    if data_args.eval_data_file:
        eval_records = read_records(mode, data_args.eval_data_file, training=True)
    if data_args.test_data_file and data_args.generate == "yes":
        # Read now, for a mistake in it would otherwise show after hours of training.
        read_records(mode, data_args.test_data_file, training=False)
    size, seed = data_args.train_size, data_args.sample_seed
    if size:
        train_records = sample_pairs(train_records, size, seed)
        if eval_records:
            eval_records = sample_pairs(eval_records, development_size(size), seed)
    return train_records, eval_records


def _pad(
    model_args: ModelArguments,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> int:
    """The padding id, after giving the model a [PAD] row if it is to have one."""
    is_gpt2 = model.config.model_type == "gpt2"
    if model_args.pad_row == "no" or (model_args.pad_row == "auto" and not is_gpt2):
        pad_id = tokenizer.pad_token_id
        return tokenizer.eos_token_id if pad_id is None else pad_id
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    add_pad_row(model, tokenizer.pad_token_id, seed)
    return tokenizer.pad_token_id


def _configure(run_args: RunArguments, output_dir: Path, has_eval: bool) -> None:
    if run_args.evaluate_during_training and has_eval:
        run_args.eval_strategy = "steps"
    if run_args.report_to == ["tensorboard"]:
        os.environ["TENSORBOARD_LOGGING_DIR"] = run_args.logging_dir or str(output_dir / "runs")
    run_args.dataloader_pin_memory = run_args.n_gpu > 0
    if run_args.n_gpu > 1:
        # DataParallel would replicate the prefix without its frozen model.
        print("several GPUs seen: using the first; start with torchrun to use all")
        run_args._n_gpu = 1


def _prefix_trainer(
    arguments: Arguments,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text_format: Format,
    common: dict[str, Any],
) -> tuple[Trainer_Prefix, Callable[[Path], None]]:
    model_args, data_args, _ = arguments
    both = model_args.tuning_mode == "bothtune"
    enable_prefix(PREPARE[model_args.tuning_mode](model, model_args))
    prefix = prefix_flags.build(model_args, model, tokenizer)
    meta = checkpoint.metadata(
        prefix,
        model,
        model_args.model_name_or_path,
        task=_task(data_args, text_format),
    )
    config = {
        **model.config.to_dict(),
        "_my_arg_tune_mode": model_args.tuning_mode,
        "_my_arg_task_mode": data_args.task_mode,
        "_my_arg_control": True,
        "optim_prefix": True,
        "preseqlen": prefix.length,
        "mid_dim": model_args.mid_dim,
        "prefix_dropout": model_args.prefix_dropout,
        "format_mode": model_args.format_mode,
        "use_infix": prefix.reads_source,
    }

    def save(folder: Path) -> None:
        if both:
            trained = {**meta, "base_model": fingerprint.describe(model, f"the {BOTH}/ beside it")}
            saver("finetune", model, tokenizer, {"task": meta["task"]})(folder / BOTH)
            checkpoint.save(folder, prefix, config, trained)
            return
        checkpoint.save(folder, prefix, config, meta)
        if not prefix.reads_source:
            checkpoint.export(folder / "export", prefix, meta, model)

    trainer = _trainer_class(model_args, model)(
        model=prefix,
        model_gpt2=model,
        use_dropout=model_args.use_dropout == "yes",
        save=save,
        **common,
    )
    print("\n".join(report.parameter_lines(model, prefix)), flush=True)
    if prefix.reads_source:
        print("an infix depends on the source, so nothing is exported: the checkpoint serves")
    return trainer, save


def _trainer_class(
    model_args: ModelArguments, model: PreTrainedModel
) -> Callable[..., Trainer_Prefix]:
    if model_args.tuning_mode == "bothtune":
        return partial(Trainer_Both, model_folder=BOTH)
    if model_args.distill == "no":
        return Trainer_Prefix
    assert model_args.finetuned_model_path is not None
    return partial(
        Trainer_Distill,
        teacher=load_teacher(model_args.finetuned_model_path, model),
        matching_objective=model_args.matching_objective,
        positions=model_args.distill_positions,
    )


def _baseline_trainer(
    arguments: Arguments,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text_format: Format,
    common: dict[str, Any],
) -> tuple[TableToTextTrainer, Callable[[Path], None]]:
    model_args, data_args, _ = arguments
    about = {
        "tuning_mode": model_args.tuning_mode,
        # Before the model is changed, as it will be found again.
        "base_model": fingerprint.describe(model, model_args.model_name_or_path),
        "task": _task(data_args, text_format),
    }
    if model_args.teacher_dropout is not None:
        set_residual_dropout(model, model_args.teacher_dropout)
    tuned = PREPARE[model_args.tuning_mode](model, model_args)
    print("\n".join(report.parameter_lines(tuned, None)), flush=True)
    save = saver(model_args.tuning_mode, tuned, tokenizer, about)
    return TableToTextTrainer(model=tuned, save=save, **common), save


def _task(data_args: DataArguments, text_format: Format) -> dict[str, Any]:
    """What decoding has to know of the strings around source and target."""
    return {
        "task_mode": data_args.task_mode,
        "separator": text_format.separator,
        "source_prefix": text_format.source_prefix,
    }


def _step_of(resume_from: Path | None) -> int:
    if resume_from is None:
        return 0
    return read_json_object(resume_from / "trainer_state.json")["global_step"]


def _costs(trainer: TableToTextTrainer, result: TrainOutput, before: int) -> dict[str, Any]:
    """What training took; time and memory are those of this process, from step ``before`` on."""
    return {
        "trained_parameters": report.n_parameters(trainer.model, trainable_only=True),
        "steps": result.global_step - before,
        "seconds": result.metrics["train_runtime"],
        "peak_bytes": report.peak_memory(),
    }


def _finish(trainer: TableToTextTrainer, output_dir: Path, evaluate_train_set: bool) -> None:
    """Final losses, the log and its picture."""
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
    lines = "".join(f"{name} = {value}\n" for name, value in results.items())
    (output_dir / "eval_results_lm.txt").write_text(lines, encoding="utf-8")
    print(lines, end="")
    report.draw_loss(trainer.state.log_history, output_dir / "loss.png")
    write_json(output_dir / "log_history.json", trainer.state.log_history)


def _generate(arguments: Arguments, output_dir: Path) -> None:
    from gpt2 import gen

    model_args, data_args, _ = arguments
    folders = [output_dir]
    if "earlystop" in output_dir.name:  # the original's word for: the best evaluation as well
        folders += best_checkpoints(output_dir)
    splits = (("valid", data_args.eval_data_file), ("test", data_args.test_data_file))
    for folder, (split, path) in product(folders, splits):
        if path is None:
            continue
        command = [data_args.task_mode, "yes", split, str(folder), "no"]
        command += ["--data_file", path, "--results_dir", data_args.results_dir]
        command += ["--dtype", model_args.dtype]
        if model_args.tuning_mode != "bothtune":  # whose model is in the run
            command += ["--model_name_or_path", model_args.model_name_or_path]
        if data_args.score == "no":
            command.append("--no_score")
        if model_args.cache_dir:
            command += ["--cache_dir", model_args.cache_dir]
        gen.main(command)


if __name__ == "__main__":
    run_command(main)
