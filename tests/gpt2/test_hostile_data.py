"""Data that is not as its format says, and what lies between a prompt and its text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from transformers import PreTrainedTokenizerFast

from gpt2 import gen
from gpt2.data import Format
from gpt2.decoding import output_text
from gpt2.records import subset_size
from gpt2.tasks import Layout, read_records
from harness.lock import locked
from prefix_tuning.beam_search import candidates
from prefix_tuning.errors import UserError
from prefix_tuning.finite import FiniteLogits, usable_rows


def save(path: Path, content: str) -> Path:
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"source": "a", "target": "b", "targets": ["c"]}', "both 'target' and 'targets'"),
        ('{"source": "a", "taget": "b"}', "the field 'taget' is unknown: is 'target' meant?"),
        ('{"source": "a", "Targets": ["b"]}', "is 'targets' meant?"),
        ('{"suorce": "a", "target": "b"}', "the field 'suorce' is unknown: is 'source' meant?"),
        ('{"source": ["a"], "target": "b"}', "'source' is missing or empty"),
        ('{"source": "a", "target": null}', "a target is missing or empty"),
        ('{"source": "a", "targets": [5]}', "a target is missing or empty"),
        ("[" * 20000, "nests too deeply"),
        ('{"source": ' + "9" * 5000 + "}", "too many digits"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_own_records(tmp_path: Path, line: str, message: str, training: bool) -> None:
    path = save(tmp_path / "a.jsonl", f'{{"source": "x", "target": "y"}}\n{line}\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: ") as caught:
        read_records("data2text", path, training)
    assert message in str(caught.value)


def test_further_fields_are_no_mistake(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jsonl", '{"source": "x", "id": 1, "category": "y"}\n')
    assert [r.targets for r in read_records("data2text", path, training=False)] == [()]


def test_half_an_emoji_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jsonl", '\ufeff{"source": "\\ud83d x", "target": "\\ud83d\\ude00"}\n')
    (record,) = read_records("data2text", path, training=True)
    assert (record.source, record.targets) == ("\ufffd x", ("\U0001f600",))
    path = save(tmp_path / "a.txt", "\ufeffpos|||Good .\npos|||Bad .\n")
    assert {r.source for r in read_records("sentiment", path, training=True)} == {"pos"}


WEBNLG = {
    "category": "Food",
    "modifiedtripleset": [{"subject": "a", "property": "p", "object": "b"}],
    "lexicalisations": [
        {"comment": "good", "lex": "A ."},
        {"comment": "bad", "lex": "B ."},
        {"comment": "toFix", "lex": "C ."},
    ],
}


@pytest.mark.parametrize("value", [None, ["b"], 5, {"x": 1}, True])
def test_triples_hold_texts(tmp_path: Path, value: object) -> None:
    entry = json.loads(json.dumps(WEBNLG))
    entry["modifiedtripleset"][0]["object"] = value
    path = save(tmp_path / "a.json", json.dumps({"entries": [{"1": WEBNLG}, {"2": entry}]}))
    with pytest.raises(UserError, match=r"a\.json, entry 2: no WebNLG"):
        read_records("webnlg", path, training=True)
    triples = [[["a", "p", "b"]], [["a", "p", value]]]
    data = [{"tripleset": t, "annotations": [{"text": "A ."}]} for t in triples]
    with pytest.raises(UserError, match=r"a\.json, record 2: no DART record"):
        read_records("triples", save(path, json.dumps(data)), training=True)
    data[1]["tripleset"] = ["abc"]  # type: ignore[list-item]
    with pytest.raises(UserError, match=r"a\.json, record 2: no DART record"):
        read_records("triples", save(path, json.dumps(data)), training=True)


def test_texts_that_are_not_good_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "a.json", json.dumps({"entries": [{"7": WEBNLG}, {"9": WEBNLG}]}))
    assert [r.targets for r in read_records("webnlg", path, training=True)] == [("A .",)] * 2
    assert f"{path}: left out 4 texts" in capsys.readouterr().out
    assert len(read_records("webnlg", path, training=False)[0].targets) == 3
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("mode", "name", "content"),
    [
        ("data2text", "a.txt", "a : b||A .\n ||B .\n"),
        ("sentiment", "a.txt", "pos|||A .\n |||B .\n"),
        ("classify-sentiment", "a.txt", "pos|||A .\nneg||| \n"),
        ("classify-topic", "a.txt", "1||A .\n2|| \n"),
        ("data2text", "a.jsonl", '{"source": "a"}\n{"source": " "}\n'),
        ("xsum", "a.source", "A story .\n\n"),
    ],
)
def test_empty_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str, name: str, content: str
) -> None:
    path = save(tmp_path / name, content)
    if mode == "xsum":
        save(path.with_suffix(".target"), "A .\n\n")
    with pytest.raises(UserError, match=r"line 2: .* is missing or empty; --empty_sources skip"):
        read_records(mode, path, training=False)
    assert len(read_records(mode, path, training=False, skip_empty=True)) == 1
    assert f"{path}: left out 1 of 2 records" in capsys.readouterr().out


def test_sizes() -> None:
    for text in ("9" * 5000, "9" * 5000 + "%", "²", "-1", ""):
        with pytest.raises(UserError, match="expected a number of pairs"):
            subset_size(text, 10)


def test_an_empty_separator_is_one(tokenizer: PreTrainedTokenizerFast) -> None:
    assert Format(tokenizer, "").prompt("a") == " a "
    assert Format(tokenizer, None).prompt("a") == " a " + tokenizer.eos_token
    assert Format(tokenizer, "", Layout("{}", "{}", 5)).encode_prompts(["a"]) == [
        tokenizer("a").input_ids
    ]
    bare = Format(tokenizer, "", Layout(" {} ", " {}"), spaces=False)
    assert bare.prompt("a") == "a"
    assert bare.encode_targets(["a"]) == [[*tokenizer("a").input_ids, tokenizer.eos_token_id]]


@pytest.mark.parametrize("separator", ["", " ", " '", " =>", ".", " n", "\n", "<|endoftext|>"])
@pytest.mark.parametrize("text", [". A pub", " . A pub", "'t go", " 's go", " , a", "! b", "a"])
def test_text_behind_any_separator(
    tokenizer: PreTrainedTokenizerFast, separator: str, text: str
) -> None:
    """It is what it is behind a separator that has nothing to do with it."""
    ids = tokenizer(text).input_ids
    found = output_text(tokenizer, tokenizer(f"a tea {separator}").input_ids, ids)
    assert found == output_text(tokenizer, tokenizer("tea#").input_ids, ids)
    assert found.replace(" ", "") == text.replace(" ", "")


def test_logits_that_are_not_finite_give_no_text() -> None:
    def logits(value: float) -> torch.Tensor:
        rows = torch.randn(2, 3, 7)
        rows[1, 2, 4] = value
        return rows

    alive, too_short = torch.zeros(2, 3), torch.zeros(2, dtype=torch.bool)
    for value in (torch.nan, torch.inf):
        with pytest.raises(UserError, match="not finite numbers, which predict nothing"):
            candidates([logits(value).view(6, 7)], alive, too_short, 0, [])
        with pytest.raises(UserError, match="not finite numbers, which predict nothing"):
            FiniteLogits()(torch.zeros(2, 1, dtype=torch.long), logits(value)[:, 2])
        assert usable_rows(logits(value)[:, 2]).tolist() == [True, False]
    candidates([logits(-torch.inf).view(6, 7)], alive, too_short, 0, [1])
    assert usable_rows(logits(-torch.inf)[:, 2]).all()  # a token that is forbidden


def test_a_prefix_of_another_task_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "tests/fixtures/older_runs/gpt2", tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    flags = "--data_file data/valid.txt --no_score --length 4 --limit 1 --no_cuda"
    for mode, says in (("topic", True), ("data2text", False)):
        gen.main([mode, "yes", "valid", "finished", "no", *flags.split(), "--search", "greedy"])
        note = "finished was trained for data2text, and is decoded as topic"
        assert (note in capsys.readouterr().out) == says
    again = ["data2text", "yes", "valid", "finished", "no", *flags.split()]
    in_use = pytest.raises(UserError, match="finished_valid is in use by process")
    with locked(Path("e2e_results_conv2"), "finished_valid"), in_use:
        gen.main(again)
