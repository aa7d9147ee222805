"""Every case of the original's numbers that a folder holds, each a check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from scripts.verify import bart_numbers, cases, gpt2_numbers, ptuning_numbers
from scripts.verify.cases import Case
from scripts.verify.checks import Check, Difference, LeftOut

Compare = Callable[[Case], Iterable[Difference]]
KINDS: Sequence[tuple[str, str, Sequence[Compare]]] = [
    ("gpt2_beam_", "the search of transformers 2020", [gpt2_numbers.outputs]),
    ("gpt2_lowdata_init_", "the original's start from words", [gpt2_numbers.words]),
    ("gpt2_", "the original's modules", [gpt2_numbers.numbers]),
    ("bart_", "the original's modules", [bart_numbers.numbers, bart_numbers.outputs]),
    ("ptuning_", "P-tuning v2's modules", [ptuning_numbers.numbers]),
]
"""How the name of a case begins, what made its numbers, and what compares them."""


def _run(path: Path, compare: Sequence[Compare]) -> Iterator[Difference]:
    case = Case.read(path)
    for one in compare:
        yield from one(case)


def _unknown(path: Path) -> Iterator[Difference]:
    starts = ", ".join(start for start, _, _ in KINDS)
    raise LeftOut(f"{path.name} is of no known kind ({starts})")


def checks(folders: Iterable[Path]) -> list[Check]:
    """A check for each case in the folders, in the order of their names."""
    found = []
    for name, path in sorted(cases.files(folders).items()):
        kind = next(
            ((against, run) for start, against, run in KINDS if name.startswith(start)), None
        )
        if kind is None:
            found.append(Check(name, "", partial(_unknown, path)))
        else:
            found.append(Check(name, kind[0], partial(_run, path, kind[1])))
    return found
