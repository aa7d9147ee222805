"""ROUGE of summaries, as the prefix-tuning code computed it (rouge-score, stemmed, F).

    python -m evaluation.summarization REFERENCES HYPOTHESES [--sentence_separator "<n>"]

One summary per line. ROUGE-L takes the whole summary for one sentence, as the original did: right
for XSUM. Papers on CNN/DailyMail report ROUGE-Lsum, which compares sentence by sentence: it is
printed when --sentence_separator says what stands between two sentences of a line. There is no
sentence splitter here, because every splitter gives another number.

Numbers are means over summaries, from 0 to 100. The original's were medians of bootstrap samples
without a seed, different at each run by up to 0.1: --bootstrap SEED repeats that with a seed.
ROUGE-1.5.5.pl with -m has a larger stemmer: 0.2 to 0.4 points above these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import BootstrapAggregator
from tqdm import tqdm

from evaluation import checks, files
from evaluation.report import Scores, argument_parser, naming_files, publish
from prefix_tuning.errors import UserError, run_command

COLUMNS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}


def score(
    references: Sequence[str],
    hypotheses: Sequence[str],
    sentence_separator: str | None = None,
    bootstrap_seed: int | None = None,
    use_stemmer: bool = True,
    segments: bool = False,
) -> Scores:
    """Score summaries against one reference each.

    Args:
        references: one summary per instance.
        hypotheses: one summary per instance, same order; an empty one scores 0.
        sentence_separator: what stands between two sentences; None leaves ROUGE-Lsum out.
        bootstrap_seed: report medians of 1000 bootstrap samples, as the original, not means.
        use_stemmer: Porter stemmer, as the original; False equals ROUGE-1.5.5.pl without -m.
        segments: also give the scores of each summary.

    Returns:
        F of ROUGE-1, ROUGE-2, ROUGE-L (Lin 2004) and ROUGE-Lsum, from 0 to 100.

    Raises:
        UserError: counts differ, or a reference is empty.
    """
    checks.check_texts([[reference] for reference in references], hypotheses)
    names = [name for name in COLUMNS if name != "rougeLsum" or sentence_separator is not None]
    scorer = RougeScorer(names, use_stemmer=use_stemmer)
    pairs = tqdm(zip(references, hypotheses, strict=True), "ROUGE", leave=False, disable=None)
    separator = sentence_separator or "\n"
    results = [scorer.score(*(text.replace(separator, "\n") for text in pair)) for pair in pairs]
    by_name = {name: [100 * result[name].fmeasure for result in results] for name in names}
    scores = Scores(note=checks.empty_outputs(hypotheses))
    if bootstrap_seed is None:
        scores.values = {COLUMNS[name]: float(np.mean(by_name[name])) for name in names}
    else:
        middle = _bootstrap(results, bootstrap_seed)
        scores.values = {COLUMNS[name]: 100 * middle[name].mid.fmeasure for name in names}
    if segments:
        scores.segments = {COLUMNS[name]: list(by_name[name]) for name in names}
    return scores


def _bootstrap(results: Sequence[dict], seed: int) -> dict:
    """rouge-score's aggregation, which draws from NumPy's global generator."""
    aggregator = BootstrapAggregator()
    for result in results:
        aggregator.add_scores(result)
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        return aggregator.aggregate()
    finally:
        np.random.set_state(state)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__, "one summary per line", "one summary per line")
    parser.add_argument("--sentence_separator", metavar="TEXT", help="also print ROUGE-Lsum")
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
        )
    publish({"summaries": scores}, args)


if __name__ == "__main__":
    run_command(main)
