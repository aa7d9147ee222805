"""Whole runs on tiny models: every family, resume, checkpoints of all kinds, mistakes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertTokenizer,
    DebertaV2Config,
    RobertaConfig,
    RobertaTokenizer,
)

from prefix_tuning import checkpoint
from prefix_tuning.errors import UserError
from ptuning_v2 import run, search
from ptuning_v2.arguments import Arguments, get_args
from ptuning_v2.training.trainer_base import BaseTrainer
from scripts import run_hyperparameters, search_hyperparameters

_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
SENTENCES = ["a cat sat", "the dog sat on the mat", "who was the cat", "dog does play", "a mat"]


def _save(config: Any, tokenizer: Any, folder: Path, **options: Any) -> Path:
    torch.manual_seed(0)
    model = AutoModel.from_config(config, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bert(bert_tokenizer: BertTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = BertConfig(vocab_size=len(bert_tokenizer), **_SIZES)
    return _save(config, bert_tokenizer, tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(scope="session")
def roberta(roberta_tokenizer: RobertaTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without a pooler, like the released weights."""
    config = RobertaConfig(vocab_size=len(roberta_tokenizer), **_SIZES)
    folder = tmp_path_factory.mktemp("base") / "roberta"
    return _save(config, roberta_tokenizer, folder, add_pooling_layer=False)


@pytest.fixture(scope="session")
def deberta(bert_tokenizer: BertTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    more = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0}
    config = DebertaV2Config(
        vocab_size=len(bert_tokenizer), **_SIZES, **more, position_biased_input=False
    )
    return _save(config, bert_tokenizer, tmp_path_factory.mktemp("base") / "deberta")


def _glue(split: str) -> str:
    rows = [f"{text}\t{number % 2}\n" for number, text in enumerate(SENTENCES * 2)]
    return "sentence\tlabel\n" + "".join(rows)


def _copa(split: str) -> list[dict[str, Any]]:
    row = {"premise": "the cat sat", "choice1": "a mat", "choice2": "a dog", "question": "cause"}
    return [{**row, "idx": number, "label": number % 2} for number in range(5)]


def _ner(split: str) -> str:
    lines = [f"{word} NN O {'B-PER' if word == 'cat' else 'O'}" for word in "a cat sat".split()]
    return ("\n".join(lines) + "\n\n") * 6


def _srl(split: str) -> str:
    return "2 a cat sat ||| B-A0 I-A0 B-V\n1 dog does play ||| B-A0 B-V B-A1\n" * 3


def _squad(split: str) -> dict[str, Any]:
    context = "a cat sat on the mat because it was a dog"
    answer = {"text": "cat", "answer_start": 2}
    qas = [{"id": f"q{i}", "question": "who sat", "answers": [answer]} for i in range(5)]
    return {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": qas}]}]}


def _misplaced() -> dict[str, Any]:
    document = _squad("train")
    document["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] = "the second"
    return document


DATA: dict[str, tuple[str, Callable[[str], Any], dict[str, str]]] = {
    "sst2": ("glue", _glue, {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"}),
    "copa": (
        "superglue",
        _copa,
        {"train": "train.jsonl", "dev": "val.jsonl", "test": "test.jsonl"},
    ),
    "conll2003": ("ner", _ner, {"train": "train.txt", "dev": "valid.txt", "test": "test.txt"}),
    "conll2005": (
        "srl",
        _srl,
        {
            "train": "conll05.train.txt",
            "dev": "conll05.devel.txt",
            "test": "conll05.test.wsj.txt",
            "brown": "conll05.test.brown.txt",
        },
    ),
    "squad": ("qa", _squad, {"train": "train-v1.1.json", "dev": "dev-v1.1.json"}),
}
PREDICTIONS = {
    "sst2": "SST-2.tsv",
    "copa": "COPA.jsonl",
    "conll2003": "test_predictions.txt",
    "conll2005": "test_brown_predictions.txt",
    "squad": "validation_predictions.json",
}


@pytest.fixture
def command(tmp_path: Path, write: Callable[[str, Any], Path]) -> Callable[..., list[str]]:
    """The arguments of a run on tiny data: ``command(model, "sst2", "prefix", seed=3)``."""

    def command(model: Path, dataset: str, *flags: str, **values: Any) -> list[str]:
        task, content, names = DATA[dataset]
        has_prompts = bool({"prefix", "prompt"} & {*flags}) or "prefix_checkpoint" in values
        for split, name in names.items():
            write(f"{dataset}/{name}", content(split))
        values = {
            "model_name_or_path": model,
            "task_name": task,
            "dataset_name": dataset,
            "data_dir": tmp_path / dataset,
            "output_dir": tmp_path / "run",
            **({"pre_seq_len": 3} if has_prompts else {}),
            "learning_rate": 0.03,
            "num_train_epochs": 2,
            "per_device_train_batch_size": 4,
            "eval_strategy": "epoch",
            "disable_tqdm": True,
            "report_to": "none",
            **({"max_seq_length": 48} if task == "qa" else {}),
            **({"max_seq_length": 20} if task in ("glue", "superglue") else {}),
            **values,
        }
        named = [part for name, value in values.items() for part in (f"--{name}", str(value))]
        return [*named, *(f"--{flag}" for flag in flags)]

    return command


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


SCORES = {"loss", "accuracy", "f1", "exact_match"}
TRAIN = ("prefix", "do_train", "do_eval")


@pytest.mark.parametrize(
    ("family", "dataset"),
    [
        *(("bert", name) for name in DATA),
        ("roberta", "sst2"),
        ("roberta", "copa"),
        ("deberta", "sst2"),
    ],
)
def test_every_family_from_files_to_predictions(
    family: str, dataset: str, command: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(family)
    run.main(command(model, dataset, *TRAIN, "do_predict"))
    folder = tmp_path / "run"
    names = ("all_results.json", "sizes.json", "curves.png", "export/prefix.json")
    for name in (*names, PREDICTIONS[dataset]):
        assert (folder / name).stat().st_size > 0, name
    trained = load_file(folder / "best" / "model.safetensors")
    head = "qa_outputs.weight" if dataset == "squad" else "classifier.weight"
    assert {"prefix_encoder.embedding.weight", head} <= trained.keys()
    frozen = {name for name in trained if name.startswith(f"{family}.")}
    pooled = family == "roberta" and dataset in ("sst2", "copa")
    pooler = {f"roberta.pooler.dense.{name}" for name in ("weight", "bias")}
    assert frozen == (pooler if pooled else set())

    # Both kinds of folder give the run's own best scores, whatever the other flags say.
    best = read(folder / "best_results.json")
    for kind in ("best", "export"):
        more = {"prefix_checkpoint": folder / kind, "output_dir": tmp_path / kind}
        run.main(command(model, dataset, "do_eval", **{**more, "pre_seq_len": 7}))
        found = read(tmp_path / kind / "eval_results.json")
        expected = read(folder / "eval_results.json")
        scores = [name for name in found if name.removeprefix("eval_") in SCORES]
        assert len(scores) >= 2
        for name in scores:
            assert found[name] == pytest.approx(expected[name], abs=1e-5), name
        for name in best.keys() & {f"best_{score}" for score in scores}:
            assert best[name] == found[name.removeprefix("best_")]
        if dataset == "squad":
            answers = [read(f / "eval_nbest_predictions.json") for f in (folder, tmp_path / kind)]
            one, other = ([row["start_logit"] for row in a["q0"]] for a in answers)
            assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("dataset", ["conll2003", "squad"])
def test_processes_evaluate_and_predict_every_row_once(
    dataset: str, bert: Path, command: Any, tmp_path: Path
) -> None:
    """Six and five rows, in two batches of four that one of two processes fills with others."""
    run.main(command(bert, dataset, *TRAIN, "do_predict", "use_cpu", num_train_epochs=1))
    more = {"prefix_checkpoint": tmp_path / "run" / "best", "per_device_eval_batch_size": 4}
    for name, n_process in (("one", 1), ("two", 2)):
        more["output_dir"] = tmp_path / name
        arguments = command(bert, dataset, "do_eval", "do_predict", "use_cpu", **more)
        processes.run(ROOT / "ptuning_v2" / "run.py", arguments, tmp_path / "logs", n_process)
    one, two = (read(tmp_path / name / "eval_results.json") for name in ("one", "two"))
    scores = [name for name in one if name.removeprefix("eval_") in SCORES]
    assert [two[name] for name in scores] == pytest.approx([one[name] for name in scores])
    texts = [(tmp_path / n / PREDICTIONS[dataset]).read_bytes() for n in ("one", "two")]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("dataset", ["sst2", "conll2003"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    dataset: str, bert: Path, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"num_train_epochs": 4, "gradient_accumulation_steps": 2}
    whole = command(bert, dataset, *TRAIN, "do_predict", output_dir=tmp_path / "whole", **options)
    run.main(whole)
    arguments = command(bert, dataset, *TRAIN, "do_predict", **options)
    original, calls = BaseTrainer.evaluate, []

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(BaseTrainer, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.main(arguments)
    assert not (tmp_path / "run" / "best_results.json").exists()
    run.main(arguments)
    a, b = tmp_path / "whole", tmp_path / "run"
    assert read(a / "best_results.json") == read(b / "best_results.json")
    for name in ("best", next(a.glob("checkpoint-*")).name):
        one, other = (load_file(f / name / "model.safetensors") for f in (a, b))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    histories = [
        [
            (log["step"], log["loss"])
            for log in read(f / "trainer_state.json")["log_history"]
            if "loss" in log
        ]
        for f in (a, b)
    ]
    assert len(histories[0]) == 4
    assert histories[0] == histories[1]


def test_a_finished_run_is_not_trained_again(
    bert: Path, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(bert, "sst2", *TRAIN)
    run.main(arguments)
    before = (tmp_path / "run" / "best" / "model.safetensors").stat().st_mtime_ns
    run.main(arguments)
    assert "is trained already" in capsys.readouterr().out
    assert (tmp_path / "run" / "best" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"started with --seed 42, now it is 5.*--overwrite_output"):
        run.main([*arguments, "--seed", "5"])
    run.main([*arguments, "--seed", "5", "--overwrite_output_dir"])
    assert (tmp_path / "run" / "best" / "model.safetensors").stat().st_mtime_ns != before


def test_a_stopped_run_of_an_older_version_goes_on(
    bert: Path, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It recorded these settings, and no others: what it did not record is no difference."""
    arguments = get_args(command(bert, "sst2", *TRAIN))
    folder = tmp_path / "run"
    run.run(arguments)
    expected = read(folder / "best_results.json")
    (folder / "best_results.json").unlink()  # written last
    recorded = read(folder / "run_settings.json")
    older = (
        "per_device_train_batch_size gradient_accumulation_steps learning_rate weight_decay "
        "num_train_epochs max_steps warmup_steps max_grad_norm seed model_name_or_path prefix "
        "prompt pre_seq_len prefix_projection prefix_hidden_size hidden_dropout_prob "
        "shift_positions freeze_backbone prefix_checkpoint task_name dataset_name max_seq_length "
        "max_train_samples train_size template_id"
    )
    recorded |= {"prefix_hidden_size": 256, "template_id": 1}  # which this run does not read
    kept = {name: recorded[name] for name in older.split()}
    kept["lr_scheduler_type"] = "SchedulerType.LINEAR"
    (folder / "run_settings.json").write_text(json.dumps(kept), encoding="utf-8")
    with pytest.raises(UserError, match="was started with --pre_seq_len 3, now it is 4"):
        run.main(command(bert, "sst2", *TRAIN, pre_seq_len=4))
    capsys.readouterr()
    run.run(get_args(command(bert, "sst2", *TRAIN)))
    assert "going on from" in capsys.readouterr().out
    # Its rule for equal scores is kept, too: the first of them is best, whatever the losses.
    assert read(folder / "best_results.json") == {**expected, "best_epoch": 0}


def test_nothing_edits_the_arguments(bert: Path, command: Any, tmp_path: Path) -> None:
    """Of a finished run neither: it loads what is trained by arguments of its own."""
    arguments = get_args(command(bert, "sst2", *TRAIN))
    run.run(arguments)
    again = get_args(command(bert, "sst2", *TRAIN))
    run.run(again)
    assert (again.training_args.do_train, again.model_args.prefix_checkpoint) == (True, None)
    assert again.model_args == arguments.model_args


@pytest.mark.parametrize(
    ("family", "kind"), [("bert", "prefix"), ("roberta", "prefix"), ("bert", "prompt")]
)
def test_whole_models_of_the_original_load(
    family: str, kind: str, command: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A ``pytorch_model.bin`` with all parameters, and the keys that it had in ``config.json``."""
    model = request.getfixturevalue(family)
    run.main(command(model, "sst2", kind, "do_train", "do_eval"))
    folder = tmp_path / "run"
    trained = load_file(folder / "best" / "model.safetensors")
    base = load_file(model / "model.safetensors")
    original = tmp_path / "original"
    original.mkdir()
    whole = {**{f"{family}.{name}": tensor for name, tensor in base.items()}, **trained}
    torch.save(whole, original / "pytorch_model.bin")
    config = {**read(model / "config.json"), "pre_seq_len": 3}
    if kind == "prefix":
        config |= {"prefix_projection": False, "prefix_hidden_size": 512}
    (original / "config.json").write_text(json.dumps(config), encoding="utf-8")
    again = {"prefix_checkpoint": original, "output_dir": tmp_path / "again", "pre_seq_len": 8}
    run.main(command(model, "sst2", "do_eval", **again))
    expected = read(folder / "eval_results.json")["eval_loss"]
    assert read(tmp_path / "again" / "eval_results.json")["eval_loss"] == pytest.approx(expected)


def test_fine_tuning_and_head_alone(bert: Path, command: Any, tmp_path: Path) -> None:
    run.main(command(bert, "sst2", "do_train", "do_eval"))
    folder = tmp_path / "run" / "best"
    stored = load_file(folder / "model.safetensors")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert stored.keys() == model.state_dict().keys()
    base = load_file(bert / "model.safetensors")
    assert not torch.equal(
        stored["bert.encoder.layer.0.output.dense.weight"],
        base["encoder.layer.0.output.dense.weight"],
    )
    head = tmp_path / "head"
    run.main(command(bert, "sst2", "do_train", "do_eval", "freeze_backbone", output_dir=head))
    names = {"classifier.weight", "classifier.bias"}
    assert load_file(head / "best" / "model.safetensors").keys() == names
    again = {"prefix_checkpoint": head / "best", "output_dir": tmp_path / "again"}
    run.main(command(bert, "sst2", "do_eval", **again))
    expected = read(head / "eval_results.json")["eval_loss"]
    assert read(tmp_path / "again" / "eval_results.json")["eval_loss"] == pytest.approx(expected)


def test_without_evaluation_the_last_weights_are_kept(
    bert: Path, command: Any, tmp_path: Path
) -> None:
    more = {"eval_strategy": "no"}
    run.main(command(bert, "sst2", "prefix", "do_train", "gradient_checkpointing", **more))
    folder = tmp_path / "run"
    last = next(folder.glob("checkpoint-*"))
    one, other = (load_file(f / "model.safetensors") for f in (folder / "best", last))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("flags", "values", "message"),
    [
        (("prefix", "do_eval"), {}, "these prompts are not trained"),
        (TRAIN, {"pre_seq_len": 50}, "pre_seq_len 50 and --max_seq_length 20"),
        (("do_eval",), {"prefix_checkpoint": "{tmp}/sst2"}, "holds nothing trained here"),
        (TRAIN, {"model_name_or_path": "{tmp}/none"}, "model_name_or_path"),
        (("do_train", "do_eval", "load_best_model_at_end"), {}, "leave it out"),
        (TRAIN, {"output_dir": "{tmp}/sst2"}, "is not empty and holds no run"),
        (TRAIN, {"output_dir": "{tmp}/sst2/dev.tsv"}, "is a file"),
        (TRAIN, {"resume_from_checkpoint": "{tmp}/sst2"}, "holds no run to go on with"),
        (TRAIN, {"max_seq_length": 3}, "max_seq_length 3: special tokens alone take 3"),
        (TRAIN, {"save_strategy": "best"}, "--save_strategy best: checkpoints are to go on"),
    ],
)
def test_mistakes(
    flags: Any, values: dict[str, Any], message: str, bert: Path, command: Any, tmp_path: Path
) -> None:
    values = {k: v.format(tmp=tmp_path) if isinstance(v, str) else v for k, v in values.items()}
    with pytest.raises(UserError, match=message):
        run.main(command(bert, "sst2", *flags, **values))


@pytest.mark.parametrize(
    ("dataset", "file", "content", "message"),
    [
        ("sst2", "train.tsv", "sentence\tlabel\n", "the train set of sst2 has no rows"),
        ("sst2", "dev.tsv", "sentence\tlabel\n", "the validation set of sst2 has no rows"),
        ("sst2", "test.tsv", "index\tsentence\n", "the test set of sst2 has no rows"),
        ("sst2", "train.tsv", "sentence\na cat\n", "1 of the 1 rows of the train set of sst2"),
        ("sst2", "dev.tsv", "sentence\na cat\n", "1 of the 1 rows of the validation set"),
        ("conll2003", "train.txt", "-DOCSTART- O\n", "the train set of conll2003 has no rows"),
        (
            "squad",
            "train-v1.1.json",
            _misplaced(),
            "q0: the start .* is not a whole number",
        ),
    ],
)
def test_files_that_cannot_be_used(
    dataset: str, file: str, content: Any, message: str, bert: Path, command: Any, write: Any
) -> None:
    arguments = command(bert, dataset, *TRAIN, "do_predict")
    write(f"{dataset}/{file}", content)
    with pytest.raises(UserError, match=message):
        run.main(arguments)


def test_a_set_with_some_labels(bert: Path, command: Any, write: Any) -> None:
    """Predicted may be what has labels or has none, but a batch cannot be of both."""
    arguments = command(bert, "copa", *TRAIN, "do_predict")
    first, *others = _copa("test")
    first["label"] = 0
    write("copa/test.jsonl", [first, *({**row, "label": None} for row in others)])
    with pytest.raises(UserError, match="rows of the test set of copa have no label"):
        run.main(arguments)


def test_the_length_of_texts_does_not_bind_words(bert: Path, command: Any, tmp_path: Path) -> None:
    """--max_seq_length has no effect on ner; the prompts must leave it some positions."""
    run.main(command(bert, "conll2003", *TRAIN, max_seq_length=64, max_steps=1))
    assert (tmp_path / "run" / "best_results.json").is_file()
    with pytest.raises(UserError, match="--pre_seq_len leaves no position of the encoder"):
        run.main(command(bert, "conll2003", *TRAIN, pre_seq_len=80, output_dir=tmp_path / "two"))


def test_a_head_of_other_labels(
    bert: Path, command: Any, tmp_path: Path, write: Callable[[str, Any], Path]
) -> None:
    """Its outputs mean something else; to go on training from it is another matter."""
    run.main(command(bert, "sst2", *TRAIN))
    again = command(
        bert, "sst2", "do_eval", output_dir=tmp_path / "b", prefix_checkpoint=tmp_path / "run/best"
    )
    write("sst2/dev.tsv", "sentence1\tsentence2\tlabel\na cat\ta dog\t1\n")
    again[again.index("--dataset_name") + 1] = "wnli"
    with pytest.raises(UserError, match="labels negative, positive, wnli has not_entailment, ent"):
        run.main(again)


def test_decoders_are_refused(command: Any, tiny_folder: Path) -> None:
    with pytest.raises(UserError, match="gpt2 is no encoder"):
        run.main(command(tiny_folder, "sst2", *TRAIN))


def test_checkpoints_of_something_else(
    bert: Path, bert_tokenizer: BertTokenizer, command: Any, tmp_path: Path
) -> None:
    run.main(command(bert, "sst2", *TRAIN))
    best = tmp_path / "run" / "best"
    other = shutil.copytree(bert, tmp_path / "other")
    config = BertConfig(vocab_size=len(bert_tokenizer), **_SIZES)
    AutoModel.from_config(config).save_pretrained(other)
    again = {"prefix_checkpoint": best, "output_dir": tmp_path / "again"}
    for kind in (best, tmp_path / "run" / "export"):
        with pytest.raises(UserError, match="whose weights differ"):
            run.main(command(other, "sst2", "do_eval", **{**again, "prefix_checkpoint": kind}))
    with pytest.raises(UserError, match="give its export"):
        checkpoint.load(best)
    assert checkpoint.load(tmp_path / "run" / "export")[0].length == 3
    with pytest.raises(
        UserError, match=r"classifier\.weight has shape \[2, 32\], expected \[1, 32\]"
    ):
        run.main(command(bert, "copa", "do_eval", **again))
    with pytest.raises(UserError, match=r"lacks qa_outputs\.bias"):
        run.main(command(bert, "squad", "do_eval", **again))
    (best / "model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="is damaged"):
        run.main(command(bert, "sst2", "do_eval", **again))


def test_search(
    bert: Path,
    command: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = command(bert, "sst2", "do_train", num_train_epochs=1)
    for name in ("learning_rate", "num_train_epochs", "output_dir"):
        at = overrides.index(f"--{name}")
        del overrides[at : at + 2]
    grid = ["--learning_rate", "1e-2", "3e-2", "--pre_seq_len", "2", "--num_train_epochs", "1"]
    with pytest.raises(UserError, match="no finished run"):
        search.main(["rte", "bert"])
    search_hyperparameters.main(["rte", "bert", *grid, *overrides])
    runs = sorted(path.name for path in (tmp_path / "checkpoints/rte-bert-search").iterdir())
    assert runs == ["rte-1-1e-2-2", "rte-1-3e-2-2"]
    capsys.readouterr()
    search_hyperparameters.main(["rte", "bert", *grid, *overrides])
    assert "trained parameters" not in capsys.readouterr().out  # all of them are finished
    path = tmp_path / "checkpoints/rte-bert-search/rte-1-3e-2-2/best_results.json"
    path.write_text('{"best_epoch": 4, "best_eval_accuracy": 0.99}', encoding="utf-8")
    search.main(["rte", "bert", "accuracy"])
    best, second = capsys.readouterr().out.splitlines()
    assert best.startswith("0.9900  epoch   4")
    assert "rte-1-1e-2-2" in second
    with pytest.raises(UserError, match="no finished run with a score"):
        search.main(["rte", "bert", "f1"])
    with pytest.raises(UserError, match="give at least one of --num_train_epochs"):
        search_hyperparameters.main(["rte", "bert", *overrides])


def test_a_search_ranks_what_is_a_number(tmp_path: Path, capsys: Any) -> None:
    for number, score in enumerate((0.25, float("nan"), 0.75, 0.5)):
        folder = tmp_path / f"rte-bert-search/{number}"
        folder.mkdir(parents=True)
        content = {"best_epoch": number, "best_eval_accuracy": score}
        (folder / "best_results.json").write_text(json.dumps(content), encoding="utf-8")
    search.main(["rte", "bert", "--checkpoints", str(tmp_path), "--top", "2"])
    left_out, *lines = capsys.readouterr().out.splitlines()
    assert left_out.startswith("left out ")
    assert [line.split()[0] for line in lines] == ["0.7500", "0.5000"]


def test_rows_of_hyperparameters(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """conll04_bert and wic_bert as the original's scripts have them."""
    calls: list[Arguments] = []
    monkeypatch.setattr(run, "run", calls.append)
    run_hyperparameters.main(["conll04_bert", "--seed", "3"])
    run_hyperparameters.main(["wic_bert"])
    model, data, training, _ = calls[0]
    assert (model.prefix, model.pre_seq_len, model.hidden_dropout_prob) == (True, 128, 0.2)
    assert (training.learning_rate, training.num_train_epochs, training.seed) == (2e-2, 40, 3)
    assert (training.do_predict, data.dataset_name) == (True, "conll2004")
    model, data, training, _ = calls[1]
    assert (model.prefix_projection, data.template_id, training.do_predict) == (True, 1, False)
    run_hyperparameters.main([])
    assert capsys.readouterr().out.count("\n") >= 20
    with pytest.raises(UserError, match="there is no such flag; did you mean --pre_seq_len"):
        run_hyperparameters.main(["wic_bert", "--pre_seq_length", "3"])
    with pytest.raises(UserError, match="'wic' is no row"):
        run_hyperparameters.main(["wic"])
