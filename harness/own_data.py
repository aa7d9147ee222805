"""One's own data: rows of :mod:`harness.own_files` -> pairs of source and targets.

A row names its columns. Those of source and target are named by flags, or known by the names that
data sets commonly give them (:data:`PAIRS`). A column ``messages`` holds a chat, of which every
turn of the assistant is a target. Nothing here needs torch.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.own_files import Row
from prefix_tuning.errors import UserError

Turn = tuple[str, str]
"""Role and text of one message of a chat."""

PAIRS = (
    ("source", "target"),
    ("source", "targets"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "answers"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("input", "output"),
    ("input", "target"),
    ("document", "summary"),
    ("article", "highlights"),
    ("article", "summary"),
    ("dialogue", "summary"),
    ("text", "summary"),
    ("text", "target"),
)
"""Names of source and target that are tried, as pairs: some files call another column "source"."""
CHATS = ("messages", "conversations")
"""Names of a column that holds a chat."""
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant"}


@dataclass(frozen=True)
class Pair:
    """One input and its references."""

    source: str
    """It may be empty."""
    targets: tuple[str, ...]
    """None of them empty; there are none where a row has nothing to compare with."""
    where: str
    """File and line, for messages."""
    chat: tuple[Turn, ...] = ()
    """The turns before the target, where the row is a chat."""
    name: str = "'source'"
    """The column of the source, for messages."""
    prefix: object = None
    """The value of a column of this name: see :mod:`harness.banked`."""


@dataclass(frozen=True)
class Columns:
    """Which columns to read; those that are None are guessed.

    Raises:
        UserError: one column would be both.
    """

    source: str | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        if self.source is not None and self.source == self.target:
            raise UserError(
                f"--source_column {self.source} and --target_column {self.target} are one column: "
                "name two"
            )

    def find(self, names: Iterable[str], training: bool, where: str) -> tuple[str, str | None]:
        """The columns of source and target among ``names``.

        The target may be missing where there is no training, and then only if it was not named.

        Raises:
            UserError: there are none, or several of one meaning, or one seems to be misspelt.
        """
        names = list(names)
        found = self._both(names)
        if found is not None:
            if self.target is None and {"target", "targets"} <= {*names}:
                raise UserError(
                    f"{where}: there are both 'target' and 'targets': give one of them, or name "
                    "it with --target_column"
                )
            return found
        sources = [self.source] if self.source else [source for source, _ in PAIRS]
        source = next((name for name in sources if name in names), None)
        if source is not None and self.target is None:
            _check_spelling(names, source, where)
            if not training:
                return source, None
            if source == "source":
                raise UserError(f"{where}: no 'target' or 'targets' to train on")
        raise UserError(self._unclear(names, where))

    def _both(self, names: Sequence[str]) -> tuple[str, str] | None:
        for source, target in PAIRS:
            pair = self.source or source, self.target or target
            if pair[0] in names and pair[1] in names:
                return pair
        if self != Columns():
            return None
        lower = {str(name).strip().lower(): name for name in names}  # Question, Answer
        for source, target in PAIRS:
            if source in lower and target in lower and not {source, target} & {*names}:
                return lower[source], lower[target]
        return None

    def _unclear(self, names: Sequence[str], where: str) -> str:
        for side, name in (("source", self.source), ("target", self.target)):
            if name is not None and name not in names:
                close = difflib.get_close_matches(name, map(str, names), n=1)
                there = f"there are {', '.join(map(str, names))}"
                advice = f"did you mean {close[0]}?" if close else there
                return f"{where}: --{side}_column {name}: there is no such column; {advice}"
        columns = {column for pair in PAIRS for column in pair}
        for name in names:
            known = columns.difference(names)
            likely = difflib.get_close_matches(str(name).lower().strip(), known, n=1, cutoff=0.8)
            if likely and name not in columns:
                return f"{where}: the field {name!r} is unknown: is {likely[0]!r} meant?"
        if {"target", "targets"} & {*names}:
            return f"{where}: 'source' is missing or empty"
        return (
            f"{where}: which of {', '.join(map(str, names))} are source and target is not clear; "
            "name them with --source_column and --target_column"
        )


def _check_spelling(names: Iterable[str], source: str, where: str) -> None:
    """Refuse a column that seems to be the target, misspelt, where there is no target."""
    targets = {target for _, target in PAIRS}
    for name in names:
        likely = difflib.get_close_matches(str(name).lower().strip(), targets, n=1, cutoff=0.8)
        if name != source and likely:
            raise UserError(
                f"{where}: the field {name!r} is unknown: is {likely[0]!r} meant? if it is, rename "
                "it, or name it with --target_column"
            )


def pairs(
    rows: Iterable[Row], columns: Columns, training: bool, say: Callable[[str], object] = print
) -> Iterator[Pair]:
    """The pairs of rows; a chat makes a pair of every turn of the assistant.

    Args:
        training: require a target of every row.
        say: gets a sentence that names the columns, where they were guessed.

    Raises:
        UserError: a row lacks a text, or what is source and target is not clear.
    """
    guessed, said = columns == Columns(), False
    for row, where in rows:
        chat = next((name for name in CHATS if name in row), None)
        if chat is not None and guessed:
            found = chat_pairs(row[chat], training, where, row.get("targets"))
            sentence = f"{chat!r} is a chat"
        else:
            names = columns.find(row.keys(), training, where)
            found = [_pair(row, *names, training, where)]
            sentence = columns_found(row, *names)
        if guessed and not said and "source" not in row:
            say(f"{where.rpartition(', ')[0]}: {sentence}")
            said = True
        yield from (replace(pair, prefix=row.get("prefix")) for pair in found)


def columns_found(row: Mapping[str, Any], source: str, target: str | None) -> str:
    """A sentence on which columns are source and target."""
    left = f"{source!r} and 'input'" if _has_input(row, source) else repr(source)
    right = f", the target {target!r}" if target else ", and there is no target"
    return f"the source is {left}{right} (--source_column, --target_column name others)"


def source_text(row: Mapping[str, Any], source: str) -> Any:
    """The source of a row; an instruction goes on with its input, if there is one."""
    text = row[source]
    if isinstance(text, str) and _has_input(row, source):
        more = row["input"]
        return f"{text}\n\n{more}" if isinstance(more, str) and more.strip() else text
    return text


def _has_input(row: Mapping[str, Any], source: str) -> bool:
    return source == "instruction" and "input" in row


def _pair(
    row: Mapping[str, Any], source: str, target: str | None, training: bool, where: str
) -> Pair:
    text = source_text(row, source)
    if not isinstance(text, str):
        raise UserError(f"{where}: {source!r} is missing or empty")
    values = [] if target is None else row[target]
    if target == "targets" and not isinstance(values, list):
        raise UserError(f"{where}: 'targets' is not a list")
    values = values if isinstance(values, list) else [values]
    if not training and values == [""]:  # how tables say that there is none
        values = []
    for value in values:
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{where}: a target is missing or empty ({target!r})")
    if training and not values:
        raise UserError(f"{where}: no 'target' or 'targets' to train on")
    return Pair(text, tuple(values), where, name=repr(source))


def chat_pairs(value: Any, training: bool, where: str, targets: Any = None) -> list[Pair]:
    """A pair of every turn of the assistant; one without a target of a chat that waits for it.

    Args:
        targets: answers to the whole chat, which then makes one pair.

    Raises:
        UserError: this is no chat, or nothing can be trained on.
    """
    turns = [_turn(message, where) for message in value] if isinstance(value, list) else []
    if not turns:
        raise UserError(f'{where}: a chat is a list of {{"role": ..., "content": ...}}')
    if targets is not None:
        row = {"source": _as_text(turns), "targets": targets}
        return [replace(_pair(row, "source", "targets", training, where), chat=tuple(turns))]
    found = []
    for i, (role, text) in enumerate(turns):
        if role == "assistant" and i:
            found.append(Pair(_as_text(turns[:i]), (text,), where, tuple(turns[:i])))
    if turns[-1][0] != "assistant" and not training:
        found.append(Pair(_as_text(turns), (), where, tuple(turns)))
    if not found:
        raise UserError(f"{where}: the chat has no turn of the assistant to train on")
    return found


def _as_text(turns: Sequence[Turn]) -> str:
    if len(turns) == 1:
        return turns[0][1]
    return "\n".join(f"{role}: {text}" for role, text in turns)


def _turn(message: Any, where: str) -> Turn:
    if isinstance(message, dict):
        role = message.get("role", message.get("from"))
        text = message.get("content", message.get("value"))
        if isinstance(role, str) and isinstance(text, str) and text.strip():
            return _ROLES.get(role, role), text
    raise UserError(f'{where}: a message is not {{"role": ..., "content": ...}} with two texts')


def held_out(sources: Sequence[str], fraction: float, seed: int, where: str) -> set[str]:
    """A random share of different sources, to evaluate on; one at least is on either side.

    Args:
        where: the file, for the message.

    Raises:
        UserError: there is one source alone.
    """
    if len(sources) < 2:
        raise UserError(
            f"--eval_fraction {fraction}: cannot be taken from {where}; give other data to "
            "evaluate on, or use --eval_fraction 0"
        )
    count = min(max(1, round(fraction * len(sources))), len(sources) - 1)
    return {sources[i] for i in random.Random(seed).sample(range(len(sources)), count)}
