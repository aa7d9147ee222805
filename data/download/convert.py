"""Published files -> the files that the project reads, where they differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from prefix_tuning.errors import UserError
from prefix_tuning.files import read_csv, read_text

FIELDS = {
    "name": "name",
    "eatType": "Type",
    "food": "food",
    "priceRange": "price",
    "customer rating": "customer rating",
    "area": "area",
    "familyFriendly": "family friendly",
    "near": "near",
}
"""The fields' names in the CSV and in the paper's files."""
_FIELD = re.compile(r"([^\[\],]+)\[([^\]]*)\]")
_WHOLE = re.compile(r"(can|that)(not|s)")
_BEFORE = re.compile(r"[,:;'£$]")
_AFTER = re.compile(r"(?:\.+|n't|'(?:s|re|ve|ll)?|[,:;?])$")
# A comma or hyphen between letters, a hyphen between digits: "5-star" stays whole.
_INSIDE = re.compile(r"((?<=[^\W\d])[,-](?=[^\W\d])|(?<=\d)-(?=\d))")


def _tokens(word: str) -> Iterator[str]:
    after: list[str] = []
    while word:
        if whole := _WHOLE.fullmatch(word):
            yield from whole.groups()
            break
        if found := _BEFORE.match(word):
            yield found[0]
            word = word[found.end() :]
        elif found := _AFTER.search(word):
            after.append(found[0])
            word = word[: found.start()]
        else:
            yield from filter(None, _INSIDE.split(word))
            break
    yield from reversed(after)


def tokenise(text: str) -> str:
    """``text`` with its tokens separated by one blank, line breaks and runs of blanks included."""
    return " ".join(token for word in text.split() for token in _tokens(word))


def e2e_test_set(paths: Sequence[Path]) -> bytes:
    """The E2E challenge's test set in the prefix-tuning paper's form.

    A row ``"name[Blue Spice], eatType[pub]","It's a pub."`` becomes the line
    ``name : Blue Spice | Type : pub||It 's a pub . ``, with the blank at its end.

    The paper's files were tokenised by spaCy, the test set by another version than the other two
    ("1-star" is one token in it and three in the others). These are the rules of the test set, as
    far as its text needs them: its 4,693 lines come out byte for byte. The training and the
    development set cannot be made this way and are fetched as they are.

    Args:
        paths: of ``testset_w_refs.csv``.

    Raises:
        UserError: the file is no CSV with the columns "mr" and "ref", or a row is malformed.
    """
    [path] = paths
    lines = []
    header, *rows = [row for row, _ in read_csv(path)] or [[]]
    for number, cells in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        row = dict(zip(header, cells, strict=True))
        mr, ref = row.get("mr"), row.get("ref")
        if not mr or not ref:
            raise UserError(f'{where}: expected the columns "mr" and "ref" of the E2E challenge')
        fields = [(name.strip(), value) for name, value in _FIELD.findall(mr)]
        unknown = [name for name, _ in fields if name not in FIELDS]
        if unknown or not fields:
            raise UserError(f"{where}: {mr!r} is no meaning representation of the challenge")
        source = " | ".join(f"{FIELDS[name]} : {tokenise(value)}" for name, value in fields)
        lines.append(f"{source}||{tokenise(ref)} \n")
    return "".join(lines).encode("utf-8")


def _mrpc_rows(path: Path) -> list[str]:
    text = read_text(path)
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]


def mrpc_split(paths: Sequence[Path], development: bool) -> bytes:
    """GLUE's training or development set of MRPC.

    Args:
        paths: of ``msr_paraphrase_train.txt``, a header and ``label, id, id, text, text`` in
            columns separated by tabs, and of ``mrpc_dev_ids.tsv``, the pairs of ids that GLUE sets
            apart.

    Raises:
        UserError: the first file is empty.
    """
    header, *rows = _mrpc_rows(paths[0]) or [""]
    if not header:
        raise UserError(f"{paths[0]} is empty: fetch it again")
    apart = {tuple(row.split("\t")) for row in _mrpc_rows(paths[1])}
    kept = [row for row in rows if (tuple(row.split("\t")[1:3]) in apart) == development]
    return "\n".join([header, *kept, ""]).encode("utf-8")


def mrpc_test_set(paths: Sequence[Path]) -> bytes:
    """MRPC's test set (``msr_paraphrase_test.txt``) without the mark at its beginning."""
    return "\n".join([*_mrpc_rows(paths[0]), ""]).encode("utf-8")


CONVERSIONS: dict[str, tuple[int, Callable[[Sequence[Path]], bytes]]] = {
    "e2e_test_set": (1, e2e_test_set),
    "mrpc_train": (2, partial(mrpc_split, development=False)),
    "mrpc_dev": (2, partial(mrpc_split, development=True)),
    "mrpc_test_set": (1, mrpc_test_set),
}
"""Name -> how many files it reads, and what it makes of them."""
