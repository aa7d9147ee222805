"""XSum's extrapolation splits (section 6.4 of the paper): train on some topics, test on others.

    python scripts/xsum_topics.py --split news_sports --train RAW --val RAW --test RAW \\
        --ids XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json --out data/xsum_news_sports

RAW is any number of: a folder of the ``.summary`` files that XSum's own scripts write, such files
themselves, or JSONL and CSV files with the columns url, document and summary (and id, for --ids).

An article's topic comes from its URL. news_sports trains and validates on everything under "news"
and tests on "sport"; within_news trains and validates on UK, business and world news and tests on
all other news.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tqdm import tqdm

from prefix_tuning.errors import UserError, run_command
from prefix_tuning.files import read_text
from scripts.sampling import random_subset
from seq2seq.files import ROWS, Record, write_splits

SECTIONS = ("URL", "TITLE", "FIRST-SENTENCE", "RESTBODY")
BOILERPLATE = {
    "Share this with",
    "Email",
    "Facebook",
    "Messenger",
    "Twitter",
    "Pinterest",
    "WhatsApp",
    "Linkedin",
    "LinkedIn",
    "Copy this link",
    "These are external links and will open in a new window",
}
"""Lines of the page around an article."""
ID_SPLITS = {"train": "train", "val": "validation", "test": "test"}
SEEN_IN_TRAINING = {("news", "uk"), ("news", "business"), ("news", "world")}

Topic = tuple[str, ...]


@dataclass(frozen=True)
class Article:
    """A raw article."""

    url: str
    document: str
    summary: str
    where: str


def topic_of(url: str) -> Topic:
    """The topic in the URL of an article, from the general to the special.

    Of the last three parts of the path, the last is the article's own: its number, or a slug that
    begins with the narrower topic, as in ``news/uk-england-london-123``.
    """
    parts = url.strip().strip("/").split("/")[-3:]
    if parts[0].startswith("www."):
        del parts[0]
    if not parts:
        return ()
    *topic, last = parts
    if not last.isdigit() and "-" in last:
        topic.append(last.split("-")[0])
    return tuple(topic)


def belongs(split_name: str, split: str, topic: Topic) -> bool:
    """Whether an article of ``topic`` is in this split of ``news_sports`` or ``within_news``."""
    if split_name == "news_sports":
        return topic[:1] == (("sport",) if split == "test" else ("news",))
    return topic[:1] == ("news",) and (topic in SEEN_IN_TRAINING) == (split != "test")


def join(text: str) -> str:
    """The lines of a text without those of the page around it, as one line.

    There is no blank between the end of one line and the beginning of the next: the original
    deletes the line breaks, and its model was trained on such documents.
    """
    lines = (line.strip() for line in re.split(r"[\r\n]+", text))
    return "".join(line for line in lines if line not in BOILERPLATE)


def read_summary(path: Path) -> Article:
    """A ``.summary`` file: ``[SN]NAME[SN]`` and the section's text, four times."""
    _, *fields = read_text(path).split("[SN]")
    sections = dict(zip(fields[::2], fields[1::2], strict=False))
    for name in SECTIONS:
        if name not in sections:
            raise UserError(f"{path} has no section [SN]{name}[SN]: not one of XSum's raw articles")
    return Article(
        sections["URL"], sections["RESTBODY"], sections["FIRST-SENTENCE"], where=str(path)
    )


def _read_table(path: Path, ids: set[str] | None) -> Iterator[Article]:
    for row, where in ROWS[path.suffix](path):
        missing = {"url", "document", "summary", *(["id"] if ids is not None else [])} - row.keys()
        if missing:
            raise UserError(f"{where}: no {', '.join(sorted(missing))}")
        if ids is None or str(row["id"]) in ids:
            texts = (row["url"], row["document"], row["summary"])
            if not all(isinstance(text, str) for text in texts):
                raise UserError(f"{where}: url, document and summary have to be texts")
            yield Article(*texts, where)


def read_articles(paths: Sequence[Path], ids: set[str] | None = None) -> Iterator[Article]:
    """The articles of files and folders in their order, of a folder in that of file names.

    Args:
        ids: leave out all others. The name of a ``.summary`` file is its id.
    """
    for path in paths:
        if path.is_file() and path.suffix in (".jsonl", ".csv"):
            yield from tqdm(_read_table(path, ids), path.name, disable=None)
            continue
        files = sorted(path.glob("*.summary")) if path.is_dir() else [path]
        if not files:
            raise UserError(f"{path} holds no .summary files")
        for file in tqdm(files, path.name, disable=None):
            if ids is None or file.stem in ids:
                yield read_summary(file)


def select(articles: Iterable[Article], split_name: str, split: str) -> list[Record]:
    """The articles of one split; those without a document or a summary are left out."""
    records = []
    for article in articles:
        if belongs(split_name, split, topic_of(article.url)):
            source, target = join(article.document), join(article.summary)
            if source and target:
                records.append(Record(source, target, article.where))
    return records


def _read_ids(path: Path) -> dict[str, set[str]]:
    text = read_text(path)
    try:
        value = json.loads(text)
        return {split: set(map(str, value[ID_SPLITS[split]])) for split in ID_SPLITS}
    except (ValueError, KeyError, TypeError) as error:
        reason = "expected lists of ids under train, validation and test"
        raise UserError(f"{path}: {reason} ({error!r})") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--split",
        required=True,
        choices=["news_sports", "within_news"],
        help="topics to train and test on",
    )
    for split in ID_SPLITS:
        text = f"articles from which {split} is taken"
        add(f"--{split}", type=Path, nargs="+", required=True, metavar="RAW", help=text)
    add("--ids", type=Path, metavar="JSON", help="XSum's own split, kept to within each of them")
    add("--out", type=Path, required=True, help="folder to write, which must not exist")
    add("--max_test", type=int, help="most test articles, drawn at random (the original: 8000)")
    add("--seed", type=int, default=0, help="seed of the drawing")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    if args.out.exists():
        raise UserError(f"--out {args.out} exists already: remove it or choose another folder")
    ids = _read_ids(args.ids) if args.ids else {}
    splits = {}
    for split in ID_SPLITS:
        articles = read_articles(getattr(args, split), ids.get(split))
        splits[split] = select(articles, args.split, split)
        if not splits[split]:
            raise UserError(f"--{split}: none of these articles belongs to {args.split}'s {split}")
    if args.max_test is not None:
        splits["test"] = random_subset(splits["test"], args.max_test, args.seed)
    write_splits(args.out, splits)
    counts = ", ".join(f"{len(records):,} {split}" for split, records in splits.items())
    print(f"{args.out}: {counts}")


if __name__ == "__main__":
    run_command(main)
