"""BLEU, METEOR and TER on DART, and BERTScore, MoverScore and BLEURT where their models are.

    python -m evaluation.dart REFERENCES HYPOTHESES [--json out.json] [--segments]

The numbers are those of DART's run_eval_on_dart.sh: up to three references, texts in lower case
and split at punctuation as its reference files are. HYPOTHESES has one output per record, or one
per distinct triple set, which is then repeated for each of its records. The test set (5097
records) takes about 45 seconds on two cores, most of it TER. METEOR needs Java.

Two test sets go by the name of v1.1.1; which one was scored is printed with the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from evaluation import checks, files, neural
from evaluation.report import Scores, Unavailable, argument_parser, naming_files, publish
from evaluation.triples import MAX_REFERENCES, score_parts
from evaluation.webnlg import tokenize
from prefix_tuning.errors import UserError, run_command

TEST_SETS = {
    6959: "the test set of July 2020 (6959 records), as in the prefix-tuning paper",
    5097: "the test set of April 2021 (5097 records), not that of the prefix-tuning paper (6959)",
}


def normalize(text: str) -> str:
    """Lower case and a space around each punctuation mark, as DART's reference files are."""
    return tokenize(text).lower()


def expand(triple_sets: Sequence[Hashable], outputs: Sequence[str]) -> list[str]:
    """Repeat the output of each distinct triple set for all records that have it.

    Args:
        triple_sets: the triples of each record, in test order.
        outputs: one per distinct triple set, in the order in which these first occur.

    Returns:
        One output per record, in test order.
    """
    distinct = dict.fromkeys(triple_sets)
    checks.check_counts(len(distinct), len(outputs), "distinct triple sets")
    output_of = dict(zip(distinct, outputs, strict=True))
    return [output_of[triples] for triples in triple_sets]


def score(
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[str],
    segments: bool = False,
    models: bool = True,
    bertscore_model: str = "roberta-large",
    bertscore_layers: int = 17,
    bleurt_checkpoint: str | None = None,
) -> Scores:
    """Score the outputs for a whole test or development set.

    Args:
        references: plain or tokenised texts of each record; the first three count.
        hypotheses: plain or tokenised output for each record, same order.
        segments: also give the scores of each record (there is no BLEU of one record).
        models: also compute the scores that need a model; without a GPU they take hours.
        bertscore_model: folder or Hugging Face name.
        bertscore_layers: which layer of it to compare.
        bleurt_checkpoint: folder or Hugging Face name of a checkpoint for bleurt-pytorch.

    Returns:
        BLEU from 0 to 100; METEOR, BERTScore from 0 to 1; TER from 0 up, lower is better;
        MoverScore and BLEURT on scales of their own, against the first reference only.

    Raises:
        UserError: counts differ, or a record has no reference.
    """
    refs = [list(filter(None, map(normalize, group[:MAX_REFERENCES]))) for group in references]
    hyps = [normalize(hyp) for hyp in hypotheses]
    checks.check_texts(refs, hyps)
    everything = {"DART": range(len(hyps))}
    scores = score_parts(refs, hyps, everything, lowercase=False, segments=segments)["DART"]
    scores.note = "Scored on " + TEST_SETS.get(
        len(hyps), f"{len(hyps)} records, which is neither of the DART test sets"
    )
    scores.add_note(checks.empty_outputs(hyps))
    if not models:
        return scores
    scores.full["BERTScore"] = 1
    first = [group[0] for group in refs]
    by_model: dict[str, Callable[[], list[float]]] = {
        "MoverScore": lambda: neural.moverscore(first, hyps),
        "BERTScore": lambda: neural.bertscore(refs, hyps, bertscore_model, bertscore_layers),
        "BLEURT": lambda: neural.bleurt(first, hyps, bleurt_checkpoint),
    }
    for column, compute in by_model.items():
        try:
            values = compute()
        except Unavailable as reason:
            scores.add_missing(column, reason)
            continue
        scores.values[column] = sum(values) / len(values)
        if segments:
            scores.segments[column] = list(values)
    return scores


def read_references(path: Path) -> tuple[list[list[str]], list[Hashable]]:
    """Read the texts and the triples of each record.

    Args:
        path: DART's ``.json`` or ``.xml``; or ``...reference0.lex`` of its evaluation folder,
            with reference1 and reference2 beside it, which name no triples.
    """
    if path.suffix.lower() == ".lex":
        paths = [path.with_name(path.name.replace("0.lex", f"{i}.lex")) for i in range(3)]
        columns = [files.read_lines(column) for column in paths]
        for column in columns[1:]:
            checks.check_counts(len(columns[0]), len(column), f"lines in {path.name}")
        return [list(texts) for texts in zip(*columns, strict=True)], list(range(len(columns[0])))
    place = ""
    try:
        if path.suffix.lower() == ".xml":
            records = [_xml_record(entry) for entry in files.read_xml(path).iter("entry")]
        else:
            records = []
            for number, record in enumerate(files.read_json(path), 1):
                place = f", record {number}"
                records.append(_json_record(record))
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a DART file: {error}{place}") from error
    return [texts for texts, _ in records], [triples for _, triples in records]


def _json_record(record: dict) -> tuple[list[str], Hashable]:
    texts = [annotation["text"].strip() for annotation in record["annotations"]]
    for triple in record["tripleset"]:
        if not isinstance(triple, list) or not all(isinstance(part, str) for part in triple):
            raise TypeError(f"{triple!r} is not a list of three texts")
    return texts, tuple(_triple_key(*triple) for triple in record["tripleset"])


def _xml_record(entry: Element) -> tuple[list[str], Hashable]:
    triples = ((triple.text or "").split(" | ") for triple in entry.iter("mtriple"))
    texts = [lex.text or "" for lex in entry.iter("lex")]
    return texts, tuple(_triple_key(*triple) for triple in triples)


def _triple_key(subject: str, relation: str, object_: str) -> Hashable:
    """What makes triples equal: the model sees the relation in lower case."""
    return subject, relation.lower(), object_


def main(argv: Sequence[str] | None = None) -> None:
    parser = argument_parser(
        __doc__,
        "DART's .json or .xml, or reference0.lex beside its reference1 and reference2",
        "one output per record or per distinct triple set",
    )
    parser.add_argument(
        "--no_models", action="store_true", help="leave out MoverScore, BERTScore, BLEURT"
    )
    parser.add_argument(
        "--bertscore_model",
        default="roberta-large",
        help="folder or hub name of the model that BERTScore compares with",
    )
    parser.add_argument(
        "--bertscore_layers", type=int, default=17, metavar="LAYER", help="layer it compares (17)"
    )
    parser.add_argument(
        "--bleurt_checkpoint", help="folder or hub name of BLEURT, in bleurt-pytorch's format"
    )
    args = parser.parse_args(argv)
    references, triple_sets = read_references(args.references)
    hypotheses = files.read_lines(args.hypotheses)
    if len(hypotheses) == len(set(triple_sets)):
        hypotheses = expand(triple_sets, hypotheses)
    with naming_files(args):
        scores = score(
            references,
            hypotheses,
            segments=args.segments,
            models=not args.no_models,
            bertscore_model=args.bertscore_model,
            bertscore_layers=args.bertscore_layers,
            bleurt_checkpoint=args.bleurt_checkpoint,
        )
    publish({"DART": scores}, args)


if __name__ == "__main__":
    run_command(main)
