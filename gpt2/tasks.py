"""The tasks, one row each: reader, files, layout, search, folders, scorer.

======================  ===========================================  ==========================
task                    a line of its file                           training example
======================  ===========================================  ==========================
data2text and others    see ``gpt2/readers.py``                      ``" SOURCE S TARGET E"``
writingPrompts          ``PROMPT|||STORY``                           ``" PROMPT S STORY E"``
sentiment, topic        ``LABEL|||TEXT``, ``LABEL||TEXT``            ``" LABELSTEXTE"``
classify-sentiment ...  the same                                     ``" TEXT S LABELE"``
xsum, cnndm             ``NAME.source`` and ``NAME.target``          ``"ARTICLESSUMMARYE"``
======================  ===========================================  ==========================

``S`` is the separator and ``E`` the end token, both ``<|endoftext|>`` in GPT-2; the spaces are as
shown. Decoding starts from everything up to ``S``, exactly as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from evaluation.scorers import SCORERS, Scorer
from gpt2 import readers
from gpt2.readers import Record
from harness import own_files
from harness.own_data import Columns
from harness.sources import with_sources
from prefix_tuning.errors import UserError

Reader = Callable[[Path], Iterable[Record]]
DATA = Path(__file__).resolve().parents[1] / "data"


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
    """A task: where its data is, how its examples look, how its texts are made and scored."""

    read: Reader
    files: dict[str, Path]
    """Split (``train``, ``valid``, ``test``) -> where the original's repository keeps its file."""
    runs: str
    """The original's folder of trained runs."""
    results: str
    """The original's folder of decoded texts."""
    scorer: Scorer = SCORERS["e2e"]
    read_training: Reader | None = None
    """The reader of training files, if it is another."""
    layout: Layout = Layout()
    search: str = "beam"
    """``beam``, ``greedy`` or ``nucleus``."""
    grouped: bool = True
    """Whether inputs that are the same get one output together, or one each."""
    keeps_sources: bool = True
    """Whether the prompts are written beside the texts."""


def files(folder: str, train: str, valid: str, test: str | None) -> dict[str, Path]:
    """Split -> file, below ``data/``."""
    names = {"train": train, "valid": valid, "test": test}
    return {split: DATA / folder / name for split, name in names.items() if name}


_DART = "dart-v1.1.1-full"
_CONTROLLED = Layout(" {}", "{}", cut_target=True)
# A text is cut so that prefix and label, or the longest output, still fit beside it.
_CLASSIFIED = Layout(" {} ", " {}", max_source=900)
_IMDB = files("imdb", "train.txt", "dev.txt", "test.txt")
_NEWS = files("agnews", "train1.tsv", "dev1.tsv", "dev1.tsv")

TASKS: dict[str, Task] = {
    "data2text": Task(
        readers.read_e2e,
        files("e2e_data", "src1_train.txt", "src1_valid.txt", "src1_test.txt"),
        runs="save_e2e_models_convcheck",
        results="e2e_results_conv2",
    ),
    "webnlg": Task(
        readers.read_webnlg,
        files("webnlg_challenge_2017", "train.json", "dev.json", "test.json"),
        runs="webnlg_models",
        results="webNLG_results2",
        scorer=SCORERS["webnlg"],
        read_training=readers.read_webnlg_training,
    ),
    "triples": Task(
        readers.read_dart,
        files("dart", f"{_DART}-train.json", f"{_DART}-dev.json", f"{_DART}-test.json"),
        runs="triples_models",
        results="triples_results",
        scorer=SCORERS["dart"],
    ),
    "writingPrompts": Task(
        readers.read_prompts,
        files("writingPrompts", "train_small.txt", "valid_small.txt", None),
        runs="wp_models",
        results="wp_results",
        layout=Layout(cut_target=True),
        search="nucleus",
    ),
    "sentiment": Task(
        readers.read_sentiment,
        _IMDB,
        runs="sentiment_models",
        results="class_conditional_results",
        layout=_CONTROLLED,
        search="nucleus",
    ),
    "topic": Task(
        readers.read_topic,
        _NEWS,
        runs="topic_models",
        results="class_conditional_results",
        layout=_CONTROLLED,
        search="nucleus",
    ),
    "classify-sentiment": Task(
        readers.read_sentiment_classes,
        _IMDB,
        runs="classification_models",
        results="classify_results",
        scorer=SCORERS["accuracy"],
        layout=_CLASSIFIED,
        search="greedy",
        grouped=False,
    ),
    "classify-topic": Task(
        readers.read_topic_classes,
        _NEWS,
        runs="classification_models",
        results="classify_results",
        scorer=SCORERS["accuracy"],
        layout=_CLASSIFIED,
        search="greedy",
        grouped=False,
    ),
    "xsum": Task(
        readers.read_parallel,
        files("xsum", "train.source", "val.source", "test.source"),
        runs="xsum_models",
        results="xsum_results2",
        scorer=SCORERS["summarization"],
        layout=Layout("{}", "{}", max_source=512, max_target=60),
        grouped=False,
        keeps_sources=False,  # a second copy of the articles would serve nobody
    ),
    "cnndm": Task(
        readers.read_parallel,
        files("cnn_dm", "train.source", "val.source", "test.source"),
        runs="cnndm_models",
        results="xsum_results2",
        scorer=SCORERS["summarization"],
        layout=Layout("{}", "{}", max_source=512, max_target=56, max_evaluated_target=142),
        grouped=False,
        keeps_sources=False,
    ),
}
"""Mode -> task; a new one is a row here and perhaps a reader."""


def is_own(mode: str, data: str | Path) -> bool:
    """Whether data is one's own, and in none of the formats that a mode has of its own."""
    endings = {path.suffix for path in TASKS[mode].files.values()}
    return Path(data).suffix not in endings and own_files.is_own(data)


def read_records(
    mode: str,
    path: str | Path,
    training: bool,
    skip_empty: bool = False,
    columns: Columns | None = None,
    split: str = "train",
) -> list[Record]:
    """Read a data file of ``mode``, or one's own data in a format of :mod:`harness.own_files`.

    Prints how many inputs and texts are left out, if any.

    Args:
        training: leave out what the original does not train on, and require targets.
        skip_empty: leave out inputs of which the source is empty, instead of refusing them.
        columns: of one's own data; guessed if not given.
        split: of a folder or a data set of the hub.

    Raises:
        UserError: naming the file and the line or entry that is wrong.
    """
    task = TASKS[mode]
    read = (task.read_training or task.read) if training else task.read
    found: Iterable[Record]
    if is_own(mode, path):
        found = readers.read_own(path, training, columns, split)
    elif columns is not None and (columns.source or columns.target):
        raise UserError(f"--source_column, --target_column: {path} has no columns; leave them out")
    else:
        found = read(Path(path))
    records = with_sources(found, skip_empty, Path(path))
    left_out = sum(record.left_out for record in records)
    if left_out:
        print(f"{path}: left out {left_out} texts, which are not marked good")
    if not records:
        raise UserError(f"{path}: the file has no records")
    if training and not any(record.targets for record in records):
        raise UserError(f"{path}: no record has a text to train on")
    return records
