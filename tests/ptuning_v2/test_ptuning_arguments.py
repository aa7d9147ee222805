"""The flags: the original's command lines, defaults, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from transformers import BertConfig, DebertaConfig, RobertaConfig, TrainingArguments

from prefix_tuning.errors import UserError
from prefix_tuning.positions import room
from ptuning_v2.arguments import RunFlags, get_args
from ptuning_v2.identity import data_files, settings
from ptuning_v2.model import checkpoint, utils
from ptuning_v2.only import ONLY
from ptuning_v2.tasks.utils import DATASETS, TASKS
from ptuning_v2.training import build, session
from ptuning_v2.training.build import check_length
from scripts.run_hyperparameters import arguments_of, read_rows

# As the original's scripts spell them, with variables filled in.
SUPERGLUE = (
    "--model_name_or_path roberta-large --task_name superglue --dataset_name boolq --do_train "
    "--do_eval --max_seq_length 128 --per_device_train_batch_size 32 --learning_rate 7e-3 "
    "--num_train_epochs 100 --pre_seq_len 8 --output_dir checkpoints/boolq-roberta/ "
    "--overwrite_output_dir --hidden_dropout_prob 0.1 --seed 11 --save_strategy no "
    "--evaluation_strategy epoch --prefix"
)
NER = (
    "--model_name_or_path roberta-large --task_name ner --dataset_name conll2003 --do_train "
    "--do_eval --do_predict --max_seq_length 152 --per_device_train_batch_size 16 "
    "--learning_rate 3e-2 --num_train_epochs 30 --pre_seq_len 11 --output_dir checkpoints/c/ "
    "--overwrite_output_dir --hidden_dropout_prob 0.1 --seed 11 --save_strategy no "
    "--evaluation_strategy=epoch --prefix"
)
MINIMAL = "--model_name_or_path m --task_name {} --dataset_name {} --output_dir o --do_eval"


def test_command_lines_of_the_original():
    model, data, run, qa = get_args(SUPERGLUE.split())
    assert (model.prefix, model.prompt, model.pre_seq_len) == (True, False, 8)
    assert (data.task_name, data.dataset_name, data.max_seq_length) == ("superglue", "boolq", 128)
    assert (run.eval_strategy, run.save_strategy) == ("epoch", "no")
    assert run.overwrite_output_dir
    assert (run.seed, run.learning_rate) == (11, 7e-3)
    assert (qa.n_best_size, qa.max_answer_length, qa.null_score_diff_threshold) == (20, 30, 0.0)
    _, data, run, _ = get_args(NER.split())
    assert (run.do_predict, run.eval_strategy, data.max_seq_length) == (True, "epoch", 152)


def test_defaults():
    model, data, run, _ = get_args(MINIMAL.format("glue", "rte").split())
    assert (model.pre_seq_len, model.prefix_hidden_size, model.hidden_dropout_prob) == (4, 512, 0.1)
    assert (model.prefix, model.prompt, model.prefix_projection) == (False, False, False)
    assert (data.max_seq_length, data.pad_to_max_length, data.template_id) == (128, True, 0)
    assert (run.per_device_eval_batch_size, run.logging_steps) == (8, 500)
    assert (run.save_strategy, run.save_total_limit) == ("epoch", 1)
    assert get_args(MINIMAL.format("qa", "squad").split())[1].max_seq_length == 384
    assert get_args(MINIMAL.format("srl", "conll2005").split())[1].max_seq_length is None


def test_defaults_that_are_not_ours_are_those_of_trainer():
    """The help shows ours; the library may change its own."""
    theirs = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    ours = {field.name: field.default for field in dataclasses.fields(RunFlags)}
    different = {"output_dir", "save_strategy", "save_total_limit", "overwrite_output_dir"}
    different |= {"logging_dir", "cuda_graphs"}
    shared = ours.keys() - different
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


def test_flags_of_trainer_are_taken_too():
    flags = "--adam_beta1 0.8 --fp16 false --label_smoothing_factor=0.1 --report_to none"
    _, _, run, _ = get_args([*MINIMAL.format("glue", "rte").split(), *flags.split()])
    assert (run.adam_beta1, run.fp16, run.label_smoothing_factor) == (0.8, False, 0.1)
    with pytest.raises(UserError, match=r"--adam_beta3: .* did you mean --adam_beta"):
        get_args([*MINIMAL.format("glue", "rte").split(), "--adam_beta3", "1"])
    with pytest.raises(UserError, match=r"--pre_seq_length: .* did you mean --pre_seq_len"):
        get_args([*MINIMAL.format("glue", "rte").split(), "--pre_seq_length", "1"])
    with pytest.raises(UserError, match=r"Trainer refuses these flags: .*sometimes"):
        get_args([*MINIMAL.format("glue", "rte").split(), "--eval_strategy", "sometimes"])


def test_defaults_instead_of_the_usual_ones():
    """What a row gives; the command line goes before it, and Trainer's flags are among them."""
    row = {"task_name": "glue", "dataset_name": "rte", "model_name_or_path": "m"}
    row |= {"output_dir": "o", "do_eval": True, "adam_beta1": 0.8, "learning_rate": "1e-2"}
    model, _, run, _ = get_args(["--model_name_or_path", "n"], row)
    assert (model.model_name_or_path, run.do_eval, run.adam_beta1) == ("n", True, 0.8)
    assert run.learning_rate == 0.01
    with pytest.raises(UserError, match="--adam_beta3: there is no such flag"):
        get_args([], {**row, "adam_beta3": 0.8})


def test_help_imports_no_model_library():
    """In a process of its own: here they are imported already."""
    program = (
        "import sys\n"
        "from ptuning_v2 import run\n"
        "try:\n"
        "    run.main(['--help'])\n"
        "finally:\n"
        "    print('HEAVY', {'torch', 'transformers', 'numpy'} & sys.modules.keys())\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT
    )
    assert found.returncode == 0, found.stderr
    assert "HEAVY set()" in found.stdout
    assert "transformers.TrainingArguments is taken too" in " ".join(found.stdout.split())


def test_settings_of_a_run():
    """Every flag but paths and what is shown; those of Trainer that are not declared here too."""
    arguments = MINIMAL.format("glue", "rte").split()
    before = settings(get_args(arguments))
    assert before == settings(get_args([*arguments, "--cache_dir", "c", "--logging_steps", "3"]))
    assert json.loads(json.dumps(before)) == before
    changed = [("glue rte", "seed", 3), ("glue rte", "adam_beta1", 0.8)]
    changed += [("superglue wsc", "template_id", 1), ("qa squad", "n_best_size", 3)]
    for task, flag, value in changed:
        of_task = MINIMAL.format(*task.split()).split()
        plain, after = settings(get_args(of_task)), [*of_task, f"--{flag}", str(value)]
        found = settings(get_args(after))
        assert {name for name in found if found[name] != plain[name]} == {flag}
    parts = get_args(arguments)
    ours = {f.name for part in (*parts[:2], RunFlags, parts[3]) for f in dataclasses.fields(part)}
    assert ours - before.keys() <= {
        *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "logging_dir"),
        *("save_strategy", "save_total_limit", "per_device_eval_batch_size", "use_cpu"),
        *("do_train", "do_eval", "do_predict", "predict_split", "max_predict_samples"),
        *("data_dir", "train_file", "validation_file", "test_file"),  # known by their content
        *("cache_dir", "config_name", "tokenizer_name", "use_auth_token", "use_fast_tokenizer"),
        *("overwrite_cache", "dataset_config_name", "cuda_graphs"),
        *ONLY,  # of which nothing is read here
    }
    assert before["world_size"] == 1


def test_flags_without_effect_are_accepted_but_not_shown(capsys):
    unused = "--use_auth_token --config_name c --tokenizer_name t --overwrite_cache"
    get_args([*MINIMAL.format("glue", "rte").split(), *unused.split(), "--no_pad_to_max_length"])
    with pytest.raises(SystemExit):
        get_args(["--help"])
    shown = capsys.readouterr().out
    assert "--tokenizer_name" not in shown
    assert "--pre_seq_len" in shown


@pytest.mark.parametrize(
    ("task", "dataset", "flags", "message"),
    [
        ("ner", "rte", "", "--dataset_name rte: --task_name ner has conll2003"),
        ("glue", "rte", "--prefix --prompt", "--prefix and --prompt"),
        ("ner", "wnut17", "--prompt", "--prompt with --task_name ner"),
        ("glue", "rte", "--prefix --pre_seq_len 0", "--pre_seq_len 0"),
        ("glue", "rte", "--prefix_projection", "--prefix_projection is part of --prefix"),
        ("superglue", "wsc", "--template_id 2", "--template_id 2: use 0 or 1"),
        ("glue", "rte", "--data_dir nowhere", "--data_dir nowhere"),
        ("glue", "rte", "--prefix_checkpoint nowhere", "--prefix_checkpoint nowhere"),
        ("glue", "rte", "--hidden_dropout_prob 1", "--hidden_dropout_prob"),
        ("glue", "rte", "--learning_rate 0", "--learning_rate"),
        ("glue", "rte", "--learning_rate nan", "--learning_rate nan"),
        ("glue", "rte", "--seed -1", "--seed -1: must be from 0"),
        ("glue", "rte", "--per_device_train_batch_size 0", "--per_device_train_batch_size 0"),
        ("glue", "rte", "--per_device_eval_batch_size 0", "--per_device_eval_batch_size 0"),
        ("glue", "rte", "--gradient_accumulation_steps 0", "--gradient_accumulation_steps 0"),
        ("glue", "rte", "--do_train --num_train_epochs nan", "nothing to train"),
        ("glue", "rte", "--max_train_samples 0", "--max_train_samples 0"),
        ("glue", "rte", "--train_size 0", "--train_size 0"),
        ("glue", "rte", "--do_eval false", "nothing to do"),
        ("glue", "rte", "--do_train --num_train_epochs 0", "nothing to train"),
        ("qa", "squad", "--predict_split test", "not public"),
        ("qa", "squad", "--n_best_size 0", "--n_best_size 0"),
        ("glue", "rte", "--speed 3", "--speed"),
    ],
)
def test_impossible_flags(task, dataset, flags, message):
    with pytest.raises(UserError, match=message):
        get_args([*MINIMAL.format(task, dataset).split(), *flags.split()])


def test_positions_beside_the_prompts():
    # BERT has 512 positions; RoBERTa's table of 514 rows keeps two for padding and before it.
    assert room(BertConfig(), 0) == 512
    assert room(RobertaConfig(max_position_embeddings=514), 100) == 412
    assert room(DebertaConfig(position_biased_input=False), 100) is None
    check_length(BertConfig(), 384, 128)
    with pytest.raises(UserError, match=r"--pre_seq_len 385 and --max_seq_length 128.*512"):
        check_length(BertConfig(), 385, 128)
    check_length(RobertaConfig(max_position_embeddings=514), 384, 128)
    with pytest.raises(UserError, match="512 positions"):
        check_length(RobertaConfig(max_position_embeddings=514), 385, 128)


def test_prompts_occupy_positions_unless_told_not_to():
    flags = MINIMAL.format("glue", "rte").split()
    assert get_args(flags)[0].occupied_positions == 0
    flags += ["--pre_seq_len", "7"]
    assert get_args([*flags, "--prompt"])[0].occupied_positions == 7
    assert get_args([*flags, "--prefix"])[0].occupied_positions == 7
    not_shifted = [*flags, "--prefix", "--shift_positions", "no"]
    assert get_args(not_shifted)[0].occupied_positions == 0


def test_hyperparameters_are_flags():
    rows = read_rows()
    assert len(rows) == 20
    for name, row in rows.items():
        model, data, run, _ = arguments_of(name)
        assert ("roberta" in model.model_name_or_path) == name.endswith("roberta"), name
        assert Path(run.output_dir).name.endswith(name.rsplit("_", 1)[1]), name
        assert data.dataset_name in TASKS[data.task_name]
        for flag, value in row.items():
            [found] = [getattr(part, flag) for part in (model, data, run) if hasattr(part, flag)]
            assert found == value
    assert rows["wic_bert"] == {
        "task_name": "superglue",
        "dataset_name": "wic",
        "model_name_or_path": "bert-large-cased",
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-4,
        "hidden_dropout_prob": 0.1,
        "pre_seq_len": 20,
        "num_train_epochs": 80,
        "seed": 44,
        "max_seq_length": 128,
        "prefix_projection": True,
        "template_id": 1,
        "prefix": True,
        "output_dir": "checkpoints/wic-bert",
    }


def test_data_sets():
    assert [len(names) for names in TASKS.values()] == [9, 8, 4, 2, 2]
    assert len(DATASETS) == 24  # rte is in two families


class Reached(Exception):
    """Something would be loaded."""


def test_revision_and_cache_reach_all_that_is_downloaded(monkeypatch):
    flags = [*MINIMAL.format("glue", "rte").split(), "--prefix", "--model_revision", "r"]
    args, seen = get_args([*flags, "--cache_dir", "c"]), []

    def load(name, *more, **given):
        seen.append((name, given.get("revision"), "c" in (*more, given.get("cache_dir"))))
        raise Reached

    for module, name in ((utils, "load_config"), (utils, "load_partly"), (build, "load_tokenizer")):
        monkeypatch.setattr(module, name, load)
    with pytest.raises(Reached):
        utils.get_config(args.model_args)
    monkeypatch.setattr(build, "get_config", lambda _: BertConfig())
    with pytest.raises(Reached):
        utils.get_model(args.model_args, utils.TaskType.SEQUENCE_CLASSIFICATION, BertConfig())
    with pytest.raises(Reached):
        build.load_base(args)
    assert seen == [("m", "r", True)] * 3


def test_what_a_trainer_is_made_of(monkeypatch, tmp_path, capsys):
    """Data, names of labels and targets, and what is said of a checkpoint of another data set."""
    flags = f"{MINIMAL.format('glue', 'rte')} --prefix --do_eval --prefix_checkpoint {tmp_path}"
    args, names = get_args(flags.split()), ["no", "yes"]
    trained = {"dataset_name": "wnli", "labels": names}
    monkeypatch.setattr(build, "get_model", lambda *_, **given: given)
    monkeypatch.setattr(build, "parameter_lines", lambda _: [])
    monkeypatch.setattr(build.checkpoint, "read_metadata", lambda _: {"task": trained})
    monkeypatch.setattr(build.checkpoint, "metadata", lambda *_, **task: task)
    loaded = []
    monkeypatch.setattr(build.checkpoint, "load", lambda *given: loaded.append(given))
    given = {"train_dataset": 1, "eval_dataset": 2, "data_collator": 3, "test_key": "f1"}
    data = SimpleNamespace(name="rte", num_labels=2, label_list=names, task_type="sequence")
    data.predict_datasets = 4
    vars(data).update(given)
    config, model = SimpleNamespace(), {"fix_bert": False}
    made = build.build_trainer(args, config, data, dict)
    task = {"task_name": "glue", "dataset_name": "rte", "labels": names}
    assert made == {
        **given,
        **{"model": model, "args": args.training_args, "predict_dataset": 4, "meta": task},
    }
    assert loaded == [(tmp_path, model)]
    assert (config.num_labels, config.id2label) == (2, {0: "no", 1: "yes"})
    assert config.label2id == {"no": 0, "yes": 1}
    assert args.training_args.label_names == ["labels"]
    said = f"note: {tmp_path} was trained for wnli, and is used for rte"
    assert said in capsys.readouterr().out
    trained["dataset_name"] = "rte"
    data.task_type, data.label_list = "qa", None
    build.build_trainer(args, config, data, dict)
    assert args.training_args.label_names == ["start_positions", "end_positions"]
    assert "was trained for" not in capsys.readouterr().out
    data.label_list = ["yes", "no"]  # the same names, of other numbers
    with pytest.raises(UserError, match="labels no, yes, rte has yes, no: add --do_train"):
        build.build_trainer(args, config, data, dict)


def test_words_of_roberta_begin_with_a_blank(monkeypatch):
    """In the texts of glue and qa they have theirs; words one by one have none."""
    asked = []
    monkeypatch.setattr(build, "load_tokenizer", lambda *_, **options: asked.append(options))
    for name in ("check_rows", "token_ids"):
        monkeypatch.setattr(build, name, lambda *_: None)
    args = get_args([*MINIMAL.format("ner", "conll2003").split(), "--prefix"])
    for config in (RobertaConfig(), BertConfig()):
        monkeypatch.setattr(build, "get_config", lambda _, config=config: config)
        for word_by_word in (True, False):
            build.load_base(args, word_by_word)
    assert [options.get("add_prefix_space", False) for options in asked] == [True, *[False] * 3]


def test_a_model_is_loaded_with_the_seed_and_flags_of_its_prompts(monkeypatch, tmp_path):
    flags = f"{MINIMAL.format('glue', 'rte')} --prefix --pre_seq_len 7 --do_eval --seed 5"
    args = get_args([*flags.split(), "--prefix_checkpoint", str(tmp_path)])
    found = []

    def family(given):
        found.append((torch.initial_seed(), given.model_args.pre_seq_len))
        return None, None

    monkeypatch.setitem(session.FAMILIES, "glue", family)
    monkeypatch.setattr(
        session.checkpoint, "read_metadata", lambda _: {"tuning": {"pre_seq_len": 3}}
    )
    torch.manual_seed(0)
    session.load(args)
    assert found == [(5, 3)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"prefix_projection": True, "prefix_hidden_size": 9}, {"prefix": True, "prompt": False}),
        ({}, {"prefix": False, "prompt": True}),
    ],
)
def test_what_a_checkpoint_of_the_original_was_trained_with(write, config, expected):
    path = write("m/config.json", {"pre_seq_len": 3, "hidden_dropout_prob": 0.2, **config})
    write("m/pytorch_model.bin", "")
    common = {"pre_seq_len": 3, "hidden_dropout_prob": 0.2, "shift_positions": "yes"}
    tuning = checkpoint.read_metadata(path.parent)["tuning"]
    assert tuning == {**common, "convolve_padding": "yes", **config, **expected}


def test_files_that_decide_what_is_computed(write, tmp_path):
    """Those of the data set and what lies beside its folder; not what is predicted alone."""
    names = ("RTE/train.tsv", "RTE/dev.tsv", "notes.txt", "QNLI/train.tsv")
    files = {name: write(f"all/{name}", "a") for name in names}
    flags = [*MINIMAL.format("glue", "rte").split(), "--data_dir", str(tmp_path / "all")]
    expected = {f"data_dir/{name}": path for name, path in files.items() if "QNLI" not in name}
    assert data_files(get_args(flags)) == expected
    own = {f"{split}_file": write(f"{split}.csv", "a") for split in ("train", "validation", "test")}
    flags = ["--model_name_or_path", "m", "--task_name", "classification", "--output_dir", "o"]
    given = get_args([*flags, *(word for k, v in own.items() for word in (f"--{k}", str(v)))])
    assert data_files(given) == {k: v for k, v in own.items() if k != "test_file"}
