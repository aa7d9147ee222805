"""A run of ``finetune.py``: train, or go on, and decode."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from transformers import set_seed
from transformers.utils import logging as library_logging

from harness import report
from harness.folder import AGAIN, RunFolder
from harness.own_data import Columns
from harness.processes import is_first as first_process
from prefix_tuning.errors import Terminated, UserError, lacks_memory
from prefix_tuning.files import write_json, write_lines
from seq2seq import arguments, predict, run_folder
from seq2seq.arguments import Arguments
from seq2seq.callbacks import (
    CheckpointFiles,
    LoggingCallback,
    OurModelCheckPoint,
    Seq2SeqLoggingCallback,
    StopAtMaxSteps,
    StopEarly,
    StopWhenAsked,
)
from seq2seq.data import hold_out, read_split
from seq2seq.files import Record
from seq2seq.lightning_base import BaseTransformer, PrefixTransformer
from seq2seq.modules import MODULES
from seq2seq.processes import check_started, is_lost_process
from seq2seq.progress import ShowProgress
from seq2seq.utils import git_info


def run(args: Arguments) -> None:
    """Train, then decode, as the flags say."""
    library_logging.set_verbosity_error()
    # Workers are forked after the tokenizer has run, which its threads would warn about.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    is_first = True
    if args.do_train:
        check_started(args.devices)
        args = run_folder.as_begun(args)
        folder = run_folder.of(args)
        with folder.held() as state:
            if state.kind == "finished":
                print(f"{args.output_dir} is trained already; {AGAIN}")
                is_first = first_process()
            else:
                is_first = train(args, state.checkpoint, folder).is_global_zero
    if args.do_predict and is_first:
        predict.evaluate(predict.of_run(args) if args.do_train else args)


def train(args: Arguments, resume_from: Path | None, folder: RunFolder) -> pl.Trainer:
    """Train as the flags say, or go on from a checkpoint."""
    records, logger = _records(args), _logger(args)
    set_seed(args.seed)
    module = MODULES[args.task_mode, args.tuning_mode].load(args, records, resume_from is not None)
    return generic_train(module, args, logger, resume_from, folder)


def _records(args: Arguments) -> dict[str, list[Record]]:
    """What is trained on, and what is validated on."""
    columns = Columns(args.source_column, args.target_column)
    skip_empty = args.empty_sources == "skip"
    share = arguments.held_out_share(args)
    records = {
        split: read_split(args.data_dir, split, True, columns, args.dataset_config, skip_empty)
        for split in (("train",) if share else ("train", "val"))
    }
    if share:
        records["train"], records["val"] = hold_out(records["train"], share, args.seed)
    return records


def _keep_held_out(folder: Path, records: Sequence[Record]) -> None:
    rows = ({"source": record.source, "target": record.target} for record in records)
    write_lines(folder / run_folder.HELD_OUT, (json.dumps(r, ensure_ascii=False) for r in rows))


def generic_train(
    model: BaseTransformer,
    args: Arguments,
    logger: Logger | None = None,
    resume_from: Path | None = None,
    run: RunFolder | None = None,
) -> pl.Trainer:
    """Train ``model`` as the flags say, and save it in the folder of the run.

    Args:
        resume_from: checkpoint of a run that was stopped.
        run: the folder, held; that of the flags if not given.

    Raises:
        UserError: the devices asked for are not there, the base model is another one than the run
            was started with, the checkpoint does not fit, or training diverged.
        KeyboardInterrupt, Terminated: the run was stopped by Ctrl-C or SIGTERM.
    """
    run = run_folder.of(args) if run is None else run
    folder, log = run.path, LoggingCallback(args.logging_steps)
    trainer = _trainer(args, [*_callbacks(args), log], logger)
    if trainer.is_global_zero:
        run.check_base(model.base_described)
        if resume_from:
            print(f"going on from {resume_from}")
        else:  # not earlier: what an old run left is not removed for a mistake
            run.create()
        write_json(folder / "git_log.json", git_info())
        counts = [f"{len(model.datasets[split]):,}" for split in ("train", "val")]
        print(f"{counts[0]} training and {counts[1]} validation pairs from {args.data_dir}")
        if arguments.held_out_share(args):
            print("the validation pairs are held out, and not trained on (--eval_fraction)")
            _keep_held_out(folder, model.datasets["val"].records)
        elif Path(args.data_dir).is_file():
            print("note: they are the same pairs; --eval_fraction 0.1 would hold some out")
        prefix = model.model if isinstance(model, PrefixTransformer) else None
        sizes = report.sizes(model.language_model, prefix)
        sizes.write(folder)
        print("\n".join(sizes.lines()), flush=True)
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, OurModelCheckPoint):
            callback.identity = run.identity()
    _fit(trainer, model, resume_from)
    model.check_finite()
    if trainer.is_global_zero:
        model.save(folder)
        report.draw_loss(log.history, folder / "loss.png")
        write_json(folder / run_folder.HISTORY, log.history)
        for path in folder.glob(f"{run_folder.RESUME}*"):
            path.unlink()
    return trainer


def _fit(trainer: pl.Trainer, model: BaseTransformer, resume_from: Path | None) -> None:
    try:
        trainer.fit(model, ckpt_path=resume_from, weights_only=True)
    except SystemExit as stop:  # Lightning's way to end after a signal
        number = model.together.signal or model.together.stop.signal
        raise (Terminated if number == signal.SIGTERM else KeyboardInterrupt) from stop
    except (RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        if trainer.world_size > 1 and is_lost_process(error):
            raise UserError(
                "another process of this run has ended; start the same command again to continue"
            ) from error
        if resume_from is None or model.has_begun or isinstance(error, UserError):
            raise
        if lacks_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{resume_from} does not fit this run or is damaged ({reason}): copy it again; {AGAIN}"
        ) from error


def _callbacks(args: Arguments) -> list[Callback]:
    folder = run_folder.of(args).path
    keep_all, metric = args.save_all_epochs == "yes", args.val_metric or ""
    callbacks = [
        Seq2SeqLoggingCallback(folder),
        StopAtMaxSteps(args.max_steps),
        StopWhenAsked(),
        ShowProgress(),
        OurModelCheckPoint(folder, metric, args.save_steps, keep_all),
    ]
    if args.early_stopping_patience >= 0:
        callbacks.append(StopEarly(metric, max(args.early_stopping_patience, 1)))
    return callbacks


def _trainer(args: Arguments, callbacks: Sequence[Callback], logger: Logger | None) -> pl.Trainer:
    # Hints about devices and workers are not about this project.
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    try:
        return pl.Trainer(
            accelerator=args.accelerator,
            devices=args.devices,
            strategy=args.strategy,
            precision="16-mixed" if args.fp16 else "bf16-mixed" if args.bf16 else "32-true",
            max_epochs=args.num_train_epochs if args.max_steps < 0 else -1,
            accumulate_grad_batches=args.gradient_accumulation_steps,
            gradient_clip_val=args.max_grad_norm or None,
            log_every_n_steps=args.logging_steps,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            logger=logger or False,
            callbacks=list(callbacks),
            plugins=[CheckpointFiles()],
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"--devices {args.devices} --accelerator {args.accelerator} does not work here "
            f"({reason})"
        ) from error


def _logger(args: Arguments) -> Logger | None:
    if args.logger_name == "none":
        return None
    if args.logger_name == "default":
        return TensorBoardLogger(args.output_dir or "", name="runs", version="")
    data = Path(args.data_dir).name
    project = os.environ.get("WANDB_PROJECT", data)
    if args.logger_name == "wandb_shared":
        project = f"hf_{data}"
    try:
        return WandbLogger(name=run_folder.of(args).path.name, project=project)
    except ModuleNotFoundError as error:
        raise UserError(
            f"--logger_name {args.logger_name}: the package wandb is not installed; install it, or "
            "use default or none"
        ) from error
