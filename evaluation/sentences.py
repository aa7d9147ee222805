"""NLTK's Punkt, which splits summaries into sentences as transformers' examples do for ROUGE-Lsum.

Its data are no part of the package: they are looked for in ``data/nltk_data`` of this project and
where NLTK itself looks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prefix_tuning.errors import UserError

FOLDER = Path(__file__).resolve().parents[1] / "data" / "nltk_data"


def punkt(folder: Path = FOLDER) -> Callable[[str], list[str]]:
    """``nltk.sent_tokenize`` for English.

    Args:
        folder: holds ``tokenizers/punkt_tab/english``; looked at before NLTK's own folders.

    Raises:
        UserError: the data are on this machine nowhere.
    """
    import nltk
    from nltk.tokenize.punkt import PunktTokenizer

    known = list(nltk.data.path)
    nltk.data.path.insert(0, str(folder))
    try:
        return PunktTokenizer("english").tokenize
    except LookupError as error:
        raise UserError(
            "--sentence_splitter nltk needs the data of NLTK's Punkt: "
            "./scripts/download_data.sh nltk, or python -m nltk.downloader punkt_tab"
        ) from error
    finally:
        nltk.data.path[:] = known
