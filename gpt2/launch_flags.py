"""The flags of ``train_e2e.py``, with the original's names and defaults."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gpt2.arguments import DataArguments, ModelArguments, choose, mode_classes
from gpt2.tasks import TASKS, is_own, read_records
from gpt2.tuning import TUNING, TuningMode
from gpt2.tuning.finetune import FineTune
from gpt2.tuning.prefix import PrefixTune
from harness import recipe
from harness.flags import HIDDEN, Parser, command, flag, like, yes_no
from harness.launch import subset_note
from harness.only import Only, check_only, next_words
from harness.own_data import Columns
from harness.own_files import is_hub_name
from harness.ranges import FRACTION
from prefix_tuning.errors import UserError

DEFAULTS = {
    "optim_prefix": "yes",
    "objective_mode": 1,
    "init_shallow_word": "summarize",
    "top_layers": 1,
    "adapter_design": 1,
}
"""Where the original's launcher has other defaults than its trainer."""


@dataclass(frozen=True)
class LaunchFlags:
    """What is launched."""

    mode: str = flag("data2text", f"task: {', '.join(TASKS)}")
    tuning_mode: str = like(ModelArguments, "tuning_mode", "prefixtune")
    preseqlen: int | None = flag(
        None, "prefix length P (default: 10; with --init text: as many slots as tokens)"
    )
    notes: str | None = flag(
        None,
        "appended to the run name; 'large' in it selects gpt2-large, lowdata_SEED_SIZE or "
        "datalevels_SEED_PERCENT a random subset",
    )
    seed: int = flag(101, "random seed")
    seeds: str | None = flag(None, "a run of each of several seeds, as 101,22,9")
    sweep: str | None = flag(
        None, "a run of each of several values of another flag, as preseqlen=1,5,10,20"
    )
    bsz: int = flag(10, "batch size")
    epoch: int = flag(5, "number of epochs")
    max_steps: int | None = flag(None, "steps instead of epochs (of a number of pairs: 400)")
    eval_steps: int | None = flag(None, "steps between evaluations (5000; of a subset: 50)")
    warmup_steps: int | None = flag(None, "steps of linear warm-up (none; of a subset: 100)")
    train_size: str | None = like(DataArguments, "train_size")
    sample_seed: int = like(DataArguments, "sample_seed")
    lowdata_token: str = flag("summarize", "word for training on a subset")
    use_lowdata_token: str = yes_no(
        "yes", "use the word: a prefix starts from it, finetune puts it in front of the source"
    )
    gradient_accumulation_steps: int = flag(1, "batches per update")
    learning_rate: float = flag(5e-5, "peak learning rate")
    weight_decay: float = flag(0.0, "AdamW's weight decay")
    dropout: float = flag(0.0, "dropout on the generated keys and values")
    use_custom_teacher_dropout: str = yes_no(
        "no", "finetune: make --dropout the model's residual dropout"
    )
    cache_dir: str | None = like(ModelArguments, "cache_dir")
    dir_name: str | None = flag(None, "folder of the run's folder, instead of the mode's")
    prefix_model_path: str | None = flag(None, HIDDEN)
    use_big: str = yes_no("no", HIDDEN)
    submit: str = flag("no", "no: run; print (or anything else): only show the command")
    model_name_or_path: str | None = flag(
        None, "base model (default: gpt2-medium, or gpt2-large by --notes)"
    )
    train_file: str | None = flag(None, "training file (default: the mode's, in data/)")
    eval_file: str | None = flag(
        None, "file of the evaluation loss (default: the mode's, in data/)"
    )
    test_file: str | None = flag(
        None, "file decoded after training (default: the mode's, in data/)"
    )
    eval_fraction: float | None = flag(
        None,
        "share of --train_file that is held out if there is no --eval_file (default: 0.1)",
        within=FRACTION,
    )
    source_column: str | None = like(DataArguments, "source_column")
    target_column: str | None = like(DataArguments, "target_column")
    output_dir: str | None = flag(None, "folder of the run (default: <folder>/<run name>)")
    resume: str = yes_no("yes", "go on with an interrupted run; no: train again")

    @property
    def subset(self) -> tuple[str, int] | None:
        """Size and seed of the random subset that is trained on; None for the whole file.

        Raises:
            UserError: the notes say ``lowdata`` or ``datalevels``, but not as the original reads
                them.
        """
        for kind, what, unit in (("lowdata", "size", ""), ("datalevels", "percent", "%")):
            found = subset_note(self.notes, kind, what)
            if found and self.train_size:
                raise UserError(
                    f"--train_size {self.train_size}: --notes {self.notes} says it already"
                )
            if found:
                seed, size = found
                return size + unit, seed
        return (self.train_size, self.sample_seed) if self.train_size else None

    @property
    def schedule(self) -> dict[str, int | None]:
        """The flags of the schedule, with the original's defaults for subsets."""
        defaults = {"max_steps": None, "eval_steps": 5000, "warmup_steps": None}
        if self.subset:
            size, _ = self.subset
            max_steps = None if size.endswith("%") else 400
            defaults = {"max_steps": max_steps, "eval_steps": 50, "warmup_steps": 100}
        given = {name: getattr(self, name) for name in defaults}
        return {name: defaults[name] if value is None else value for name, value in given.items()}

    def check(self) -> None:
        """Refuse by name what cannot be launched."""
        if self.mode not in TASKS:
            raise UserError(f"--mode {self.mode}: only {', '.join(TASKS)} so far")
        if self.prefix_model_path is not None:
            raise UserError(
                f"--prefix_model_path {self.prefix_model_path}: going on from another prefix is "
                "not implemented (the original puts a path of its own in its place)"
            )
        check_only(ONLY, self)


ONLY = {
    "dir_name": Only(
        "without --output_dir",  # which several runs refuse with a sentence of its own
        lambda args: not args.output_dir or args.seeds or args.sweep,
    ),
    "lowdata_token": Only(
        "with a subset: --train_size, or --notes lowdata_SEED_SIZE or datalevels_SEED_PERCENT",
        lambda args: args.subset,
    ),
    "sample_seed": Only(
        "where pairs are drawn, with --train_size or --eval_fraction",
        lambda args: args.train_size or held_out(args),
    ),
    "use_custom_teacher_dropout": Only(
        "with --tuning_mode finetune or finetune-top",
        lambda args: hasattr(TUNING.get(args.tuning_mode), "teacher_dropout"),
        idle=("no",),
    ),
}
"""Flags of the launcher that are read only beside others."""


def held_out(args: LaunchFlags) -> float | None:
    """The share of the training file that is evaluated on; None where there is a file for that."""
    if args.eval_fraction is None and args.train_file and not args.eval_file:
        return 0.1 if is_own(args.mode, args.train_file) or args.mode == "data2text" else None
    return args.eval_fraction


@dataclass(frozen=True)
class Recipe(recipe.Recipe):
    """Defaults by the size of the data."""

    def launcher(self) -> dict[str, object]:
        """Defaults of the launcher's flags."""
        return {
            "bsz": self.batch_size,
            "max_steps": self.steps,
            "eval_steps": max(1, self.steps // 4),
            "warmup_steps": self.warmup_steps,
            "learning_rate": recipe.LEARNING_RATE,
            "objective_mode": 0,
        }

    def trainer(self, output_dir: Path) -> dict[str, object]:
        """Flags of the trainer that the launcher does not have."""
        return {
            "length_groups": "yes",
            "logging_first_step": True,
            "logging_steps": max(1, self.steps // 20),
            "save_steps": max(1, self.steps // 4),
            "results_dir": output_dir,
        }


@dataclass(frozen=True)
class Launch:
    """A command line of the launcher.

    Attributes:
        args: the launcher's own flags.
        tuning: the chosen tuning mode with its options.
        prefix: the flags of a prefix, which stand in the name of every run.
        options: of every tuning mode.
    """

    args: LaunchFlags
    tuning: TuningMode
    prefix: PrefixTune
    options: tuple[TuningMode, ...]
    recipe: Recipe | None = None
    """For one's own data."""
    named: Mapping[str, str] = field(default_factory=dict)
    """What stands behind each word of the command line, the flags of the trainer among them."""


def read(
    argv: Sequence[str] | None,
    given: Mapping[str, Any] | None = None,
    description: str | None = None,
) -> tuple[Launch, list[str]]:
    """What ``argv`` says, and its flags that are unknown here, which are the trainer's.

    Args:
        given: values of flags of both kinds that ``argv`` may replace, by name.

    Raises:
        UserError: it cannot be launched.
    """
    argv, given = sys.argv[1:] if argv is None else argv, given or {}
    classes: tuple[type, ...] = (LaunchFlags, *mode_classes())
    parser = Parser(*classes, description=description, defaults=DEFAULTS, given=given)
    (args, *options), rest = parser.read_known(argv)
    named = next_words([*command(given), *argv])
    args.check()
    recipe, defaults = _recipe(args), DEFAULTS
    if recipe is not None:
        defaults = {**DEFAULTS, **recipe.launcher()}
        (args, *options), rest = Parser(*classes, defaults=defaults, given=given).read_known(argv)
        if "--epoch" in named:
            args = replace(args, max_steps=None)
    if args.use_custom_teacher_dropout == "yes":
        options = [
            replace(mode, teacher_dropout=args.dropout) if isinstance(mode, FineTune) else mode
            for mode in options
        ]
    tuning = choose(args.tuning_mode, options, defaults)
    (prefix,) = (mode for mode in options if type(mode) is PrefixTune)
    return Launch(args, tuning, prefix, tuple(options), recipe, named), rest


def _recipe(args: LaunchFlags) -> Recipe | None:
    """The defaults of a run on all of one's own data; None for other runs."""
    if not args.train_file or not is_own(args.mode, args.train_file):
        return None
    if args.subset:
        return None
    columns = Columns(args.source_column, args.target_column)
    if not is_hub_name(args.train_file) and not Path(args.train_file).exists():
        return None  # whoever trains says that it is not there
    with contextlib.redirect_stdout(io.StringIO()):  # training reads it again, and says what it is
        records = read_records(args.mode, args.train_file, True, True, columns)
    return Recipe(sum(len(record.targets) for record in records), args.max_steps)
