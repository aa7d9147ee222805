"""BLEU, METEOR and TER of the WebNLG 2017 challenge scripts, which DART's evaluation reuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from sacrebleu.metrics import BLEU

from evaluation import java, ter
from evaluation.report import Scores, Unavailable

MAX_REFERENCES = 3


def multi_bleu(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str], lowercase: bool
) -> float:
    """BLEU as multi-bleu.perl computes it, from 0 to 100.

    The script reads three reference files, and where an instance has fewer it takes the empty
    line for a real reference of length 0: that one is the closest in length to outputs below
    half the shortest reference and spares them the brevity penalty. Hence the padding with ''
    and not None, worth 0.97 BLEU on DART.

    Args:
        references: up to three tokenised texts per instance.
        hypotheses: one tokenised text per instance.
        lowercase: the script's ``-lc``.
    """
    bleu = BLEU(tokenize="none", lowercase=lowercase, smooth_method="none", force=True)
    padded = [[*refs, *[""] * (MAX_REFERENCES - len(refs))] for refs in references]
    return bleu.corpus_score(list(hypotheses), list(zip(*padded, strict=True))).score


def score_parts(
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[str],
    parts: Mapping[str, Sequence[int]],
    lowercase: bool,
    segments: bool = False,
) -> dict[str, Scores]:
    """BLEU (0 to 100), METEOR (0 to 1) and TER (0 up, lower is better) of each part.

    Args:
        references: up to three normalised texts per instance.
        hypotheses: one normalised text per instance.
        parts: name of the part -> its instances, by number from 0.
        lowercase: whether BLEU ignores case; METEOR and TER always do.
        segments: also give METEOR and TER of each instance; multi-bleu.perl has no such score.
    """
    with ThreadPoolExecutor(1) as pool:  # METEOR runs in a process of its own meanwhile
        meteor = pool.submit(java.meteor, references, hypotheses, list(parts.values()))
        edits = ter.statistics(references, hypotheses)
        try:
            meteor_of_part = dict(zip(parts, meteor.result(), strict=True))
            reason = None
        except Unavailable as unavailable:
            reason = unavailable
    rows = {}
    for name, part in parts.items():
        rows[name] = scores = Scores(full={"BLEU": 100, "METEOR": 1})
        refs, hyps = [references[i] for i in part], [hypotheses[i] for i in part]
        scores.values["BLEU"] = multi_bleu(refs, hyps, lowercase)
        if reason:
            scores.add_missing("METEOR", reason)
        else:
            scores.values["METEOR"] = meteor_of_part[name][0]
        scores.values["TER"] = sum(edits[i][0] for i in part) / sum(edits[i][1] for i in part)
        if segments:
            scores.segments = {"TER": [edits[i][0] / edits[i][1] for i in part]}
            if not reason:
                scores.segments["METEOR"] = list(meteor_of_part[name][1])
    return rows
