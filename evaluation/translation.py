"""BLEU of translations, and how many outputs are the reference itself.

    python -m evaluation.translation REFERENCES HYPOTHESES [--json out.json]

One text per line. BLEU is sacrebleu's, with its tokeniser 13a; where texts have words and it sees
none of them, BLEU is undefined. ``exact`` is the share of outputs that equal their reference: what
counts where strings are turned into strings, pronunciations or inflected words, say.

Numbers go from 0 to 100.
"""

from __future__ import annotations

from collections.abc import Sequence

from evaluation import checks, files, words
from evaluation.report import Scores, argument_parser, naming_files, publish
from prefix_tuning.errors import run_command


def score(references: Sequence[str], hypotheses: Sequence[str]) -> Scores:
    """Score translations against one reference each.

    Args:
        references: one text per instance.
        hypotheses: one text per instance, same order.

    Raises:
        UserError: counts differ, or a reference is empty.
    """
    import sacrebleu

    groups = [[reference] for reference in references]
    checks.check_texts(groups, hypotheses)
    bleu = sacrebleu.corpus_bleu(hypotheses, [references]).score
    scores = Scores({"BLEU": round(bleu, 4)}, full={"BLEU": 100, "exact": 100})
    words.undefine_unread(scores, groups, hypotheses, "13a")
    equal = sum(a == b for a, b in zip(references, hypotheses, strict=True))
    scores.values["exact"] = 100 * equal / len(references)
    return scores


def main(argv: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__, "one text per line", "one text per line", segments=False)
    args = parser.parse_args(argv)
    references, hypotheses = files.read_lines(args.references), files.read_lines(args.hypotheses)
    with naming_files(args):
        scores = score(references, hypotheses)
    publish({"translations": scores}, args)


if __name__ == "__main__":
    run_command(main)
