"""Texts, files and names that would do something else than stand in a table."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from experiments import checked_yaml, formats, results, spec
from experiments.model import Cell, Line, RunOf, Table
from prefix_tuning.errors import UserError

NASTY = [
    "two\nlines",
    "empty\n\nline",
    "a|b",
    r"a\|b",
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "[click](javascript:alert(1))",
    "![x](http://tracker)",
    "=cmd|'/C calc'!A0",
    "@SUM(1)",
    "-2+3",
    "\uff1d1+1",
    "[1cm]",
    "*x*",
    "`code`",
    r"\input{/etc/passwd}",
    "100 % & # $ ~ ^ {",
    "# heading",
    "\u2028separator\x0bfeed\x00nul",
]


def table_of(text: str) -> Table:
    runs = [RunOf(text, 1.0, text)]
    cells = {text: Cell(why=text), "BLEU": Cell(1.0, 0.5, 2, runs=runs)}
    line = Line(text, text, text, cells)
    return Table("t", text, [text, "BLEU"], {text: 1, "BLEU": 1}, [line], [text])


@pytest.mark.parametrize("text", NASTY)
def test_markdown(text: str) -> None:
    made = formats.markdown(table_of(text))
    rows = [line for line in made.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    for row in rows:  # as GitHub splits: a backslash takes the next character with it
        assert len(re.findall(r"\||\\.", row)) - len(re.findall(r"\\.", row)) == 3 + 2 + 1
    plain = re.sub(r"\\.", "", made)
    assert not re.search(r"<\w|\]\(|`", plain)
    assert [line for line in made.splitlines() if line.startswith("#")] == made.splitlines()[:1]
    assert len(made.splitlines()) == 2 + 3 + 1 + 3  # title, table, blank line, notes


@pytest.mark.parametrize("text", NASTY)
def test_latex(text: str) -> None:
    made = formats.latex(table_of(text))
    assert "\n\n" not in made
    assert r"\input" not in made
    assert not re.search(r"\\\\\s*[\[*]", made)
    body = [line for line in made.splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in body] == [4, 4]
    assert not re.search(r"(?<!\\)[%#]", made)


@pytest.mark.parametrize("text", NASTY)
def test_csv(text: str) -> None:
    rows = list(csv.reader(formats.csv_text(table_of(text)).splitlines()))
    assert [len(row) for row in rows] == [11, 11, 11]
    assert not any(cell[:1] in "=+-@\uff1d" for row in rows for cell in row if cell)


@pytest.mark.parametrize("text", NASTY)
def test_html(text: str) -> None:
    tags: set[str] = set()
    attributes: set[str] = set()

    class Page(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.add(tag)
            attributes.update(name for name, _ in attrs)

    Page().feed(formats.html(table_of(text)))
    allowed = "html head meta title style body h1 main div table thead tbody tr th td ul li script"
    assert tags == {*allowed.split(), "details", "summary", "code", "br"}
    assert attributes == {*"lang charset name content tabindex data-column data-value".split()}


@pytest.mark.parametrize("name", ["..", ".", ""])
def test_rows_that_would_leave_their_folder(name: str, tmp_path: Path) -> None:
    content = {
        "table": "e2e",
        "title": "A table",
        "launcher": "gpt2/train_e2e.py",
        "scorer": "evaluation.e2e",
        "seeds": [1],
        "common": {"mode": "data2text"},
        "rows": [{"name": name, "flags": {}}],
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(UserError, match="a name that no folder can have"):
        spec.read("x", tmp_path)
    content["rows"] = [{"name": "a", "flags": {}}]
    content["figures"] = [{"name": f"{name}/\nx", "kind": "bars"}]
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(UserError, match=r"^[^\n]*no name of a file$"):
        spec.read("x", tmp_path)
    with pytest.raises(UserError, match=r"TABLE \.\./x"):
        spec.read("../x", tmp_path)


def test_yaml_that_grows(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    path = tmp_path / "x.yaml"
    for content, message in (
        ("\n".join(lines), "aliases"),
        ("a: &a [*a]", "an alias holds itself"),
        ("[" * 20000, "nests too deeply"),
        ("a: " + "9" * 5000, "not YAML"),
        ("a: 2021-99-99", "not YAML"),
        ("a: 1\nb: {x: 1, y: 2, x: 3}", "'x' comes twice.*line 2"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=message) as error:
            checked_yaml.load(path)
        assert len(str(error.value)) < 500
    path.write_text("a: &a [1, 2]\nb: *a", encoding="utf-8")
    assert checked_yaml.load(path) == {"a": [1, 2], "b": [1, 2]}


GOOD = {
    "settings": {"flags": {}},
    "scores": {"test": {"BLEU": 1.5, "METEOR": None}},
    "missing": {"test": {"METEOR": "Java"}},
    "seconds": {"train": 1.0},
    "resumed": False,
    "steps": None,
    "n_inputs": 3,
    "device": "a CPU",
    "versions": {"torch": "2"},
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scores", {"test": {"BLEU": float("nan")}}),
        ("scores", {"test": {"BLEU": float("inf")}}),
        ("scores", {"test": {"BLEU": "1.5"}}),
        ("scores", {"test": {"BLEU": True}}),
        ("scores", []),
        ("scores", {"test": []}),
        ("missing", {"test": 3}),
        ("settings", {"flags": []}),
        ("settings", {}),
        ("settings", {"flags": {}, "decoding": None}),
        ("scores", {"test": {"BLEU": 10**400}}),
        ("seconds", {"train": -1.0}),
        ("seconds", [1]),
        ("steps", -1),
        ("n_inputs", "3"),
        ("device", None),
        ("versions", {}),
        ("parameters", {"trained": "many"}),
        ("disk_mb", float("inf")),
    ],
)
def test_results_of_another_shape(field: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "seed1.json"
    path.write_text(json.dumps(GOOD), encoding="utf-8")
    assert results.read_result(path) == GOOD
    path.write_text(json.dumps(GOOD | {field: value}), encoding="utf-8")
    with pytest.raises(UserError, match=rf"seed1\.json, field {field}: expected .*: remove it"):
        results.read_result(path)


def test_failures_and_papers_of_another_shape(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for content in ("{}", '{"reason": ["a"]}'):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match="says no reason"):
            results.read_failure(path)
    for content in ("{}", '{"title": "a", "columns": [1], "entries": []}'):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match="data/paper_results/README"):
            results.read_paper(path)
