"""One's own data in GPT-2: from a table or a chat to a run, its held-out inputs and its texts."""

from __future__ import annotations

import copy
import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from transformers import PreTrainedTokenizerFast

from gpt2 import gen, train_e2e, write
from gpt2.data import Format, TableToTextDataset
from gpt2.launch_flags import read
from gpt2.readers import Record
from gpt2.records import hold_out
from gpt2.tasks import is_own, read_records
from gpt2.train_request import parse
from harness.models import tokenizer_name
from prefix_tuning.errors import UserError
from prefix_tuning.objectives import IGNORE

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def table(folder: Path, n: int = 20) -> Path:
    path = folder / "pairs.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = [(f"say {i}", f"It is {i}.") for i in range(n)]
        csv.writer(file).writerows([("question", "answer"), *rows])
    return path


def test_formats_of_a_task_stay_what_they_are() -> None:
    assert is_own("data2text", "a.csv")
    assert is_own("data2text", "a.tsv")
    assert is_own("data2text", "a.json")
    assert is_own("topic", "a.csv")
    assert not is_own("data2text", "a.txt")
    assert not is_own("topic", "a.tsv")
    assert not is_own("webnlg", "a.json")
    assert not is_own("xsum", "a.source")


def test_an_own_file_is_not_tested_on_another_data_set() -> None:
    launch, _ = read(["--train_file", "pairs.csv"])
    values = train_e2e.values_of(launch, Path("run"))
    assert values["eval_fraction"] == 0.1
    assert not {"eval_data_file", "test_data_file"} & values.keys()
    launch, _ = read(["--train_file", "pairs.csv", "--eval_file", "b.csv", "--test_file", "c.csv"])
    values = train_e2e.values_of(launch, Path("run"))
    assert (values["eval_data_file"], values["test_data_file"]) == ("b.csv", "c.csv")
    assert "eval_fraction" not in values
    launch, _ = read([])
    assert train_e2e.values_of(launch, Path("run"))["test_data_file"].endswith("src1_test.txt")


def test_inputs_are_held_out_with_all_their_references(tmp_path: Path) -> None:
    rows = [{"source": f"s{i % 10}", "target": f"t{i}"} for i in range(30)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    records = read_records("data2text", path, training=True)
    kept, held = hold_out(records, 0.2, seed=0)
    assert len(held) == 2
    assert all(len(record.targets) == 3 for record in held)
    assert {r.source for r in kept}.isdisjoint(r.source for r in held)
    assert len(kept) + 6 == 30
    assert hold_out(records, 0.2, seed=0) == (kept, held)
    assert hold_out(records, 0.2, seed=1) != (kept, held)
    sizes = {share: len(hold_out(records, share, seed=0)[1]) for share in (0.01, 0.19, 0.99)}
    assert sizes == {0.01: 1, 0.19: 2, 0.99: 9}
    with pytest.raises(UserError, match=r"--eval_fraction 0\.2: cannot be taken"):
        hold_out(records[:1], 0.2, seed=0)


def test_a_chat_is_written_by_its_template(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    turns = [("user", "Hi"), ("assistant", "Hello!"), ("user", "2 + 2?"), ("assistant", "4")]
    messages = [{"role": role, "content": text} for role, text in turns]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": messages}), encoding="utf-8")
    records = read_records("data2text", path, training=True)
    with pytest.raises(UserError, match="has no chat template"):
        TableToTextDataset(records, Format(tokenizer))
    tokenizer.chat_template = TEMPLATE
    data = TableToTextDataset(records, Format(tokenizer))
    learnt = [[i for i in e["labels"] if i != IGNORE] for e in data]
    assert [tokenizer.decode(ids) for ids in learnt] == [
        "Hello!<|endoftext|>",
        "4<|endoftext|>",
    ]
    whole = "<user>Hi<|endoftext|>\n<assistant>Hello!<|endoftext|>\n<user>2 + 2?<|endoftext|>\n"
    assert tokenizer.decode(data[1]["input_ids"]) == f"{whole}<assistant>4<|endoftext|>"


def test_a_run_on_a_table(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = table(tmp_path), tmp_path / "run"
    train_e2e.main(
        ["--model_name_or_path", str(tiny_folder), "--output_dir", str(run), "--preseqlen", "2"]
        + ["--train_file", str(path), "--mid_dim", "8", "--max_steps", "2", "--use_cpu"]
        + ["--report_to", "none", "--results_dir", str(tmp_path), "--score", "no"]
    )
    said = capsys.readouterr().out
    assert "the source is 'question', the target 'answer'" in said
    assert "18 training pairs" in said
    held = [json.loads(line) for line in (run / "held_out.jsonl").read_text("utf-8").splitlines()]
    assert len(held) == 2
    number = held[0]["source"].removeprefix("say ")
    assert held[0]["targets"] == [f"It is {number}."]
    assert "2 texts in" in said


def test_defaults_by_the_size_of_the_data(tmp_path: Path) -> None:
    files = ["--train_file", str(table(tmp_path, 50))]
    launch, _ = read(files)
    values = train_e2e.values_of(launch, Path("run"))
    assert (values["per_device_train_batch_size"], values["max_steps"]) == (8, 200)
    assert (values["learning_rate"], values["warmup_steps"]) == (1e-3, 10)
    assert (values["objective_mode"], values["length_groups"]) == (0, "yes")
    assert values["dtype"] == "auto"
    for flags in (["--bf16"], ["--tuning_mode", "finetune"], ["--tuning_mode", "bothtune"]):
        assert "dtype" not in train_e2e.values_of(read([*files, *flags])[0], Path("run"))
    assert train_e2e.output_dir_of(launch) == Path("trained/pairs")
    launch, _ = read([*files, "--learning_rate", "0.1", "--epoch", "3", "--output_dir", "here"])
    values = train_e2e.values_of(launch, Path("run"))
    assert (values["learning_rate"], values["num_train_epochs"]) == (0.1, 3)
    assert "max_steps" not in values
    assert train_e2e.output_dir_of(launch) == Path("here")
    launch, _ = read(["--train_file", str(table(tmp_path, 1000))])
    assert launch.args.max_steps == 5 * 125
    launch, _ = read(["--train_file", "src1_train.txt"])  # the original's format: its defaults
    assert (launch.args.learning_rate, launch.args.max_steps) == (5e-5, None)
    assert "dtype" not in train_e2e.values_of(launch, Path("run"))


def test_a_run_shows_where_it_is_and_writes_for_prompts(
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    train_e2e.main(
        ["--model_name_or_path", str(tiny_folder), "--output_dir", str(run), "--preseqlen", "2"]
        + ["--train_file", str(table(tmp_path)), "--mid_dim", "8", "--max_steps", "40"]
        + ["--use_cpu", "--report_to", "none", "--generate", "no", "--learning_rate", "1e-5"]
    )
    said = capsys.readouterr().out
    shown = [line for line in said.splitlines() if line.startswith("step ")]
    assert len(shown) == 21
    assert shown[0].startswith("step 1/40  loss ")
    assert shown[-1].endswith("  0:00 left")
    assert "note: 40 updates are few" in said
    assert "note: --learning_rate 1e-05 was chosen for GPT-2 medium" in said
    assert f'gen.py {run} --prompt "..."' in said.splitlines()[-1]

    flags = ["--length", "8", "--no_cuda"]
    gen.main([str(run), "--prompt", "say 1", "say 2", *flags])
    both = capsys.readouterr().out.splitlines()[-4:]
    assert both[0] == "say 1"
    (tmp_path / "p.txt").write_text("say 1\n\nsay 2\n", encoding="utf-8")
    gen.main([str(run), "--prompts", str(tmp_path / "p.txt"), *flags])
    assert capsys.readouterr().out.splitlines()[-4:] == both
    monkeypatch.setattr("sys.stdin", io.StringIO("say 2\n\n"))
    gen.main([str(run), "--interactive", *flags])
    assert both[3].strip() in capsys.readouterr().out
    with pytest.raises(UserError, match="what to write"):
        gen.main([str(run)])
    with pytest.raises(UserError, match="there is no such folder"):
        gen.main(["gone", "--prompt", "a"])
    for flag in ("--data_file", "--source_column", "--limit"):
        with pytest.raises(UserError, match=f"{flag}: a data file is decoded by gen.py MODE"):
            gen.main([str(run), "--prompt", "a", flag, "1"])


@pytest.mark.parametrize("is_chat", [True, False])
def test_prompts_are_shown_with_all_their_samples(
    is_chat: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a model that was trained on chats, an input is what the user says."""
    asked: list[Record] = []

    class Writer:
        trained_task: ClassVar[dict[str, Any]] = {"chat": is_chat}

        def prompts(self, _: Any, records: list[Record]) -> list[list[int]]:
            asked.extend(records)
            return [[1] for _ in records]

        def texts(self, _: Any, prompts: list[list[int]]) -> list[tuple[int, str]]:
            return [(i, f"text {i}") for i in reversed(range(2 * len(prompts)))]

    request: Any = SimpleNamespace(how=lambda: SimpleNamespace(n_sample=2))
    write._show(cast(Any, Writer()), request, [("a", "--prompt 1"), ("b", "--prompt 2")])
    shown = "a\n  text 0\n  text 1\nb\n  text 2\n  text 3\n"
    assert capsys.readouterr().out == shown
    chats = [(("user", text),) if is_chat else () for text in ("a", "b")]
    assert [(r.source, r.where, r.chat) for r in asked] == [
        ("a", "--prompt 1", chats[0]),
        ("b", "--prompt 2", chats[1]),
    ]


def test_the_originals_command_lines_are_taken(tiny_folder: Path, tmp_path: Path) -> None:
    """Its launcher passes a bare ``--disable_tqdm``, its gen.py the run as the tokenizer."""
    flags = ["--train_data_file", "a.txt", "--output_dir", "run", "--report_to", "none"]
    flags += ["--tuning_mode", "prefixtune", "--optim_prefix", "yes", "--preseqlen", "5"]
    for value in (["--disable_tqdm"], ["--disable_tqdm", "True"]):
        assert parse([*flags, "--use_cpu", *value, "--seed", "1"]).run.disable_tqdm is True
    assert tokenizer_name(str(tmp_path), str(tiny_folder)) == str(tiny_folder)
    assert tokenizer_name(str(tiny_folder), "gpt2") == str(tiny_folder)
    assert tokenizer_name("other/name", "gpt2") == "other/name"
    assert tokenizer_name(None, "gpt2") == "gpt2"
