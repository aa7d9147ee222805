"""BLEU, METEOR and TER of the WebNLG 2017 challenge: seen categories, unseen ones, and all.

    python -m evaluation.webnlg REFERENCES HYPOTHESES [--json out.json] [--segments]

REFERENCES is the challenge's test file (JSON or XML), HYPOTHESES has one output per entry in the
order of that file. Both are normalised as the challenge's evaluation.py does. The test set (1862
entries) takes about 30 seconds on two cores, most of it TER. METEOR needs Java.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from unidecode import unidecode

from evaluation import checks, files
from evaluation.report import Scores, argument_parser, naming_files, publish
from evaluation.triples import MAX_REFERENCES, score_parts
from prefix_tuning.errors import UserError, run_command

SEEN_CATEGORIES = {"Airport", "Astronaut", "Building", "City", "ComicsCharacter"}
SEEN_CATEGORIES |= {"Food", "Monument", "SportsTeam", "University", "WrittenWork"}
UNSEEN_CATEGORIES = {"Artist", "Athlete", "CelestialBody", "MeanOfTransportation", "Politician"}


def tokenize(text: str) -> str:
    """Put a space around every character that is neither letter, digit nor underscore."""
    return " ".join(" ".join(re.split(r"(\W)", text)).split())


def normalize_hypothesis(text: str) -> str:
    """To ASCII and lower case, then tokenise (evaluation.py of the challenge)."""
    return tokenize(unidecode(unidecode(text.strip()).lower()))


def normalize_reference(text: str) -> str:
    """As hypotheses, but tokenised first: an accent may leave punctuation attached."""
    return unidecode(tokenize(text).lower())


def score(
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[str],
    categories: Sequence[str],
    segments: bool = False,
) -> dict[str, Scores]:
    """Score the outputs for a whole test or development set.

    Args:
        references: plain texts of each entry; the first three count.
        hypotheses: plain output for each entry, same order.
        categories: DBpedia category of each entry, as the data names it: decides the split.
        segments: also give METEOR and TER of each entry.

    Returns:
        Scores of Seen, Unseen (where there are such entries) and All: BLEU from 0 to 100,
        METEOR from 0 to 1, TER from 0 up, lower is better.

    Raises:
        UserError: counts differ, an entry has no reference, a category is not of WebNLG 2017.
    """
    refs = [list(filter(None, map(normalize_reference, g[:MAX_REFERENCES]))) for g in references]
    hyps = [normalize_hypothesis(hyp) for hyp in hypotheses]
    checks.check_texts(refs, hyps)
    parts: dict[str, list[int]] = {"Seen": [], "Unseen": [], "All": []}
    for number, category in enumerate(categories):
        if category not in SEEN_CATEGORIES | UNSEEN_CATEGORIES:
            raise UserError(f"entry {number + 1}: {category!r} is not a category of WebNLG 2017")
        parts["Seen" if category in SEEN_CATEGORIES else "Unseen"].append(number)
        parts["All"].append(number)
    parts = {name: part for name, part in parts.items() if part}
    rows = score_parts(refs, hyps, parts, lowercase=True, segments=segments)
    rows["All"].note = checks.empty_outputs(hyps)
    return rows


def read_references(path: Path) -> tuple[list[list[str]], list[str]]:
    """Read the texts and the category of each entry of a challenge file, JSON or XML."""
    if path.suffix.lower() == ".xml":
        entries = files.read_xml(path).findall(".//entry")
        texts = [[lex.text or "" for lex in entry.findall("lex")] for entry in entries]
        return texts, [entry.get("category", "") for entry in entries]
    document = files.read_json(path)
    texts, categories, place = [], [], ""
    try:
        for number, numbered in enumerate(document["entries"], 1):
            place = f", entry {number}"
            (entry,) = numbered.values()  # a subset keeps the numbers of the whole
            texts.append([lex["lex"].strip() for lex in entry["lexicalisations"]])
            categories.append(entry["category"].strip())
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not a WebNLG challenge file: {error}{place}") from error
    return texts, categories


def main(argv: Sequence[str] | None = None) -> None:
    args = argument_parser(
        __doc__, "the challenge's .json or .xml", "one output per line, in test order"
    ).parse_args(argv)
    references, categories = read_references(args.references)
    hypotheses = files.read_lines(args.hypotheses)
    with naming_files(args):
        scores = score(references, hypotheses, categories, args.segments)
    publish(scores, args)


if __name__ == "__main__":
    run_command(main)
