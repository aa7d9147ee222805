"""Launch a run with the original's flags, run names and folders.

Builds the command line of ``run_language_modeling.py``, writes it to ``<folder>/<run>.sh`` so that
it can be repeated, and runs it in this process. Flags unknown here are passed on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpt2 import many
from gpt2.arguments import TRAINER
from gpt2.launch_flags import Launch, LaunchFlags, held_out, read
from gpt2.tasks import TASKS
from gpt2.train_request import TrainRequest, parse
from gpt2.tuning import TuningMode
from gpt2.tuning.prefix import WithPrefix
from harness import flags
from harness.launch import launch as show_and_run
from harness.only import without_steps
from prefix_tuning.errors import UserError, run_command

SUBSET_FOLDERS = {
    "lowdata": "e2e_lowdata_models_prefixtune",
    "datalevels": "e2e_datalevels_models",
}
"""The original's folders of runs on subsets."""
SCRIPT = Path(__file__).with_name("run_language_modeling.py")
HELP = f"""\
Train a prefix, or a baseline, with the original's run names and folders.

    python gpt2/train_e2e.py --train_file pairs.csv --model_name_or_path gpt2
    python gpt2/train_e2e.py --mode data2text --tuning_mode prefixtune --preseqlen 5

{TRAINER}"""


def _subset_note(args: LaunchFlags) -> str:
    """What a run on a subset says in its name; the original glues it to what stands before."""
    if not args.subset:
        return ""
    plan = args.schedule
    if args.train_size:
        return f"_n={args.train_size}_ss={args.sample_seed}_t={args.lowdata_token}"
    note = f"ev={plan['eval_steps']}_ws={plan['warmup_steps']}_t={args.lowdata_token}"
    if "lowdata" in (args.notes or ""):
        return f"st={plan['max_steps']}_{note}"
    return f"{note}_u={args.use_lowdata_token}"


def flag_length(launch: Launch) -> int:
    """The prefix length; 0 means as many slots as the text has tokens."""
    if launch.args.preseqlen is None:
        return 0 if launch.prefix.init == "text" else 10
    return launch.args.preseqlen


def folder_name(launch: Launch) -> str:
    """The original's folder for runs of this kind."""
    if launch.args.mode == "data2text":
        for word, folder in SUBSET_FOLDERS.items():
            if word in (launch.args.notes or ""):
                return folder
        if launch.prefix.format_mode == "infix":
            return "ablation_e2e_infix_models"
        if launch.prefix.prefix_mode == "embedding":
            return "ablation_e2e_emb_models"
    return TASKS[launch.args.mode].runs


def run_name(launch: Launch) -> str:
    """The original's name of a run. It does say ``o=`` twice."""
    args, prefix = launch.args, launch.prefix
    notes = [note for note in (args.notes, launch.tuning.note()) if note]
    if prefix.prefix_mode == "embedding":
        notes.append(f"p={prefix.parametrize_emb}" if notes else prefix.parametrize_emb)
    words = "_".join(notes) + _subset_note(args)
    notes = [words.removeprefix("_")] if words else []
    if prefix.init_shallow == "yes":
        notes.append(f"s=yes_w={'no' if prefix.init else prefix.init_shallow_word}")
    own = {"deep": prefix.deep == "yes"}
    own |= {"init": bool(prefix.init), "parametrization": bool(prefix.parametrization)}
    own["prefix_options"] = bool(prefix.prefix_options)
    notes += [f"{name}={getattr(prefix, name)}" for name, given in own.items() if given]
    notes.append(f"o={prefix.objective_mode}")
    if prefix.distill == "yes":
        notes.append(f"distill_o={prefix.matching_objective}")
    notes.append(f"o={prefix.objective_mode}")
    return (
        f"{args.mode}{args.tuning_mode}_{prefix.optim_prefix[:1]}_{flag_length(launch)}"
        f"_{prefix.prefix_mode[:3]}_{prefix.format_mode[:3]}"
        f"_b={args.bsz * args.gradient_accumulation_steps}-e={args.epoch}_d={args.dropout}"
        f"_u={prefix.use_dropout}_lr={args.learning_rate}_w={args.weight_decay}_s={args.seed}"
        f"_r={prefix.init_random[:1]}_m={prefix.mid_dim}_{'_'.join(notes)}"
    )


def options_of(launch: Launch) -> TuningMode:
    """The options of the tuning mode, completed by the launcher's own flags."""
    args, tuning = launch.args, launch.tuning
    if not isinstance(tuning, WithPrefix):
        return tuning
    from_word = tuning.init_shallow == "yes" and tuning.init is None
    tuning = replace(
        tuning,
        preseqlen=flag_length(launch),
        init_shallow_word=tuning.init_shallow_word if from_word else "no",
        prefix_dropout=tuning.prefix_dropout or args.dropout,
    )
    if not args.subset or args.use_lowdata_token == "no":
        return tuning
    return _from_word(tuning, args.lowdata_token)


def _from_word(tuning: WithPrefix, word: str) -> WithPrefix:
    """A prefix of a low-data run starts from its word, unless the flags say what it starts from,
    and has as many slots as the word has tokens."""
    if tuning.init or tuning.init_shallow == "yes":
        return tuning
    if not tuning.can_start:
        raise UserError(
            f"--lowdata_token {word}: a prefix of the variant {tuning.variant} cannot start from a "
            "word; add --use_lowdata_token no"
        )
    return replace(tuning, init="text", init_text=word, preseqlen=0)


def values_of(launch: Launch, output_dir: Path) -> dict[str, object]:
    """The flags of ``run_language_modeling.py`` and their values; None is not given."""
    args, chosen = launch.args, launch.args.subset
    # A file of one's own is not evaluated on the files of another data set.
    files = {} if args.train_file else TASKS[args.mode].files
    base = "gpt2-large" if "large" in (args.notes or "") else "gpt2-medium"
    tuning = options_of(launch)
    values: dict[str, object] = {
        "output_dir": output_dir,
        "model_name_or_path": args.model_name_or_path or base,
        "task_mode": args.mode,
        "tuning_mode": args.tuning_mode,
        "train_data_file": args.train_file or files["train"],
        "eval_data_file": args.eval_file or files.get("valid"),
        "test_data_file": args.test_file or files.get("test"),
        "eval_fraction": held_out(args),
        "sample_seed": args.sample_seed or None,
        "source_column": args.source_column,
        "target_column": args.target_column,
        "per_device_train_batch_size": args.bsz,
        "per_device_eval_batch_size": 32 if chosen else args.bsz,
        "num_train_epochs": args.epoch,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "learning_rate": args.learning_rate,
        "weight_decay": args.weight_decay,
        "seed": args.seed,
        "logging_dir": output_dir.parent / "runs" / output_dir.name,
        "cache_dir": args.cache_dir,
        **args.schedule,
        **(launch.recipe.trainer(output_dir) if launch.recipe else {}),
        "train_embs": "no",  # in every mode, as the original
        **tuning.flags(),
    }
    if chosen:
        values["train_size"], values["sample_seed"] = chosen
        if args.tuning_mode == "finetune" and args.use_lowdata_token == "yes":
            values["source_prefix"] = args.lowdata_token
    is_mixed = "--bf16" in launch.named or "--fp16" in launch.named
    if launch.recipe and args.tuning_mode == "prefixtune" and not is_mixed:
        values["dtype"] = "auto"
    evaluates = bool(values["eval_data_file"] or values["eval_fraction"])
    evaluates &= launch.named.get("--eval_strategy") != "no"
    values["evaluate_during_training"] = evaluates
    if not evaluates and "--eval_steps" not in launch.named:
        values["eval_steps"] = None
    if args.resume == "yes":
        values["resume_from_checkpoint"] = "auto"
    else:
        values["overwrite_output_dir"] = True
    values = without_steps(values, launch.named)
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items() if v is not None}


def command_of(launch: Launch, output_dir: Path) -> list[str]:
    """The arguments of ``run_language_modeling.py``."""
    return flags.command(values_of(launch, output_dir))


def output_dir_of(launch: Launch) -> Path:
    """The folder of the run."""
    args = launch.args
    if launch.recipe and args.train_file and not (args.output_dir or args.dir_name):
        return Path("trained") / Path(args.train_file).stem
    folder = Path(args.dir_name or folder_name(launch))
    return Path(args.output_dir or folder / run_name(launch))


def main(argv: Sequence[str] | None = None) -> None:
    """Launch what ``argv`` describes: a run, or several."""
    argv = sys.argv[1:] if argv is None else argv
    launch, rest = read(argv, description=HELP)
    more = many.variants(launch.args, argv)
    if more:
        start_all([read([*argv, *flags]) for flags in more])
    else:
        start(launch, rest)


def start_all(runs: Sequence[tuple[Launch, Sequence[str]]]) -> None:
    """Launch several runs, each as :func:`start` does, in this process."""
    folders = [output_dir_of(launch) for launch, _ in runs]
    for (launch, rest), folder in zip(runs, folders, strict=True):
        parse(rest, values_of(launch, folder))  # a wrong flag ends here, before anything is written
    many.check_apart(folders)
    requests: list[TrainRequest] = []
    for launch, rest in runs:
        start(launch, rest, requests.append)
    many.run(requests)


def start(
    launch: Launch,
    rest: Sequence[str] = (),
    run: Callable[[TrainRequest], object] | None = None,
) -> None:
    """Launch a run.

    Args:
        rest: further arguments of ``run_language_modeling.py``.
        run: what is done with it, instead of training.
    """
    from gpt2 import run_language_modeling

    output_dir = output_dir_of(launch)
    show_and_run(
        SCRIPT,
        [*command_of(launch, output_dir), *rest],
        output_dir,
        check=lambda: parse(rest, values_of(launch, output_dir)),
        run=run or run_language_modeling.run,
        submit=launch.args.submit,
    )


if __name__ == "__main__":
    run_command(main)
