"""What a check is, where it looks for numbers and data, and what comes out of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefix_tuning.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "vectors"
DATA = ROOT / "data"


class LeftOut(Exception):
    """Why a check cannot run here: data or a program is missing."""


@dataclass(frozen=True)
class Difference:
    """How far one quantity is from where it should be.

    Attributes:
        what: the quantity.
        found: the largest absolute difference, or how many outputs differ.
        bound: what is still the same; 0 where only equality is.
    """

    what: str
    found: float
    bound: float

    @property
    def share(self) -> float:
        """``found`` in bounds: at most 1 if all is well, infinite for what is not a number."""
        if not math.isfinite(self.found):
            return math.inf
        if self.bound == 0:
            return 0.0 if self.found == 0 else math.inf
        return self.found / self.bound


Run = Callable[[], Iterable[Difference]]


@dataclass(frozen=True)
class Check:
    """One row of the certificate.

    Attributes:
        name: under which it is reported.
        against: what it is held against.
        run: compares.
    """

    name: str
    against: str
    run: Run


@dataclass(frozen=True)
class Outcome:
    """What came out of a check.

    Attributes:
        differences: of every quantity; none where it was left out.
        reason: why it was left out, or how it failed without a number.
    """

    check: Check
    differences: Sequence[Difference] = ()
    left_out: bool = False
    reason: str = ""
    seconds: float = 0.0

    @property
    def worst(self) -> Difference | None:
        """The quantity that is nearest to its bound, or beyond it."""
        return max(self.differences, key=lambda d: d.share, default=None)

    @property
    def passed(self) -> bool:
        """Whether everything that was compared is within its bound."""
        return bool(self.differences) and all(d.share <= 1 for d in self.differences)

    @property
    def result(self) -> str:
        """In a word."""
        return "left out" if self.left_out else "passed" if self.passed else "OFF"


def perform(check: Check) -> Outcome:
    """Run a check; whatever it raises is a result, and the others run all the same."""
    start = time.perf_counter()
    try:
        differences = list(check.run())
    except LeftOut as missing:
        return Outcome(check, left_out=True, reason=str(missing))
    except Exception as error:
        return Outcome(check, reason=f"{type(error).__name__}: {error}".splitlines()[0])
    reason = "" if differences else "nothing was compared"
    return Outcome(check, differences, reason=reason, seconds=time.perf_counter() - start)


@dataclass(frozen=True)
class Places:
    """Folders, the first of which counts where several have a file.

    Attributes:
        vectors: of cases of the original's numbers.
        data: of data sets, as ``scripts/download_data.sh`` fills ``data/``.
    """

    vectors: Sequence[Path] = (VECTORS,)
    data: Sequence[Path] = (DATA,)

    @classmethod
    def of(cls, vectors: Path | None, data: Path | None) -> Places:
        """The repository's own folders, and perhaps one more of each.

        Raises:
            UserError: a folder is not there.
        """
        for flag, folder in (("--vectors", vectors), ("--data", data)):
            if folder is not None and not folder.is_dir():
                raise UserError(f"{flag} {folder}: there is no such folder")
        more = ([folder] if folder else [] for folder in (vectors, data))
        return cls(
            *((*own, *given) for own, given in zip(((VECTORS,), (DATA,)), more, strict=True))
        )

    def find(self, *names: str) -> Path:
        """The first of some files that is there.

        Args:
            names: of one file, relative to a data folder, as different collections call it.

        Raises:
            LeftOut: none is there.
        """
        for folder in self.data:
            for name in names:
                if (folder / name).is_file():
                    return folder / name
        raise LeftOut(f"{names[0]} is not here (--data, or scripts/download_data.sh)")
