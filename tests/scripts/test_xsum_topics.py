"""The extrapolation splits, from raw articles written for the test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefix_tuning.errors import UserError
from scripts import xsum_topics

ARCHIVE = "http://web.archive.org/web/20140801080154/http://www.bbc.co.uk"
RAW = """[SN]URL[SN]
{url}

[SN]TITLE[SN]
A title

[SN]FIRST-SENTENCE[SN]
{summary}

[SN]RESTBODY[SN]
{document}
"""
ARTICLES = {
    "1": "/news/uk-england-london-1",
    "2": "/news/business-2",
    "3": "/news/3",
    "4": "/news/health-4",
    "5": "/sport/football/5",
    "6": "/sport/0/golf/6",
    "7": "/newsbeat/7",
}


def write_article(folder: Path, name: str, path: str, document: str = "One.\nTwo.") -> Path:
    file = folder / f"{name}.summary"
    text = RAW.format(url=ARCHIVE + path, summary=f"Summary {name}.", document=document)
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, path in ARTICLES.items():
        write_article(folder, name, path)
    return folder


def run(raw: Path, out: Path, *more: str, split: str = "news_sports") -> dict[str, list[str]]:
    sources = [x for s in ("train", "val", "test") for x in (f"--{s}", str(raw))]
    xsum_topics.main(["--split", split, "--out", str(out), *sources, *more])
    return {path.name: path.read_text("utf-8").splitlines() for path in out.iterdir()}


@pytest.mark.parametrize(
    ("url", "topic"),
    [
        (f"{ARCHIVE}/news/uk-england-london-123", ("news", "uk")),
        (f"{ARCHIVE}/sport/football/123", ("sport", "football")),
        (f"{ARCHIVE}/news/123\n", ("news",)),
        (f"{ARCHIVE}/newsbeat/10000983", ("newsbeat",)),
        (f"{ARCHIVE}/sport/0/football/123/", ("0", "football")),
        ("http://www.bbc.com/news/world-europe-1", ("news", "world")),
        ("http://news.bbc.co.uk/sport/boxing/1", ("sport", "boxing")),
        ("some-url", ("some",)),
        ("", ()),
    ],
)
def test_topic_of(url: str, topic: tuple[str, ...]) -> None:
    assert xsum_topics.topic_of(url) == topic


def test_news_to_sports(raw: Path, tmp_path: Path) -> None:
    files = run(raw, tmp_path / "out")
    news = ["Summary 1.", "Summary 2.", "Summary 3.", "Summary 4."]
    assert files["train.target"] == files["val.target"] == news
    assert files["test.target"] == ["Summary 5."]
    assert files["test.source"] == ["One.Two."]


def test_within_news(raw: Path, tmp_path: Path) -> None:
    files = run(raw, tmp_path / "out", split="within_news")
    assert files["train.target"] == files["val.target"] == ["Summary 1.", "Summary 2."]
    assert files["test.target"] == ["Summary 3.", "Summary 4."]


def test_page_and_blank_lines_are_removed(raw: Path, tmp_path: Path) -> None:
    document = "Share this with\r\n\nEmail\nFirst line. \nFacebook page\nTwitter\n Last.\nLinkedin"
    write_article(raw, "1", ARTICLES["1"], document)
    write_article(raw, "2", ARTICLES["2"], "Email\n\n")  # nothing is left of it
    files = run(raw, tmp_path / "out")
    assert files["train.target"] == ["Summary 1.", "Summary 3.", "Summary 4."]
    assert files["train.source"][0] == "First line.Facebook pageLast."


def test_own_split_of_ids(raw: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps({"train": ["1", "4"], "validation": ["2", "5"], "test": ["5", "3"]}))
    files = run(raw, tmp_path / "out", "--ids", str(ids))
    assert files["train.target"] == ["Summary 1.", "Summary 4."]
    assert files["val.target"] == ["Summary 2."]
    assert files["test.target"] == ["Summary 5."]
    ids.write_text(json.dumps({"train": ["1"]}))
    with pytest.raises(UserError, match="expected lists of ids under train, validation and test"):
        run(raw, tmp_path / "other", "--ids", str(ids))


def test_a_random_part_of_the_test_articles(raw: Path, tmp_path: Path) -> None:
    for number in range(10, 40):
        write_article(raw, str(number), f"/sport/golf/{number}")
    whole = run(raw, tmp_path / "whole")["test.target"]
    a = run(raw, tmp_path / "a", "--max_test", "8")["test.target"]
    b = run(raw, tmp_path / "b", "--max_test", "8", "--seed", "1")["test.target"]
    assert len(a) == len(b) == 8
    assert a != b
    assert a == [line for line in whole if line in a]
    assert run(raw, tmp_path / "c", "--max_test", "8")["test.target"] == a
    assert run(raw, tmp_path / "d", "--max_test", "99")["test.target"] == whole


def test_tables_give_the_same_as_raw_articles(raw: Path, tmp_path: Path) -> None:
    rows = [
        {"id": n, "url": ARCHIVE + p, "document": "One.\nTwo.\n", "summary": f"Summary {n}."}
        for n, p in ARTICLES.items()
    ]
    table = tmp_path / "articles.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert run(table, tmp_path / "one") == run(raw, tmp_path / "two")
    table = tmp_path / "articles.csv"
    lines = [f'{r["id"]},"{r["document"]}",{r["url"]},{r["summary"]}' for r in rows]
    table.write_text("\n".join(["id,document,url,summary", *lines]), encoding="utf-8")
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps({"train": [1, 7], "validation": [4], "test": [5, 6]}))
    files = run(table, tmp_path / "three", "--ids", str(ids))
    assert [files[f"{s}.target"] for s in ("train", "val", "test")] == [
        ["Summary 1."],
        ["Summary 4."],
        ["Summary 5."],
    ]


def test_the_files_of_xsums_own_fixture(shared: Path) -> None:
    folder = next((shared / "data/hf_format_fixtures/xsum/1.2.0").rglob("bbc-summary-data"))
    first, second = xsum_topics.read_articles([folder])
    assert xsum_topics.topic_of(first.url) == ("newsbeat",)
    assert xsum_topics.join(first.summary).endswith("Any ideas what it could be?")
    document = xsum_topics.join(first.document)
    assert "over in America.It's all part" in document
    assert document.endswith('care for their illnesses."')
    assert second.document.strip() == "some-body"


def test_mistakes(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bad = raw / "8.summary"
    bad.write_text("[SN]URL[SN]\nx\n[SN]TITLE[SN]\ny\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"8\.summary has no section \[SN\]FIRST-SENTENCE\[SN\]"):
        run(raw, out)
    bad.unlink()
    with pytest.raises(UserError, match="none of these articles belongs to news_sports's test"):
        run(raw / "1.summary", out)
    with pytest.raises(UserError, match="there is no such file"):
        run(raw / "none.summary", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no \.summary files"):
        run(tmp_path / "empty", out)
    table = tmp_path / "a.jsonl"
    table.write_text('{"document": "a", "summary": "b"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl, line 1: no url"):
        run(table, out)
    ids = tmp_path / "ids.json"
    ids.write_text('{"train": [], "validation": [], "test": []}', encoding="utf-8")
    table.write_text('{"document": "a", "summary": "b", "url": "c"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl, line 1: no id"):
        run(table, out, "--ids", str(ids))
    table.write_text('{"document": null, "summary": "b", "url": "c"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"line 1: url, document and summary have to be texts"):
        run(table, out)
    assert not out.exists()
    out.mkdir()
    with pytest.raises(UserError, match=r"--out .* exists already"):
        run(raw, out)
