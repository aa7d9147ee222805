"""Chunk F1 of named entities and semantic roles (seqeval, which equals conlleval.pl).

    python -m evaluation.tagging REFERENCES HYPOTHESES [--json out.json]

Both files are in the format of the data: CoNLL columns with the tag last and a blank line between
sentences, or ``index word ... ||| tag ...`` per line. As in P-tuning v2, the B-V chunks of semantic
role labelling count; srl-eval.pl leaves them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seqeval import metrics

from evaluation import checks, files
from evaluation.report import Scores, argument_parser, naming_files, publish
from prefix_tuning.errors import UserError, run_command

Tags = Sequence[str]


def score(references: Sequence[Tags], hypotheses: Sequence[Tags]) -> dict[str, Scores]:
    """Score tag sequences; a chunk counts if its type and both ends are right.

    Args:
        references: IOB tags of each sentence, one per word. I- without a B- before it starts
            a chunk, as in conlleval.pl.
        hypotheses: same sentences, same words.

    Returns:
        ``overall`` with precision, recall and f1 over all chunks and accuracy over all words,
        then precision, recall and f1 of each type; from 0 to 1.

    Raises:
        UserError: counts of sentences or words differ.
    """
    checks.check_counts(len(references), len(hypotheses), "sentences")
    for number, (gold, predicted) in enumerate(zip(references, hypotheses, strict=True), 1):
        if len(gold) != len(predicted):
            raise UserError(
                f"sentence {number} has {len(gold)} tags in the references and "
                f"{len(predicted)} in the hypotheses"
            )
    gold_tags, tags = [list(s) for s in references], [list(s) for s in hypotheses]
    if not any(tag != "O" for sentence in gold_tags for tag in sentence):
        raise UserError("the references have no chunk to find: every tag is O")
    report = metrics.classification_report(gold_tags, tags, output_dict=True, zero_division=0)
    rows = {"overall": _scores(report["micro avg"])}
    rows["overall"].values["accuracy"] = float(metrics.accuracy_score(gold_tags, tags))
    types = [name for name in report if not name.endswith(" avg")]
    return rows | {name: _scores(report[name]) for name in types}


def _scores(line: dict[str, float]) -> Scores:
    columns = {"precision": "precision", "recall": "recall", "f1": "f1-score"}
    return Scores({column: float(line[name]) for column, name in columns.items()})


def read_tags(path: Path) -> list[list[str]]:
    """Read the tags of each sentence, from CoNLL columns or ``words ||| tags`` lines."""
    lines = files.read_lines(path)
    if all("|||" in line for line in lines if line):
        return [line.split("|||")[1].split() for line in lines if line]
    sentences: list[list[str]] = [[]]
    for line in lines:
        if line and not line.startswith("-DOCSTART-"):
            sentences[-1].append(line.split()[-1])
        elif sentences[-1]:
            sentences.append([])
    return [tags for tags in sentences if tags]


def main(argv: Sequence[str] | None = None) -> None:
    file_format = "CoNLL columns with the tag last, or 'words ||| tags' lines"
    args = argument_parser(__doc__, file_format, file_format, segments=False).parse_args(argv)
    references, hypotheses = read_tags(args.references), read_tags(args.hypotheses)
    with naming_files(args):
        scores = score(references, hypotheses)
    publish(scores, args)


if __name__ == "__main__":
    run_command(main)
