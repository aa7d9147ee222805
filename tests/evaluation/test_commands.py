"""Every scorer as a command: table, JSON, and one line for what the user can mend."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.report import Scores, format_table
from prefix_tuning.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
WEBNLG = {"entries": [{"1": {"category": "Food", "lexicalisations": [{"lex": "A soup."}]}}]}
DART = [
    {"tripleset": [["a", "B", "c"]], "annotations": [{"text": "It is A."}]},
    {"tripleset": [["a", "B", "c"]], "annotations": [{"text": "It is a."}]},
]
SQUAD = {"data": [{"paragraphs": [{"qas": [{"id": "1", "answers": [{"text": "cat"}]}]}]}]}

# Name, its options, references, hypotheses, one score to expect.
COMMANDS = [
    ("e2e", ["--segments"], "one two three four\n", "one two three four\n", ("E2E", "BLEU", 1)),
    ("webnlg", ["--segments"], WEBNLG, "a soup .\n", ("All", "TER", 0)),
    ("dart", ["--bertscore_model", "no/such"], DART, "It is A.\n", ("DART", "TER", 0)),
    ("summarization", ["--bootstrap", "1"], "a b\n", "a b\n", ("summaries", "ROUGE-L", 100)),
    (
        "summarization",
        ["--sentence_separator", "|"],
        "a|b\n",
        "b|a\n",
        ("summaries", "ROUGE-L", 50),
    ),
    ("translation", [], "a b\nc d\n", "a b\nc\n", ("translations", "exact", 50)),
    ("classification", ["--task", "cb"], "0\n1\n2\n", "0\n1\n2\n", ("cb", "f1", 1)),
    ("classification", ["--task", "stsb"], "0.5\n1\n2\n", "1\n2\n4\n", ("stsb", "spearmanr", 1)),
    ("qa", ["--task", "squad"], SQUAD, {"1": "the cat"}, ("squad", "f1", 100)),
    ("qa", ["--task", "squad_v2"], SQUAD, {"1": ""}, ("squad_v2", "exact", 0)),
    ("tagging", [], "Ann B-PER\n\nx O\n", "Ann B-PER\n\nx O\n", ("overall", "f1", 1)),
]


def save(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def run(name: str, *arguments: object) -> None:
    importlib.import_module(f"evaluation.{name}").main([str(argument) for argument in arguments])


@pytest.mark.parametrize(("name", "options", "references", "hypotheses", "expected"), COMMANDS)
def test_table_and_json(
    monkeypatch, tmp_path, capsys, name, options, references, hypotheses, expected
):
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java: columns are missing, nothing fails
    suffix = ".txt" if isinstance(references, str) else ".json"
    paths = save(tmp_path / f"refs{suffix}", references), save(tmp_path / "hyps.txt", hypotheses)
    run(name, *paths, *options, "--json", tmp_path / "out.json")
    document = json.loads((tmp_path / "out.json").read_text("utf-8"))
    row, column, value = expected
    assert document["scores"][row]["values"][column] == pytest.approx(value)
    if value in (1, 100):  # the outputs of these are faultless
        assert document["scores"][row]["full"][column] == value
    table = capsys.readouterr().out
    assert row in table
    assert column in table
    for column, why in document["scores"][row]["missing"].items():
        assert f"{column}: {why}" in table


def test_names_in_json_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "été.txt").write_text("a b c d\n", encoding="utf-8")
    run("summarization", *[tmp_path / "été.txt"] * 2, "--json", tmp_path / "out.json")
    assert "été.txt" in (tmp_path / "out.json").read_text("utf-8")


@pytest.mark.parametrize("name", ["e2e", "webnlg", "dart", "summarization"])
def test_counts_are_both_named(tmp_path, name):
    content = {"webnlg": WEBNLG, "dart": DART}.get(name, "one\ntwo\n")
    references = save(tmp_path / ("refs.txt" if isinstance(content, str) else "r.json"), content)
    hypotheses = save(tmp_path / "hyps.txt", "a\n" * 5)
    count = 1 if name == "webnlg" else 2
    message = rf"hyps\.txt against .*: the references have {count} instances, the hypotheses 5"
    with pytest.raises(UserError, match=message):
        run(name, references, hypotheses)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("webnlg", "{", r"refs\.json, line 1: not JSON"),
        ("webnlg", '{"a": 1}', r"refs\.json is not a WebNLG challenge file"),
        ("webnlg", "[1]", r"refs\.json is not a WebNLG challenge file"),
        ("webnlg", '{"entries": [{}]}', r"refs\.json is not a WebNLG challenge file"),
        (
            "webnlg",
            '{"entries": [{"1": {"category": "City", "lexicalisations": [{"lex": null}]}}]}',
            r"refs\.json is not a WebNLG challenge file",
        ),
        ("dart", '[{"a": 1}]', r"refs\.json is not a DART file"),
        ("dart", "7", r"refs\.json is not a DART file"),
        ("dart", "{", r"^\S*refs\.json, line 1: not JSON"),
        (
            "dart",
            '[{"tripleset": [["a", "b", "c"]], "annotations": [{"text": null}]}]',
            r"refs\.json is not a DART file",
        ),
        ("dart", '[{"tripleset": [["a"]], "annotations": []}]', r"refs\.json is not a DART file"),
    ],
)
def test_files_of_another_kind(tmp_path, name, content, message):
    references = save(tmp_path / "refs.json", content)
    with pytest.raises(UserError, match=message):
        run(name, references, save(tmp_path / "hyps.txt", "a\n"))


@pytest.mark.parametrize("suffix", [".xml", ".json"])
def test_truncated_references(tmp_path, suffix):
    references = save(tmp_path / f"refs{suffix}", "<a><b>")
    with pytest.raises(UserError, match=rf"refs{suffix}.* not {suffix[1:].upper()}"):
        run("webnlg", references, save(tmp_path / "hyps.txt", "a\n"))


def test_a_folder_and_a_file_that_is_not_there(tmp_path):
    text = save(tmp_path / "text.txt", "a\n")
    with pytest.raises(UserError, match=r"is a directory: give a file"):
        run("e2e", text, tmp_path)
    with pytest.raises(UserError, match=r"absent: there is no such file"):
        run("e2e", tmp_path / "absent", text)


@pytest.mark.parametrize("seed", ["-1", "4294967296"])
def test_a_seed_that_numpy_has_not(tmp_path, seed):
    text = save(tmp_path / "text.txt", "a\n")
    with pytest.raises(UserError, match=f"--bootstrap {seed}: the seed must be from 0 to"):
        run("summarization", text, text, "--bootstrap", seed)


def test_json_that_cannot_be_written(tmp_path):
    text = save(tmp_path / "text.txt", "1\n")
    with pytest.raises(UserError, match=r"cannot write .*absent"):
        run("classification", text, text, "--task", "rte", "--json", tmp_path / "absent" / "x")


def test_json_does_not_replace_what_was_scored(tmp_path):
    references, outputs = save(tmp_path / "a.txt", "0\n1\n"), save(tmp_path / "b.txt", "1\n1\n")
    for path in (references, tmp_path / "." / "b.txt"):
        with pytest.raises(UserError, match=f"{path.name} is a file that was scored"):
            run("classification", references, outputs, "--task", "rte", "--json", path)
    assert outputs.read_text() == "1\n1\n"


def test_one_line_and_status_2(tmp_path):
    references, hypotheses = save(tmp_path / "refs", "a\nb\n"), save(tmp_path / "hyps", "a\n")
    command = [sys.executable, "-m", "evaluation.e2e", str(references), str(hypotheses)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    expected = f"error: {hypotheses} against {references}: the references have 2 instances"
    assert result.stderr.startswith(expected)
    assert len(result.stderr.splitlines()) == 1


def test_table_layout():
    first = Scores({"BLEU": 12.34567, "METEOR": None}, {"METEOR": "needs Java"}, note="A note")
    second = Scores({"BLEU": 1.0, "TER": 0.5}, note="A note")
    assert format_table({"Seen": first, "All": second}).splitlines() == [
        "         BLEU  METEOR     TER",
        "Seen  12.3457       -       -",
        " All   1.0000       -  0.5000",
        "A note",
        "METEOR: needs Java",
    ]
