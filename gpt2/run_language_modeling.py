"""Train a prefix (or fine-tune the model) on table-to-text data.

``train_e2e.py`` builds the command line of this script; it can also be called directly. A run
folder ends up with the trained prefix as a checkpoint (``model.safetensors``, ``config.json``), its
export (``export/``), the best evaluation (``<run>-checkpoint-<step>/``), ``log_history.json``,
``eval_results_lm.txt`` and ``loss.png``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.utils import logging as library_logging

from gpt2.arguments import Arguments, ModelArguments, RunArguments, parse
from gpt2.data import Format, TableToTextDataset, collate, read_records
from gpt2.train_control import PrefixTuning, add_pad_row
from gpt2.trainer_prefix import (
    TableToTextTrainer,
    Trainer_Prefix,
    best_checkpoints,
)
from prefix_tuning import checkpoint, report
from prefix_tuning.attention import enable_prefix
from prefix_tuning.base_model import load_causal_lm, load_tokenizer
from prefix_tuning.checkpoint import write_json
from prefix_tuning.errors import UserError, run_command

AGAIN = "add --overwrite_output_dir (to train_e2e.py: --resume no)"
SETTINGS = "run_settings.json"
"""What must not change when a run is resumed."""


def main(argv: Sequence[str] | None = None) -> None:
    """Train as ``argv`` says, then evaluate and decode."""
    library_logging.set_verbosity_error()
    arguments = parse(argv)
    _, data_args, run_args = arguments
    output_dir = Path(run_args.output_dir)
    resume_from = _prepare_run(arguments, output_dir)
    if (output_dir / "log_history.json").is_file() and not run_args.overwrite_output_dir:
        print(f"{output_dir} is trained already; to train it again {AGAIN}")
    else:
        _train(arguments, output_dir, resume_from)
    if data_args.generate == "yes":
        _generate(arguments, output_dir)


def _prepare_run(arguments: Arguments, output_dir: Path) -> Path | None:
    """Decide whether the run starts or goes on; return the checkpoint to go on from."""
    run_args = arguments[2]
    settings, path = _settings(arguments), output_dir / SETTINGS
    asked = run_args.resume_from_checkpoint
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output_dir {output_dir} is a file: name a folder")
    if run_args.overwrite_output_dir and asked:
        raise UserError("--overwrite_output_dir and --resume_from_checkpoint exclude each other")
    if run_args.overwrite_output_dir or not path.exists():
        if output_dir.is_dir() and any(output_dir.iterdir()) and not run_args.overwrite_output_dir:
            raise UserError(
                f"--output_dir {output_dir} is not empty and holds no run of this project: name "
                f"another folder, or {AGAIN}"
            )
        return None
    if not asked:
        raise UserError(
            f"--output_dir {output_dir} holds a run: add --resume_from_checkpoint auto to go on "
            f"with it; to train it again {AGAIN}"
        )
    before = checkpoint.read_json(path)
    for name, value in settings.items():
        if before.get(name) != value:
            raise UserError(
                f"{output_dir} was started with --{name} {before.get(name)}, now it is {value}: "
                f"use the old value; to train it again {AGAIN}"
            )
    if asked == "auto":
        return checkpoint.last_complete_checkpoint(output_dir)
    if not Path(asked, "trainer_state.json").is_file():
        raise UserError(f"--resume_from_checkpoint {asked} holds no complete checkpoint")
    return Path(asked)


def _start_run(output_dir: Path, settings: dict[str, Any]) -> None:
    """Make the folder, without what a new run would take for its own: an old one's checkpoints."""
    output_dir.mkdir(parents=True, exist_ok=True)
    for name in ("log_history.json", "loss.png"):
        (output_dir / name).unlink(missing_ok=True)
    for folder in [*output_dir.glob("checkpoint-*"), *best_checkpoints(output_dir)]:
        shutil.rmtree(folder)
    write_json(output_dir / SETTINGS, settings)


def _settings(arguments: Arguments) -> dict[str, Any]:
    model_args, data_args, run_args = arguments
    of_run = (
        "per_device_train_batch_size gradient_accumulation_steps learning_rate weight_decay "
        "num_train_epochs max_steps warmup_steps max_grad_norm lr_scheduler_type seed length_groups"
    )
    settings = {name: getattr(run_args, name) for name in of_run.split()}
    settings["lr_scheduler_type"] = str(run_args.lr_scheduler_type)
    ignored = {"cache_dir", "init_random"}
    settings |= {k: v for k, v in vars(model_args).items() if k not in ignored}
    return settings | {
        "train_data_file": data_args.train_data_file,
        "task_mode": data_args.task_mode,
        "separator": data_args.separator,
    }


def _train(arguments: Arguments, output_dir: Path, resume_from: Path | None) -> None:
    model_args, data_args, run_args = arguments
    set_seed(run_args.seed)
    assert data_args.train_data_file is not None
    train_records = read_records(data_args.task_mode, data_args.train_data_file, training=True)
    eval_records = None
    if data_args.eval_data_file:
        eval_records = read_records(data_args.task_mode, data_args.eval_data_file, training=True)

    name = model_args.model_name_or_path
    print(f"loading {name} ...", flush=True)
    tokenizer = load_tokenizer(model_args.tokenizer_name or name, model_args.cache_dir)
    model = load_causal_lm(name, model_args.dtype, model_args.cache_dir)
    text_format = Format(tokenizer, data_args.separator)
    pad_id = _pad(model_args, model, tokenizer, run_args.seed)

    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and model_args.tuning_mode == "prefixtune":
        limit -= model_args.preseqlen
    make = partial(TableToTextDataset, text_format=text_format, max_tokens=limit)
    train_set = make(train_records)
    eval_set = make(eval_records) if eval_records else None
    print(f"{len(train_set):,} training pairs from {data_args.train_data_file}")

    _configure(run_args, output_dir, has_eval=eval_set is not None)
    common = {
        "args": run_args,
        "data_collator": partial(collate, pad_id=pad_id),
        "train_dataset": train_set,
        "eval_dataset": eval_set,
        "length_groups": run_args.length_groups == "yes",
    }
    if model_args.tuning_mode == "prefixtune":
        trainer, save = _prefix_trainer(arguments, model, tokenizer, text_format, common)
    else:
        save = partial(_save_finetuned, model, tokenizer)
        trainer = TableToTextTrainer(model=model, save=save, **common)
        print("\n".join(report.parameter_lines(model, None)))

    if resume_from:
        print(f"going on from {resume_from}")
    else:
        _start_run(output_dir, _settings(arguments))
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    save(output_dir)
    _finish(trainer, output_dir, run_args.evaluate_train_set == "yes")


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
    model.requires_grad_(False)
    enable_prefix(model)
    prefix = PrefixTuning(
        model.config,
        preseqlen=model_args.preseqlen,
        mid_dim=model_args.mid_dim,
        prefix_dropout=model_args.prefix_dropout,
        objective_mode=model_args.objective_mode,
        end_id=tokenizer.eos_token_id,
    )
    meta = checkpoint.metadata(
        prefix,
        model,
        model_args.model_name_or_path,
        task={"task_mode": data_args.task_mode, "separator": text_format.separator},
    )
    config = {
        **model.config.to_dict(),
        "_my_arg_tune_mode": model_args.tuning_mode,
        "_my_arg_task_mode": data_args.task_mode,
        "_my_arg_control": True,
        "optim_prefix": True,
        "preseqlen": model_args.preseqlen,
        "mid_dim": model_args.mid_dim,
        "prefix_dropout": model_args.prefix_dropout,
        "format_mode": model_args.format_mode,
        "use_infix": False,
    }

    def save(folder: Path) -> None:
        checkpoint.save(folder, prefix, config, meta)
        checkpoint.export(folder / "export", prefix, meta)

    trainer = Trainer_Prefix(
        model=prefix,
        model_gpt2=model,
        use_dropout=model_args.use_dropout == "yes",
        save=save,
        **common,
    )
    print("\n".join(report.parameter_lines(model, prefix)), flush=True)
    return trainer, save


def _save_finetuned(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


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
        results["train_set_loss"] = trainer.evaluate(trainer.train_dataset)["eval_loss"]
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
        command += ["--model_name_or_path", model_args.model_name_or_path]
        command += ["--dtype", model_args.dtype]
        if data_args.score == "no":
            command.append("--no_score")
        if model_args.cache_dir:
            command += ["--cache_dir", model_args.cache_dir]
        gen.main(command)


if __name__ == "__main__":
    run_command(main)
