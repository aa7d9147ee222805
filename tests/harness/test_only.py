"""Flags that nothing reads are refused: every row of every table, where it is read and not."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gpt2 import arguments, run_arguments, train_e2e
from gpt2.launch_flags import ONLY as GPT2_LAUNCHED
from gpt2.launch_flags import read
from gpt2.train_request import TrainRequest, parse
from gpt2.tuning import TUNING
from harness import trainer_flags
from harness.only import Only, next_words, without_steps
from prefix_tuning.errors import UserError
from ptuning_v2 import identity
from ptuning_v2.arguments import Arguments, get_args
from ptuning_v2.only import ONLY as PTUNING
from ptuning_v2.training.arguments import ONLY as PTUNING_TRAINER
from seq2seq import arguments as seq2seq_arguments
from seq2seq import run_folder, train_bart
from seq2seq.only import LAUNCHED as SEQ2SEQ_LAUNCHED
from seq2seq.only import ONLY as SEQ2SEQ

Command = Callable[[list[str]], object]


def gpt2(argv: list[str]) -> object:
    plain = "--train_data_file t --eval_data_file v --output_dir o --optim_prefix yes --preseqlen 3"
    return parse([*plain.split(), "--use_cpu", "--report_to", "none", *argv])


def launch_gpt2(argv: list[str]) -> object:
    return read(argv)


def ptuning(argv: list[str]) -> object:
    plain = "--model_name_or_path m --output_dir o --do_eval --use_cpu"
    task = [] if "--task_name" in argv else ["--task_name", "glue"]
    name = [] if "--dataset_name" in argv else ["--dataset_name", "rte"]
    return get_args([*plain.split(), *task, *name, *argv])


def seq2seq(argv: list[str]) -> object:
    plain = "--do_train --model_name_or_path m --output_dir o --data_dir d"
    return seq2seq_arguments.parse([*plain.split(), *argv])


def launch_seq2seq(argv: list[str]) -> object:
    return train_bart.read(["--mode", "xsum", *argv])


PREFIX = "--tuning_mode prefixtune"
STEPS = "--{0}_strategy steps --{0}_steps 7", "--{0}_strategy epoch --{0}_steps 7"
EVAL, SAVE, LOGGING = (
    [text.format(name) for text in STEPS] for name in ("eval", "save", "logging")
)
WARMUP = (
    "--lr_scheduler_type linear --warmup_steps 7",
    "--lr_scheduler_type constant --warmup_steps 7",
)
OPTIONS = "--lr_scheduler_type {} --lr_scheduler_kwargs '{{\"min_lr\":1e-6}}'"
OPTIONS_OF = (OPTIONS.format("cosine_with_min_lr"), OPTIONS.format("constant"))


def adam(name: str) -> tuple[str, str]:
    return f"--{name} 0.5", f"--optim sgd --{name} 0.5"


TRAINER: dict[str, tuple[str, str]] = {
    "eval_steps": (EVAL[0], EVAL[1]),
    "save_steps": (SAVE[0], SAVE[1]),
    "logging_steps": (LOGGING[0], LOGGING[1]),
    "eval_delay": ("--eval_strategy epoch --eval_delay 1", "--eval_delay 1"),
    "save_total_limit": (
        "--save_strategy steps --save_total_limit 3",
        "--save_strategy no --save_total_limit 3",
    ),
    "warmup_steps": WARMUP,
    "lr_scheduler_kwargs": OPTIONS_OF,
    **{name: adam(name) for name in ("adam_beta1", "adam_beta2", "adam_epsilon")},
    "dataloader_persistent_workers": (
        "--dataloader_num_workers 1 --dataloader_persistent_workers",
        "--dataloader_persistent_workers",
    ),
    "project": ("", "--project p"),  # trackio and wandb are not installed
    **{f"trackio_{x}_id": ("", f"--trackio_{x}_id i") for x in ("space", "bucket", "static_space")},
    "run_name": ("", "--run_name n"),
}
"""Flag -> a command that reads it, one that does not."""

TABLES: dict[str, tuple[Command, Mapping[str, Only], dict[str, tuple[str, str]]]] = {
    "gpt2 trainer": (gpt2, {**trainer_flags.ONLY, **run_arguments.ONLY}, TRAINER),
    "ptuning trainer": (ptuning, trainer_flags.ONLY, TRAINER),
    "gpt2 data": (
        gpt2,
        arguments.ONLY,
        {"sample_seed": ("--train_size 9 --sample_seed 3", "--sample_seed 3")},
    ),
    "gpt2 tuning": (
        gpt2,
        {name: only for mode in TUNING.values() for name, only in mode.only.items()},
        {
            "mid_dim": (
                f"{PREFIX} --mid_dim 8",
                f"{PREFIX} --prefix_mode embedding --parametrize_emb Emb --mid_dim 8",
            ),
            "parametrize_emb": (
                f"{PREFIX} --prefix_mode embedding --parametrize_emb Emb",
                f"{PREFIX} --parametrize_emb Emb",
            ),
            "matching_objective": (
                f"{PREFIX} --distill yes --finetuned_model_path t --matching_objective logits",
                f"{PREFIX} --matching_objective logits",
            ),
            "distill_positions": (
                f"{PREFIX} --distill yes --finetuned_model_path t --distill_positions all",
                f"{PREFIX} --distill_positions all",
            ),
            "top_layers": (
                "--tuning_mode finetune-top --top_layers 22",
                "--tuning_mode finetune-top --train_top 1 --top_layers 22",
            ),
        },
    ),
    "gpt2 launcher": (
        launch_gpt2,
        GPT2_LAUNCHED,
        {
            "dir_name": ("--dir_name d", "--output_dir o --dir_name d"),
            "lowdata_token": ("--train_size 9 --lowdata_token a", "--lowdata_token a"),
            "sample_seed": ("--train_size 9 --sample_seed 3", "--sample_seed 3"),
            "use_custom_teacher_dropout": (
                "--tuning_mode finetune --use_custom_teacher_dropout yes",
                "--tuning_mode lora --use_custom_teacher_dropout yes",
            ),
        },
    ),
    "ptuning": (
        ptuning,
        {**PTUNING, **PTUNING_TRAINER},
        {
            "pre_seq_len": ("--prompt --pre_seq_len 9", "--pre_seq_len 9"),
            "convolve_padding": ("--prefix --convolve_padding yes", "--convolve_padding yes"),
            "prefix_projection": (
                "--prefix --prefix_projection",
                "--prefix --parametrization flat --prefix_projection",
            ),
            "parametrization": ("--prefix --parametrization flat", "--parametrization flat"),
            "prefix_options": (
                "--prefix --parametrization mlp --prefix_options mid_dim=8",
                "--prefix_options mid_dim=8",
            ),
            "shift_positions": ("--prefix --shift_positions no", "--prompt --shift_positions no"),
            "hidden_dropout_prob": (
                "--prefix --hidden_dropout_prob 0.3",
                "--prompt --hidden_dropout_prob 0.3",
            ),
            "prefix_hidden_size": (
                "--prefix --prefix_projection --prefix_hidden_size 8",
                "--prefix --prefix_hidden_size 8",
            ),
            "template_id": (
                "--task_name superglue --dataset_name wsc --template_id 1",
                "--task_name superglue --dataset_name cb --template_id 1",
            ),
            "n_best_size": (
                "--task_name qa --dataset_name squad --n_best_size 3",
                "--n_best_size 3",
            ),
            "max_answer_length": (
                "--task_name qa --dataset_name squad --max_answer_length 3",
                "--max_answer_length 3",
            ),
            "null_score_diff_threshold": (
                "--task_name qa --dataset_name squad_v2 --null_score_diff_threshold 1",
                "--null_score_diff_threshold 1",
            ),
            "predict_split": (
                "--do_predict --predict_split validation",
                "--predict_split validation",
            ),
            "train_size": ("--do_train --train_size 3", "--train_size 3"),
            "model_revision": ("--model_revision r", "--model_name_or_path . --model_revision r"),
            "logging_dir": ("--report_to tensorboard --logging_dir l", "--logging_dir l"),
        },
    ),
    "seq2seq": (
        seq2seq,
        SEQ2SEQ,
        {
            "parametrization": (
                "--parametrization flat",
                "--tuning_mode finetune --parametrization flat",
            ),
            "prefix_sites": (
                "--prefix_sites encoder",
                "--tuning_mode finetune --prefix_sites self",
            ),
            "use_lowdata_token": (
                "--use_lowdata_token yes",
                "--tuning_mode finetune --use_lowdata_token yes",
            ),
            "prefix_options": (
                "--prefix_options mid_dim=8",
                "--prefixModel_name_or_path p --prefix_options mid_dim=8",
            ),
            "mid_dim": ("--tuning_mode finetune --mid_dim 8", "--parametrization flat --mid_dim 8"),
            "use_deep": ("--use_deep yes", "--parametrization flat --use_deep yes"),
            "predict_splits": ("--do_predict --predict_splits val", "--predict_splits val"),
            "n_test": ("--do_predict --limit 3", "--limit 3"),
            "overwrite_results": ("--do_predict --overwrite_results", "--overwrite_results"),
            "decode_batch_size": ("--do_predict --decode_batch_size 3", "--decode_batch_size 3"),
        },
    ),
    "seq2seq launcher": (
        launch_seq2seq,
        SEQ2SEQ_LAUNCHED,
        {
            "dir_name": ("--dir_name d", "--output_dir o --dir_name d"),
            "lowdata_token": ("--notes lowdata_0_50 --lowdata_token a", "--lowdata_token a"),
            "prefix_model_path": (
                "--do_train no --prefix_model_path p",
                "--do_train no --tuning_mode finetune --prefix_model_path p",
            ),
            "finetune_model_path": (
                "--do_train no --tuning_mode finetune --finetune_model_path p",
                "--do_train no --finetune_model_path p",
            ),
        },
    ),
}


FREE = {
    *identity.FREE,
    *run_folder._FREE,
    *("save_steps", "logging_steps", "save_total_limit", "run_name", "project", "logging_dir"),
    *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "warmup_steps"),
    *("dataloader_persistent_workers", "dataloader_prefetch_factor"),
}
"""What may change when a run goes on; the number of steps of warm-up may stand as a share."""


def settings_of(asked: object, flag: str) -> set[str]:
    """The flags that a run consists of; those of a launcher are its trainer's matter."""
    if isinstance(asked, TrainRequest):
        return {*asked.settings()}
    if isinstance(asked, Arguments):
        return {*identity.settings(asked)}
    if isinstance(asked, seq2seq_arguments.Arguments):
        return {*run_folder.of(asked).settings}
    return {flag}


@pytest.mark.parametrize("name", TABLES)
def test_every_flag_of_a_table_is_refused_where_nothing_reads_it(name: str) -> None:
    command, table, cases = TABLES[name]
    assert cases.keys() == table.keys()
    for flag, (read_by, ignored_by) in cases.items():
        if read_by:
            asked = command(shlex.split(read_by))
            assert flag in settings_of(asked, flag) or flag in FREE
        with pytest.raises(UserError) as caught:
            command(shlex.split(ignored_by))
        assert str(caught.value).startswith(f"--{flag}"), ignored_by
        assert ": only " in str(caught.value)


@pytest.mark.parametrize("command", [gpt2, launch_gpt2])
def test_a_flag_of_another_tuning_mode_is_refused(command: Command) -> None:
    """All flags of all modes, but those that the original's command lines have with any."""
    flags = {"init_text": "a", "init_shallow": "yes", "deep": "yes", "parametrization": "flat"}
    flags |= {"lora_r": "9", "lora_alpha": "9", "lora_dropout": "0.5", "adapter_bottleneck": "9"}
    flags |= {"train_top": "1", "teacher_dropout": "0.5", "init": "zero"}
    for flag, value in flags.items():
        mode = "adaptertune" if flag != "adapter_bottleneck" else "lora"
        with pytest.raises(UserError, match=f"--{flag} {value}: only with .*, not with --tuning"):
            command(["--tuning_mode", mode, f"--{flag}", value])
    of_any = "--mid_dim 9 --prefix_mode embedding --format_mode peek --use_dropout yes"
    command(["--tuning_mode", "adaptertune", *of_any.split(), "--objective_mode", "3"])


def test_what_the_launcher_fills_in_is_read() -> None:
    """Its numbers of steps give way to a strategy; its command can be given again."""
    for flags, steps in {
        "--eval_strategy epoch": None,
        "--eval_strategy=no": None,
        "--eval_strategy steps": 5000,
        "--mode webnlg --train_file t": None,
        "--mode webnlg --train_file t --eval_file e": 5000,
        "--train_size 9 --lr_scheduler_type constant": 50,
        "--train_size 9 --eval_strategy epoch": None,
    }.items():
        launch, rest = read(flags.split())
        values = train_e2e.values_of(launch, Path("run"))
        assert values.get("eval_steps") == steps, flags
        assert (
            parse(rest, values).settings()
            == parse([*train_e2e.command_of(launch, Path("run")), *rest]).settings()
        )
    launch, rest = read("--mode webnlg --train_file t --eval_steps 3".split())
    values = train_e2e.values_of(launch, Path("run"))
    with pytest.raises(UserError, match="--eval_steps 3"):
        parse(rest, values)


def test_defaults_of_steps_give_way() -> None:
    defaults = {"save_steps": 1, "eval_steps": 2, "warmup_steps": 3, "bsz": 4}
    argv = ["--save_strategy=epoch", "--eval_strategy", "steps", "--lr_scheduler_type", "constant"]
    assert without_steps(defaults, next_words(argv)) == {"eval_steps": 2, "bsz": 4}
    argv += ["--save_steps", "7", "--warmup_steps=8"]
    assert without_steps(defaults, next_words(argv)) == defaults


def test_a_seed_of_the_sample_reaches_what_is_held_out() -> None:
    launch, _ = read("--train_file t --sample_seed 3".split())
    assert train_e2e.values_of(launch, Path("run"))["sample_seed"] == 3


def test_what_nothing_reads_may_change_when_a_run_goes_on() -> None:
    """Also what a version recorded that did not refuse it."""

    def of_gpt2(argv: str) -> set[str]:
        return settings_of(gpt2(argv.split()), "")

    def of_ptuning(argv: str) -> set[str]:
        return settings_of(ptuning(argv.split()), "")

    def of_seq2seq(argv: str) -> set[str]:
        return settings_of(seq2seq(argv.split()), "")

    assert {"mid_dim", "eval_steps"} <= of_gpt2(
        "--tuning_mode prefixtune --evaluate_during_training"
    )
    assert not {"mid_dim", "eval_steps"} & of_gpt2(
        "--tuning_mode prefixtune --parametrization flat"
    )
    assert {"eval_steps", "prefix_hidden_size"} <= of_ptuning(
        "--do_train --prefix --prefix_projection --eval_strategy steps --eval_steps 3"
    )
    assert not {"eval_steps", "pre_seq_len"} & of_ptuning("--do_train")
    assert {"mid_dim", "prefix_sites"} <= of_seq2seq("--tuning_mode prefixtune")
    assert not {"prefix_sites"} & of_seq2seq("--tuning_mode finetune")
