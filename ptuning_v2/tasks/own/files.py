"""Files of one's own -> rows: which columns are texts and labels, and what is held out.

Nothing here needs torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.own_files import Row, read_rows
from prefix_tuning.errors import UserError
from ptuning_v2.own_data import OwnData

T = TypeVar("T")
TEXTS = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("text1", "text2")),
    *(("question1", "question2"), ("question", "sentence"), ("question", "passage")),
    *(("text",), ("sentence",), ("review",), ("content",), ("question",), ("tweet",)),
)
"""Names of the column of a text, or of the two of a pair, that are tried."""
WORDS = (("tokens",), ("words",))
"""Names of a column that holds the words of a sentence."""
LABELS = ("label", "labels", "class", "category", "intent", "sentiment", "topic", "target")
_SPLIT = {"train": "train", "validation": "valid", "test": "test"}
TAGS = ("tags", "ner_tags", "labels", "pos_tags")


@dataclass(frozen=True)
class Columns:
    """Which columns are read; those that are not named are guessed.

    Attributes:
        known_texts: names of the texts that are tried.
        known_labels: and of the label.
    """

    texts: tuple[str, ...] = ()
    label: str | None = None
    known_texts: tuple[tuple[str, ...], ...] = TEXTS
    known_labels: tuple[str, ...] = LABELS

    def find(
        self, names: Collection[str], needs_label: bool, where: str
    ) -> tuple[tuple[str, ...], str | None]:
        """The columns of the texts, and that of the label, which is None where there is none.

        Raises:
            UserError: there are none, or none of the name that a flag gives.
        """
        for flag, name in (
            *zip(("--text_column", "--text_pair_column"), self.texts, strict=False),
            ("--label_column", self.label),
        ):
            if name is not None and name not in names:
                if flag == "--label_column" and not needs_label:
                    continue
                raise UserError(
                    f"{where}: {flag} {name}: there is no such column; there are {', '.join(names)}"
                )
        tried = [self.texts] if self.texts else self.known_texts
        texts = next((found for found in tried if {*found} <= {*names}), None)
        labels = [self.label] if self.label else self.known_labels
        label = next((found for found in labels if found in names), None)
        if texts is None or (label is None and needs_label):
            what, flag = ("label", "--label_column") if texts else ("text", "--text_column")
            raise UserError(
                f"{where}: which of {', '.join(names)} is the {what} is not clear; name it with "
                f"{flag}"
            )
        return texts, label


@dataclass(frozen=True)
class Labelled:
    """A row of a file, and what it is labelled."""

    values: tuple[Any, ...]
    """Of the columns of the texts."""
    label: Any
    """None where the row has none."""
    where: str


def labelled(
    data: str,
    split: str,
    columns: Columns,
    needs_label: bool,
    say: Callable[[str], object] = print,
) -> Iterator[Labelled]:
    """The rows of a file, a folder or a data set of the hub.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``, for what has several.
        needs_label: whether every row must have a label.
        say: gets a sentence that names the columns, where they were guessed.

    Raises:
        UserError: naming file, line and column.
    """
    found: tuple[tuple[str, ...], str | None] | None = None
    for row, where in rows_of(data, split):
        if found is None:
            found = columns.find(row, needs_label, where)
            if not (columns.texts and columns.label):
                say(_found_sentence(data, *found))
        _check_columns(row, found, columns, where)
        yield _row(row, *found, needs_label, where)


def _found_sentence(data: str, texts: tuple[str, ...], label: str | None) -> str:
    left = " and ".join(map(repr, texts))
    right = f"the label {label!r}" if label else "and there is no label"
    return f"{data}: the text is {left}, {right} (--text_column, --label_column name others)"


def _check_columns(
    row: Mapping[str, Any],
    found: tuple[tuple[str, ...], str | None],
    columns: Columns,
    where: str,
) -> None:
    """Refuse a row with a text or label that the first row has not: it would be left out."""
    texts, label = found
    if not {*texts} <= row.keys():
        return  # what is missing is named elsewhere
    now = columns.find(row, False, where)
    for name in (*now[0], now[1]):
        if name not in (None, label, *texts) and (label is None or name != now[1]):
            raise UserError(
                f"{where}: {name!r} is not in the first row, so that the text is "
                f"{' and '.join(map(repr, texts))}: give every row the same columns, or name them "
                "with --text_column, --text_pair_column and --label_column"
            )


def _row(
    row: Mapping[str, Any],
    texts: tuple[str, ...],
    label: str | None,
    needs_label: bool,
    where: str,
) -> Labelled:
    for name in texts:
        value = row.get(name)
        if value in (None, []) or (isinstance(value, str) and not value.strip()):
            raise UserError(f"{where}: {name!r} is missing or empty")
    value = row.get(label) if label else None
    value = None if isinstance(value, str) and not value.strip() else value
    if value is None and needs_label:
        raise UserError(f"{where}: {label!r} is missing or empty")
    return Labelled(tuple(row[name] for name in texts), value, where)


def text_of(row: Labelled) -> tuple[str, str | None]:
    """The text of a row, and the second of a pair.

    Raises:
        UserError: one of them is not a text.
    """
    for value in row.values:
        if not isinstance(value, str):
            raise UserError(f"{row.where}: not a text: {value!r:.60}")
    first, *rest = row.values
    return first, rest[0] if rest else None


def class_of(row: Labelled) -> str | None:
    """The name of a row's label; whole numbers and truth values are names too.

    Raises:
        UserError: it is neither: scores are not classes.
    """
    value = row.label
    if isinstance(value, float) and value.is_integer():  # a column of a table that has gaps
        value = int(value)
    if value is not None and not isinstance(value, str | int):
        raise UserError(f"{row.where}: the label {value!r:.60} is neither a name nor a number")
    return None if value is None else str(value).strip()


def classes(names: Iterable[str], data: str) -> list[str]:
    """The labels that occur, by number if all are numbers, else by the alphabet.

    Raises:
        UserError: there is one alone, or there are about as many as rows.
    """
    given = list(names)
    found = sorted({*given})
    if not given:
        raise UserError(f"{data}: there are no rows to train on")
    if len(found) < 2:
        raise UserError(f"{data}: every row has the label {''.join(found)!r}: there is no choice")
    if len(given) >= 20 and len(found) > len(given) / 2:
        raise UserError(
            f"{data}: {len(given)} rows have {len(found)} different labels: name the right column "
            "with --label_column"
        )
    numbers = all(name.isdecimal() and len(name) < 19 for name in found)
    return sorted(found, key=int) if numbers else found


def words_of(row: Labelled) -> tuple[str, ...]:
    """The words of a row.

    Raises:
        UserError: they are no list of texts, or one has a line break.
    """
    words = _texts(row.values[0], "the words are", row.where)
    for word in words:
        if len(word.splitlines()) > 1:  # predictions have a line a word
            raise UserError(f"{row.where}: a word has a line break: {word!r:.60}")
    return words


def tags_of(row: Labelled, count: int) -> tuple[str, ...] | None:
    """The tags of a row's words, of which there are ``count``; None where there are none.

    Raises:
        UserError: they are no list of as many names.
    """
    if row.label is None or row.label == []:
        return None
    tags = _texts(row.label, "the tags are", row.where)
    if len(tags) != count:
        raise UserError(f"{row.where}: {count} words, and {len(tags)} tags")
    return tags


def _texts(value: Any, what: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        raise UserError(f"{where}: {what} not a list of texts: {value!r:.60}")
    return tuple(value)


def rows_of(data: str, split: str) -> Iterator[Row]:
    """The rows of a file, or of the split of a folder or of a data set of the hub."""
    return read_rows(data, _SPLIT[split])


def held_out(
    rows: Sequence[T], fraction: float, seed: int, key: Callable[[T], Hashable], data: str
) -> tuple[list[T], list[T]]:
    """The rows to train on, and a random share to evaluate on.

    Args:
        key: rows of one key are on one side, such as those of one text.

    Raises:
        UserError: all rows have one key.
    """
    keys = list(dict.fromkeys(map(key, rows)))
    if len(keys) < 2:
        raise UserError(
            f"{data}: nothing can be held out of one text: name --validation_file, or use "
            "--eval_fraction 0"
        )
    count = min(max(1, round(fraction * len(keys))), len(keys) - 1)
    chosen = {keys[i] for i in random.Random(seed).sample(range(len(keys)), count)}
    return (
        [row for row in rows if key(row) not in chosen],
        [row for row in rows if key(row) in chosen],
    )


def split_rows(
    data: OwnData,
    split: str,
    seed: int,
    load: Callable[[str, str], list[T]],
    key: Callable[[T], Hashable],
) -> list[T]:
    """The rows of ``"train"``, ``"validation"`` or ``"test"``.

    Args:
        load: a file, and which split of it, to rows.
        key: see :func:`held_out`.
    """
    file = getattr(data, f"{split}_file") or data.train_file
    assert file is not None  # ptuning_v2.arguments refuses a run without
    if split == "test" or data.validation_file or not data.eval_fraction:
        return load(file, split)
    train, validation = held_out(load(file, "train"), data.eval_fraction, seed, key, file)
    return train if split == "train" else validation
