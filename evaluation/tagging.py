"""Chunk F1 of named entities and semantic roles (seqeval, which equals conlleval.pl).

    python -m evaluation.tagging REFERENCES HYPOTHESES [--json out.json]

Both files are in the format of the data: CoNLL columns with the tag last and a blank line between
sentences, or ``index word ... ||| tag ...`` per line. As in P-tuning v2, the B-V chunks of semantic
role labelling count; srl-eval.pl leaves them out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from evaluation import checks
from evaluation.report import Scores, argument_parser, naming_files, publish
from prefix_tuning.errors import UserError, run_command
from prefix_tuning.files import numbered_lines

Tags = Sequence[str]
_TAG = re.compile(r"O|[BIES]-\S+")
_BILOU = re.compile(r"[LU]-\S+")


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
        UserError: counts of sentences or words differ, or a tag is outside the scheme.
    """
    from seqeval import metrics

    checks.check_counts(len(references), len(hypotheses), "sentences")
    for number, (gold, predicted) in enumerate(zip(references, hypotheses, strict=True), 1):
        if len(gold) != len(predicted):
            raise UserError(
                f"sentence {number} has {len(gold)} tags in the references and "
                f"{len(predicted)} in the hypotheses"
            )
    gold_tags, tags = [list(s) for s in references], [list(s) for s in hypotheses]
    for number, sentence in enumerate([*gold_tags, *tags]):
        for tag in set(sentence):
            check_tag(tag, f"sentence {number % len(gold_tags) + 1}")
    if not any(tag != "O" for sentence in gold_tags for tag in sentence):
        raise UserError("the references have no chunk to find: every tag is O")
    report = metrics.classification_report(gold_tags, tags, output_dict=True, zero_division=0)
    rows = {"overall": _scores(report["micro avg"])}
    rows["overall"].values["accuracy"] = float(metrics.accuracy_score(gold_tags, tags))
    rows["overall"].full["accuracy"] = 1
    types = [name for name in report if not name.endswith(" avg")]
    return rows | {name: _scores(report[name]) for name in types}


def _scores(line: dict[str, float]) -> Scores:
    columns = {"precision": "precision", "recall": "recall", "f1": "f1-score"}
    values: dict[str, float | None] = {
        column: float(line[name]) for column, name in columns.items()
    }
    return Scores(values, full=dict.fromkeys(values, 1))


def check_tag(tag: str, where: str) -> None:
    """Refuse a tag that is neither O nor ``B-``, ``I-``, ``E-`` or ``S-`` and a type.

    conlleval.pl and seqeval score the tags of BILOU, but wrongly: to them ``L-`` and ``U-`` begin
    no chunk of their own.
    """
    if _TAG.fullmatch(tag):
        return
    advice = "expected O, or B- or I- and a type"
    if _BILOU.fullmatch(tag):
        advice = "tags of BILOU are not scored: write I- for L- and B- for U-"
    raise UserError(f"{where}: tag {tag!r}; {advice}")


def ends_sentence(line: str) -> bool:
    """Whether a line of CoNLL columns is blank or begins a document."""
    return not line.strip() or split_columns(line)[0] == "-DOCSTART-"


def split_columns(line: str) -> list[str]:
    """The columns of a line, separated by tabs or else by blanks.

    A token of a tab-separated file may be a character that counts as white space, and one of a
    blank-separated file an unbreakable blank.
    """
    if "\t" in line:
        return [*line.split("\t")[:-1], line.split("\t")[-1].strip()]
    return [column for column in line.rstrip("\r").split(" ") if column]


def read_tags(path: Path) -> list[list[str]]:
    """Read the tags of each sentence, from CoNLL columns or ``INDEX words ||| tags`` lines.

    Raises:
        UserError: a line has another number of columns than the first, or of tags than words, or
            a tag is outside the scheme, naming file and line.
    """
    return [[tag for _, tag, _ in sentence] for sentence in _read_sentences(path)]


def _read_sentences(path: Path) -> list[list[tuple[str | None, str, str]]]:
    """Word (None where the file has none), tag and place of each word of each sentence."""
    lines = [(line, where) for line, where in numbered_lines(path)]
    first = next((line for line, _ in lines if line.strip()), None)
    if first is None:
        raise UserError(f"{path} is empty")
    if re.match(r"\s*\d+ .*\|\|\|", first):
        return [_predicate_tags(line, where) for line, where in lines if line.strip()]
    sentences: list[list[tuple[str | None, str, str]]] = [[]]
    width = 0
    for line, where in lines:
        if not ends_sentence(line):
            columns = split_columns(line)
            width = width or len(columns)
            if len(columns) != width:
                raise UserError(f"{where}: {len(columns)} columns, the first line has {width}")
            check_tag(columns[-1], where)
            sentences[-1].append((columns[0] if width > 1 else None, columns[-1], where))
        elif sentences[-1]:
            sentences.append([])
    return [words for words in sentences if words]


def _predicate_tags(line: str, where: str) -> list[tuple[str | None, str, str]]:
    words, *rest = line.split("|||")
    tags = rest[0].split() if len(rest) == 1 else []
    count = len(words.split()) - 1
    if len(rest) != 1 or len(tags) != count:
        raise UserError(f"{where}: expected INDEX words ||| tags, a tag for each of {count} words")
    for tag in tags:
        check_tag(tag, where)
    return [(word, tag, where) for word, tag in zip(words.split()[1:], tags, strict=True)]


def _check_words(references: Path, hypotheses: Path) -> None:
    """Refuse tags of other words, as far as both files have words."""
    files = _read_sentences(references), _read_sentences(hypotheses)
    for gold, predicted in zip(*files, strict=False):
        for (word, _, where), (other, _, place) in zip(gold, predicted, strict=False):
            if None not in (word, other) and word != other:
                raise UserError(
                    f"{where}: the word is {word!r}, but {other!r} at {place}: give the tags "
                    "of the same sentences, or a file of tags alone"
                )


def main(argv: Sequence[str] | None = None) -> None:
    file_format = "CoNLL columns with the tag last, or 'words ||| tags' lines"
    args = argument_parser(__doc__, file_format, file_format, segments=False).parse_args(argv)
    references, hypotheses = read_tags(args.references), read_tags(args.hypotheses)
    with naming_files(args):
        scores = score(references, hypotheses)
    _check_words(args.references, args.hypotheses)
    publish(scores, args)


if __name__ == "__main__":
    run_command(main)
