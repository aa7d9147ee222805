"""The tasks besides table-to-text: their files, and how every task is laid out and decoded.

======================  ===========================================  ==========================
task                    a line of its file                           training example
======================  ===========================================  ==========================
data2text and others    see ``gpt2/data.py``                         ``" SOURCE S TARGET E"``
writingPrompts          ``PROMPT|||STORY``                           ``" PROMPT S STORY E"``
sentiment, topic        ``LABEL|||TEXT``, ``LABEL||TEXT``            ``" LABELSTEXTE"``
classify-sentiment ...  the same                                     ``" TEXT S LABELE"``
xsum, cnndm             ``NAME.source`` and ``NAME.target``          ``"ARTICLESSUMMARYE"``
======================  ===========================================  ==========================

``S`` is the separator and ``E`` the end token, both ``<|endoftext|>`` in GPT-2; the spaces are as
shown. Decoding starts from everything up to ``S``, exactly as in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt2.records import Record, checked, lines
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_text


@dataclass(frozen=True)
class Layout:
    """The strings around source and target (``{}``), and the most tokens of each."""

    source: str = " {} "
    target: str = " {} "
    max_source: int | None = None
    max_target: int | None = None
    max_evaluated_target: int | None = None
    """Where evaluation cuts targets, if not where training does."""
    cut_target: bool = False
    """Cut what does not fit the model at the end of the target, instead of refusing it."""


@dataclass(frozen=True)
class Task:
    """How a task's examples look and how its texts are made."""

    layout: Layout = Layout()
    search: str = "beam"
    """``beam``, ``greedy`` or ``nucleus``."""
    grouped: bool = True
    """Whether inputs that are the same get one output together, or one each."""


TABLE = Task()
CONTROLLED = Task(Layout(" {}", "{}", cut_target=True), "nucleus")
# So many tokens of a text that prefix and label, or the longest output, still fit beside it.
CLASSIFIED = Task(Layout(" {} ", " {}", max_source=900), "greedy", grouped=False)
TASKS = {
    "data2text": TABLE,
    "webnlg": TABLE,
    "triples": TABLE,
    "writingPrompts": Task(Layout(cut_target=True), "nucleus"),
    "sentiment": CONTROLLED,
    "topic": CONTROLLED,
    "classify-sentiment": CLASSIFIED,
    "classify-topic": CLASSIFIED,
    "xsum": Task(Layout("{}", "{}", max_source=512, max_target=60), grouped=False),
    "cnndm": Task(
        Layout("{}", "{}", max_source=512, max_target=56, max_evaluated_target=142), grouped=False
    ),
}


def _pairs(path: Path, separator: str) -> Iterator[tuple[str, str, str]]:
    """The two sides of every line, cut at the first ``separator``, and where it stands."""
    for line, where in lines(path):
        left, found, right = line.partition(separator)
        if not found:
            raise UserError(f"{where}: no '{separator}' between two texts")
        left = checked(left, f"the text before '{separator}'", where)
        yield left, checked(right, f"the text after '{separator}'", where), where


def read_prompts(path: Path) -> Iterator[Record]:
    """WritingPrompts: brackets back in the prompt, line breaks back in the story."""
    for prompt, story, where in _pairs(path, "|||"):
        prompt = prompt.replace("-lrb-", "(").replace("-rrb-", ")")
        yield Record(prompt, (story.replace("<newline>", "\n"),), where)


def read_sentiment(path: Path) -> Iterator[Record]:
    """IMDB reviews to be written for a label; line breaks back in the text."""
    for label, text, where in _pairs(path, "|||"):
        yield Record(label, (text.replace("< br / >", "\n"),), where)


def read_topic(path: Path) -> Iterator[Record]:
    """AG news to be written for a label."""
    for label, text, where in _pairs(path, "||"):
        yield Record(label, (text,), where)


def read_sentiment_classes(path: Path) -> Iterator[Record]:
    """The same reviews to be classified."""
    return _swapped(read_sentiment(path))


def read_topic_classes(path: Path) -> Iterator[Record]:
    """The same news to be classified."""
    return _swapped(read_topic(path))


def _swapped(records: Iterator[Record]) -> Iterator[Record]:
    for record in records:
        yield Record(record.targets[0], (record.source,), record.where)


def read_parallel(path: Path) -> Iterator[Record]:
    """``NAME.source`` with an article a line, and ``NAME.target`` with its summary."""
    if path.suffix != ".source":
        raise UserError(f"{path}: expected a file NAME.source, beside NAME.target")
    beside = path.with_suffix(".target")
    articles, summaries = (read_text(p).removesuffix("\n").split("\n") for p in (path, beside))
    if len(articles) != len(summaries):
        raise UserError(f"{path} has {len(articles)} lines, {beside} {len(summaries)}")
    for number, (article, summary) in enumerate(zip(articles, summaries, strict=True), start=1):
        article = checked(article, "the article", f"{path}, line {number}")
        summary = checked(summary, "the summary", f"{beside}, line {number}")
        yield Record(article.strip(), (summary.strip(),), f"{path}, line {number}")
