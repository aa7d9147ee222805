"""Where the checks look for numbers and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefix_tuning.errors import UserError
from scripts.verify.checks import LeftOut

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "vectors"
DATA = ROOT / "data"


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
