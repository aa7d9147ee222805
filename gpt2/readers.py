"""Readers: every file format -> :class:`Record`.

Table-to-text is read from E2E's ``SOURCE||TARGET`` lines, the WebNLG 2017 JSON, DART's JSON, or
one's own data; the other tasks from lines with a separator, or from two parallel files. A source
may be empty here: :func:`harness.sources.with_sources` refuses it or leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import own_data, own_files
from harness.own_data import Columns
from prefix_tuning.errors import UserError
from prefix_tuning.files import numbered_lines, read_json, read_text

_BREAK = "< br / >"
_BEFORE = "the text before '|||'"


@dataclass(frozen=True)
class Record:
    """One input and its references, in the order of the file."""

    source: str
    targets: tuple[str, ...]
    where: str
    """File and line (or entry), for messages."""
    relations: tuple[str, ...] | None = None
    """Relation names of a set of triples; part of the identity of a WebNLG or DART input."""
    category: str | None = None
    """WebNLG's category, which decides whether an entry counts as seen."""
    source_name: str = "the source"
    """What the format calls the source, for messages."""
    left_out: int = 0
    """Texts of the file that are no targets on purpose."""
    chat: tuple[tuple[str, str], ...] = ()
    """Role and text of the turns before the target, where the record is of a chat."""
    prefix: object = None
    """The name of its prefix: see :mod:`harness.banked`."""


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Non-blank lines and where they stand."""
    return ((line, where) for line, where in numbered_lines(path) if line.strip())


def checked(value: Any, what: str, where: str) -> str:
    """``value`` if it is a text with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {what} is missing or empty")
    return value


def read_e2e(path: Path) -> Iterator[Record]:
    """``SOURCE||TARGET`` lines, one reference each."""
    for line, where in lines(path):
        if line.count("||") != 1:
            raise UserError(
                f"{where}: expected SOURCE||TARGET, found {line.count('||')} times '||'"
            )
        source, target = line.split("||")
        yield Record(source, (checked(target, "the target", where),), where)


def read_webnlg(path: Path) -> Iterator[Record]:
    """The WebNLG 2017 challenge's JSON, with all its lexicalisations."""
    return _read_webnlg(path, good_only=False)


def read_webnlg_training(path: Path) -> Iterator[Record]:
    """The same with the lexicalisations marked "good" only, as the original trains on."""
    return _read_webnlg(path, good_only=True)


def _read_webnlg(path: Path, good_only: bool) -> Iterator[Record]:
    data = read_json(path)
    entries = data.get("entries") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise UserError(f"{path}: expected WebNLG 2017 JSON, an object with a list 'entries'")
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, entry {number}"
        try:
            (entry,) = entry.values()  # a subset keeps the numbers of the whole
            triples = [
                _triple((triple["subject"], triple["property"], triple["object"]))
                for triple in entry["modifiedtripleset"]
            ]
            every = entry["lexicalisations"]
            texts = tuple(
                checked(text["lex"], "a lexicalisation", where)
                for text in every
                if not good_only or text["comment"] == "good"
            )
            category = entry.get("category")
            if not isinstance(category, str | None):
                raise TypeError(f"the category {category!r} is not a text")
        except KeyError as error:
            raise UserError(f"{where}: {error!s} is missing, no WebNLG 2017 entry") from error
        except UserError:
            raise
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"{where}: no WebNLG 2017 entry ({error!s})") from error
        # A bar in front of every triple, the first one too (the paper's text shows it without).
        source = "".join(f" | {s} : {p} : {o}" for s, p, o in triples)
        relations = tuple(p for _, p, _ in triples)
        left_out = len(every) - len(texts)
        yield Record(source, texts, where, relations, category, "modifiedtripleset", left_out)


def _triple(parts: Sequence[str]) -> Sequence[str]:
    """``parts`` if they are three texts; a text would be read as its characters."""
    if isinstance(parts, str) or not all(isinstance(part, str) for part in parts):
        raise TypeError(f"{parts!r} is not a triple of texts")
    return parts


def read_dart(path: Path) -> Iterator[Record]:
    """DART's JSON. Relations are lower-cased, as in the original and here alone."""
    data = read_json(path)
    if not isinstance(data, list):
        raise UserError(f"{path}: expected DART JSON, a list of records")
    for number, entry in enumerate(data, start=1):
        where = f"{path}, record {number}"
        try:
            triples = [(s, p.lower(), o) for s, p, o in map(_triple, entry["tripleset"])]
            texts = tuple(checked(a["text"], "a text", where) for a in entry["annotations"])
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{where}: no DART record ({error!s})") from error
        source = " | ".join(f"{s} : {p} : {o}" for s, p, o in triples)
        relations = tuple(p for _, p, _ in triples)
        yield Record(source, texts, where, relations, source_name="tripleset")


def read_own(
    data: Path | str, training: bool, columns: Columns | None = None, split: str = "train"
) -> Iterator[Record]:
    """One's own data, in any format of :mod:`harness.own_files`.

    A record without a target can be decoded but not trained on.
    """
    rows = own_files.read_rows(data, split)
    for pair in own_data.pairs(rows, columns or Columns(), training):
        name, chat, prefix = pair.name, pair.chat, pair.prefix
        yield Record(
            pair.source, pair.targets, pair.where, source_name=name, chat=chat, prefix=prefix
        )


def _pairs(path: Path, separator: str, source: int = 0) -> Iterator[tuple[str, str, str]]:
    """Source and target of every line, cut at the first ``separator``, and where it stands.

    Args:
        source: which side it is, 0 or 1.
    """
    for line, where in lines(path):
        left, found, right = line.partition(separator)
        if not found:
            raise UserError(f"{where}: no '{separator}' between two texts")
        sides = (left, right) if source == 0 else (right, left)
        place = "after" if source == 0 else "before"
        yield sides[0], checked(sides[1], f"the text {place} '{separator}'", where), where


def read_prompts(path: Path) -> Iterator[Record]:
    """WritingPrompts: brackets back in the prompt, line breaks back in the story."""
    for prompt, story, where in _pairs(path, "|||"):
        prompt = prompt.replace("-lrb-", "(").replace("-rrb-", ")")
        yield Record(prompt, (story.replace("<newline>", "\n"),), where, source_name=_BEFORE)


def read_sentiment(path: Path) -> Iterator[Record]:
    """IMDB reviews to be written for a label; line breaks back in the text."""
    for label, text, where in _pairs(path, "|||"):
        yield Record(label, (text.replace(_BREAK, "\n"),), where, source_name=_BEFORE)


def read_topic(path: Path) -> Iterator[Record]:
    """AG news to be written for a label."""
    for label, text, where in _pairs(path, "||"):
        yield Record(label, (text,), where, source_name="the text before '||'")


def read_sentiment_classes(path: Path) -> Iterator[Record]:
    """The same reviews to be classified."""
    for text, label, where in _pairs(path, "|||", source=1):
        text = text.replace(_BREAK, "\n")
        yield Record(text, (label,), where, source_name="the text after '|||'")


def read_topic_classes(path: Path) -> Iterator[Record]:
    """The same news to be classified."""
    for text, label, where in _pairs(path, "||", source=1):
        yield Record(text, (label,), where, source_name="the text after '||'")


def read_parallel(path: Path) -> Iterator[Record]:
    """``NAME.source`` with an article a line, and ``NAME.target`` with its summary."""
    if path.suffix != ".source":
        raise UserError(f"{path}: expected a file NAME.source, beside NAME.target")
    beside = path.with_suffix(".target")
    articles, summaries = (read_text(p).removesuffix("\n").split("\n") for p in (path, beside))
    if len(articles) != len(summaries):
        raise UserError(f"{path} has {len(articles)} lines, {beside} {len(summaries)}")
    for number, (article, summary) in enumerate(zip(articles, summaries, strict=True), start=1):
        where, summary = f"{path}, line {number}", summary.strip()
        if article.strip():
            checked(summary, "the summary", f"{beside}, line {number}")
        yield Record(article.strip(), (summary,), where, source_name="the article")
