"""ROUGE of summaries, as the prefix-tuning code computed it (rouge-score, stemmed, F).

    python -m evaluation.summarization REFERENCES HYPOTHESES [--sentence_separator "<n>"]

One summary per line. ROUGE-L takes the whole summary for one sentence, as the original did: right
for XSUM. Papers on CNN/DailyMail report ROUGE-Lsum, which compares sentence by sentence. Every
splitter gives another number, hence it is printed when one is named: --sentence_separator says what
stands between two sentences of a line, --sentence_splitter nltk finds them with NLTK's Punkt, as
transformers' examples do.

rouge-score reads the letters a to z and digits. Where a text has words and none of them, scores are
undefined, and printed as such; --tokenizer takes one of sacrebleu's tokenisers in its place.

Numbers are means over summaries, from 0 to 100. The original's were medians of bootstrap samples
without a seed, different at each run by up to 0.1: --bootstrap SEED repeats that with a seed.
ROUGE-1.5.5.pl with -m has a larger stemmer: 0.2 to 0.4 points above these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from evaluation import checks, files, words
from evaluation.report import Scores, argument_parser, naming_files, publish
from prefix_tuning.errors import UserError, run_command

if TYPE_CHECKING:
    from rouge_score.scoring import Score

COLUMNS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}

N_SAMPLE = 1000
"""Bootstrap samples, as many as rouge-score draws."""
FOLDER = Path(__file__).resolve().parents[1] / "data" / "nltk_data"
"""Where the data of Punkt are looked for, before NLTK's own folders: they are no part of NLTK."""


def score(
    references: Sequence[str],
    hypotheses: Sequence[str],
    sentence_separator: str | None = None,
    bootstrap_seed: int | None = None,
    use_stemmer: bool = True,
    segments: bool = False,
    tokenizer: str = "rouge",
    sentence_splitter: str | None = None,
) -> Scores:
    """Score summaries against one reference each.

    Args:
        references: one summary per instance.
        hypotheses: one summary per instance, same order; an empty one scores 0.
        sentence_separator: what stands between two sentences.
        bootstrap_seed: report medians of 1000 bootstrap samples, as the original, not means.
        use_stemmer: Porter stemmer, as the original; False equals ROUGE-1.5.5.pl without -m.
        segments: also give the scores of each summary.
        tokenizer: rouge-score's own, or one of sacrebleu's (``words.TOKENIZERS``), unstemmed.
        sentence_splitter: ``"nltk"`` finds the sentences, and the column says so. Without it and
            a separator there is no ROUGE-Lsum.

    Returns:
        F of ROUGE-1, ROUGE-2, ROUGE-L (Lin 2004) and ROUGE-Lsum, from 0 to 100; all undefined
        where a text has words and the tokeniser sees none.

    Raises:
        UserError: counts differ, a reference is empty, the splitter has no data.
    """
    groups = [[reference] for reference in references]
    checks.check_texts(groups, hypotheses)
    split = _splitter(sentence_separator, sentence_splitter)
    columns = {name: COLUMNS[name] for name in COLUMNS if name != "rougeLsum" or split}
    if sentence_splitter:
        columns["rougeLsum"] += f" ({sentence_splitter})"
    full: dict[str, int] = dict.fromkeys(columns.values(), 100)
    scores = Scores(note=checks.empty_outputs(hypotheses), full=full)
    results = _score_each(list(columns), references, hypotheses, split, tokenizer, use_stemmer)
    by_name = {name: [100 * result[name].fmeasure for result in results] for name in columns}
    if bootstrap_seed is None:
        scores.values = {columns[name]: float(np.mean(by_name[name])) for name in columns}
    else:
        medians = _medians(results, list(columns), bootstrap_seed)
        scores.values = {columns[name]: 100 * medians[name] for name in columns}
    if segments:
        scores.segments = {columns[name]: list(by_name[name]) for name in columns}
    if tokenizer != "rouge":
        scores.add_note(f"words as the tokeniser {tokenizer} splits them")
    advice = "use --tokenizer {} of evaluation.summarization"
    words.undefine_unread(scores, groups, hypotheses, tokenizer, advice)
    return scores


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


def _splitter(separator: str | None, name: str | None) -> Callable[[str], list[str]] | None:
    if separator is not None and name is not None:
        raise UserError("give --sentence_separator or --sentence_splitter: either one splits")
    if separator is not None:
        if not separator:
            raise UserError("--sentence_separator is empty, which stands everywhere")
        return lambda text: text.split(separator)
    if name not in (None, "nltk"):
        raise UserError(f"--sentence_splitter {name}: there is only nltk")
    return punkt() if name else None


class _Words:
    """What rouge-score takes for a tokeniser."""

    def __init__(self, tokenize: words.Tokenize) -> None:
        self.tokenize = tokenize


def _score_each(
    names: list[str],
    references: Sequence[str],
    hypotheses: Sequence[str],
    split: Callable[[str], list[str]] | None,
    tokenizer: str,
    use_stemmer: bool,
) -> list[dict[str, Score]]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(names, tokenizer=_Words(words.tokenizer(tokenizer, use_stemmer)))
    pairs = tqdm(zip(references, hypotheses, strict=True), "ROUGE", leave=False, disable=None)
    if split is None:
        return [scorer.score(*pair) for pair in pairs]
    return [scorer.score(*("\n".join(split(text)) for text in pair)) for pair in pairs]


def _medians(
    results: Sequence[dict[str, Score]], names: Sequence[str], seed: int
) -> dict[str, float]:
    """Medians of the F of bootstrap samples: bit for bit those of rouge-score's aggregation.

    It draws one sample at a time, which takes most of the time that a small batch needs.
    """
    generator = np.random.RandomState(seed)
    n_text = len(results)
    at_once = max(1, 10**6 // n_text)
    medians = {}
    for name in names:
        # Precision, recall, F: a sum over F alone would be added up in another order.
        scores = np.array([result[name] for result in results])  # [texts, 3]
        means = []
        for start in range(0, N_SAMPLE, at_once):
            n_sample = min(at_once, N_SAMPLE - start)
            drawn = generator.randint(0, n_text, (n_sample, n_text))
            means.append(scores[drawn].mean(axis=1))  # [samples, texts, 3] -> [samples, 3]
        medians[name] = float(np.percentile(np.concatenate(means)[:, 2], 50))
    return medians


def main(argv: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__, "one summary per line", "one summary per line")
    parser.add_argument("--sentence_separator", metavar="TEXT", help="also print ROUGE-Lsum")
    parser.add_argument(
        "--sentence_splitter", choices=["nltk"], help="also print ROUGE-Lsum, of its sentences"
    )
    parser.add_argument(
        "--tokenizer", choices=words.TOKENIZERS, default="rouge", help="what is taken for a word"
    )
    parser.add_argument("--bootstrap", type=int, metavar="SEED", help="medians, not means")
    args = parser.parse_args(argv)
    if args.bootstrap is not None and not 0 <= args.bootstrap < 2**32:
        raise UserError(f"--bootstrap {args.bootstrap}: the seed must be from 0 to {2**32 - 1}")
    references, hypotheses = files.read_lines(args.references), files.read_lines(args.hypotheses)
    with naming_files(args):
        scores = score(
            references,
            hypotheses,
            sentence_separator=args.sentence_separator,
            bootstrap_seed=args.bootstrap,
            segments=args.segments,
            tokenizer=args.tokenizer,
            sentence_splitter=args.sentence_splitter,
        )
    publish({"summaries": scores}, args)


if __name__ == "__main__":
    run_command(main)
