"""The five scores of the E2E NLG Challenge, as e2e-metrics (measure_scores.py) prints them.

    python -m evaluation.e2e REFERENCES HYPOTHESES [--json out.json] [--segments]

BLEU and NIST are printed twice: as the challenge computes them (mteval-v13a-sig.pl) and as
``measure_scores.py -p`` does (pymteval.py), which is what the prefix-tuning paper reports. BLEU
is the same in both unless outputs are very short; NIST is not. METEOR, ROUGE_L and CIDEr need
Java for their tokeniser. All of the test set (630 outputs, 4693 references): about 20 seconds on
two cores, half of it the start of METEOR.

The paper's references are the tokenised texts of its data file (``src1_test.txt``), grouped by
source, not the challenge's own; about 0.9 BLEU comes from that alone, so name the file with the
number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

from evaluation import checks, files, java, words
from evaluation.mteval import Mteval
from evaluation.report import Scores, Unavailable, argument_parser, naming_files, publish
from prefix_tuning.errors import UserError, run_command

SOURCE_COLUMNS = {"mr", "src", "source", "da"}
OUTPUT_COLUMNS = {"output", "out", "sys", "system", "ref", "reference"}
REFERENCE_COLUMNS = {"ref", "reference", "target", "tgt", "trg"}


def score(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str], segments: bool = False
) -> Scores:
    """Score outputs against one or more references each.

    Args:
        references: the references of each instance, untokenised or tokenised as the paper's.
        hypotheses: one output per instance, same order.
        segments: also score each instance by itself, as ``measure_scores.py -s`` does.

    Returns:
        BLEU, METEOR, ROUGE_L from 0 to 1, NIST and CIDEr on scales of their own. CIDEr weighs
        n-grams by their frequency in these references: not comparable across test sets. All are
        undefined where a text has words and the tokeniser 13a sees none.

    Raises:
        UserError: counts differ, or an instance has no reference.
    """
    references = [[ref for ref in group if ref.strip()] for group in references]
    checks.check_texts(references, hypotheses)
    scores = score_ngrams(references, hypotheses)
    scores.note = checks.empty_outputs(hypotheses)
    columns = ("METEOR", "ROUGE_L", "CIDEr")
    try:
        results = score_captions(references, hypotheses)
    except Unavailable as reason:
        for column in columns:
            scores.add_missing(column, reason)
    else:
        scores.values |= {column: results[column][0] for column in columns}
        scores.segments = {column: results[column][1] for column in columns}
    scores.segments = _segment_ngrams(references, hypotheses) | scores.segments if segments else {}
    words.undefine_unread(scores, references, hypotheses, "13a")
    return scores


def score_ngrams(references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> Scores:
    """BLEU and NIST by both official programs, also of empty and of very short outputs."""
    scores = Scores(full=dict.fromkeys(("BLEU", "BLEU -p", "METEOR", "ROUGE_L"), 1))
    for suffix, perl in (("", True), (" -p", False)):
        statistics = Mteval(references, hypotheses, perl)
        scores.values[f"BLEU{suffix}"] = statistics.bleu()
        scores.values[f"NIST{suffix}"] = statistics.nist()
    if scores["NIST -p"] is None:
        for column in ("BLEU -p", "NIST -p"):
            scores.add_missing(column, "measure_scores.py -p fails on outputs this short")
    return scores


def _segment_ngrams(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str]
) -> dict[str, list[float | None]]:
    pairs = zip(references, hypotheses, strict=True)
    alone = [Mteval([refs], [hyp], perl=False) for refs, hyp in pairs]
    return {
        "BLEU -p": [statistics.bleu() for statistics in alone],
        "sentBLEU -p": [statistics.bleu(smoothing=1) for statistics in alone],
        "NIST -p": [statistics.nist() for statistics in alone],
    }


def score_captions(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str]
) -> dict[str, tuple[float, list[float | None]]]:
    """METEOR, ROUGE_L and CIDEr after PTB tokenisation: corpus score and that of each instance.

    Raises:
        Unavailable: Java is missing.
    """
    flat = [*hypotheses, *(ref for refs in references for ref in refs)]
    tokenized = iter(java.ptb_tokenize(flat))
    hyps = [next(tokenized) for _ in hypotheses]
    refs = [[next(tokenized) for _ in group] for group in references]
    with ThreadPoolExecutor(1) as pool:  # METEOR runs in a process of its own meanwhile
        meteor = pool.submit(java.meteor, refs, hyps, [range(len(hyps))])
        results = score_tokenized(refs, hyps)
        ((corpus, segments),) = meteor.result()
    return {"METEOR": (corpus, list(segments)), **results}


def score_tokenized(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str]
) -> dict[str, tuple[float, list[float | None]]]:
    """ROUGE_L (Lin 2004, as in the COCO code) and CIDEr (Vedantam et al. 2015) of PTB tokens."""
    # Imported here, as the other scores do without this package.
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    refs = {number: list(group) for number, group in enumerate(references)}
    hyps = {number: [hyp] for number, hyp in enumerate(hypotheses)}
    results: dict[str, tuple[float, list[float | None]]] = {}
    for name, scorer in (("ROUGE_L", Rouge()), ("CIDEr", Cider())):
        corpus, segments = scorer.compute_score(refs, hyps)
        results[name] = (float(corpus), [float(value) for value in segments])
    return results


def group_by_source(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Collect (source, reference) pairs by source, in the order in which sources first occur.

    This is how prefix-tuning's gpt2/run_generation.py writes its gold file: equal sources are
    one instance wherever in the file they stand, and empty references are left out.
    """
    groups: dict[str, list[str]] = {}
    for source, reference in pairs:
        groups.setdefault(source.strip(), []).extend([reference] if reference.strip() else [])
    return groups


def read(references: Path, hypotheses: Path) -> tuple[list[list[str]], list[str]]:
    """Read a pair of files in any of the official formats.

    Args:
        references: text in groups separated by one blank line, or one per line if there is no
            blank line; ``.tsv`` or ``.csv`` with the columns MR and ref; or the paper's data
            file, ``source||reference`` per line.
        hypotheses: text, one output per line; or ``.tsv`` or ``.csv`` with the columns MR and
            output, which is then matched with the references by MR and not by order.
    """
    if not _is_table(hypotheses):
        return _read_references(references), files.read_lines(hypotheses)
    pairs = _read_pairs(hypotheses, OUTPUT_COLUMNS)
    if not _is_table(references):
        return _read_references(references), [output for _, output in pairs]
    outputs = dict(pairs)
    if len(outputs) < len(pairs):
        raise UserError(f"{hypotheses} has several outputs for one MR")
    groups = group_by_source(_read_pairs(references, REFERENCE_COLUMNS))
    unmatched = sorted(groups.keys() ^ outputs.keys())
    if unmatched:
        absent = hypotheses if unmatched[0] in groups else references
        raise UserError(f"{absent} has no row for the MR {unmatched[0]!r}")
    return [groups[source] for source in outputs], list(outputs.values())


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv")


def _read_references(path: Path) -> list[list[str]]:
    if _is_table(path):
        pairs = _read_pairs(path, REFERENCE_COLUMNS)
        grouped = groupby(pairs, key=lambda pair: pair[0])
        return [[reference for _, reference in group] for _, group in grouped]
    lines = files.read_lines(path)
    if "||" in next(filter(None, lines)):
        return list(group_by_source(_data_pairs(path, lines)).values())
    while not lines[-1]:
        lines.pop()
    if "" not in lines:
        return [[line] for line in lines]
    for number, (line, following) in enumerate(zip(["", *lines], lines, strict=False), 1):
        if not line and not following:
            raise UserError(f"{path}, line {number}: an instance without references")
    return [list(group) for full, group in groupby(lines, key=bool) if full]


def _data_pairs(path: Path, lines: list[str]) -> Iterator[tuple[str, str]]:
    """Sources and references of the paper's data file; blank lines are skipped, as in training."""
    for number, line in enumerate(lines, 1):
        if line and line.count("||") != 1:
            raise UserError(
                f"{path}, line {number}: expected SOURCE||TARGET, found {line.count('||')} "
                "times '||'"
            )
        if line:
            source, reference = line.split("||")
            yield source, reference.strip()


def _read_pairs(path: Path, text_columns: set[str]) -> list[tuple[str, str]]:
    """The (MR, text) pairs of a table; CSV gets e2e-metrics' repair of badly decoded text."""
    header, rows = files.read_table(path)
    source, text = (_column(path, header, names) for names in (SOURCE_COLUMNS, text_columns))
    if path.suffix.lower() == ".csv":
        rows = [[_repair(cell) for cell in row] for row in rows]
    return [(row[source].strip(), row[text].strip()) for row in rows]


def _column(path: Path, header: list[str], names: set[str]) -> int:
    for index, name in enumerate(header):
        if name in names:
            return index
    raise UserError(f"{path} has no column named {' or '.join(sorted(names))}: {header}")


def _repair(text: str) -> str:
    return text.replace("Ł", "£").replace("Â£", "£").replace("Ã©", "é")


def main(argv: Sequence[str] | None = None) -> None:
    args = argument_parser(
        __doc__,
        "blank-line separated groups, MR/ref .csv or .tsv, or source||reference lines",
        "one output per line, or MR/output .csv or .tsv",
    ).parse_args(argv)
    references, hypotheses = read(args.references, args.hypotheses)
    with naming_files(args):
        scores = score(references, hypotheses, args.segments)
    publish({"E2E": scores}, args)


if __name__ == "__main__":
    run_command(main)
