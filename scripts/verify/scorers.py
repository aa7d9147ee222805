"""Scores: of published systems on whole test sets, and beside the packages on texts of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from evaluation import dart, e2e, files, java, summarization, ter, triples, webnlg
from evaluation.mteval import Mteval
from evaluation.report import Scores, Unavailable
from prefix_tuning.files import read_json
from scripts.verify.checks import DATA, Check, Difference, LeftOut, Places
from scripts.verify.loop import quiet

Expected = Mapping[str, tuple[float, float]]
"""Column -> what was published, and half of its last digit."""
PUBLISHED = read_json(Path(__file__).with_name("scorers.json"))
"""System (and part of WebNLG) -> what is expected; the METEOR of a report was cut, not rounded."""


def _columns(found: Scores, expected: Expected, of: str = "") -> Iterator[Difference]:
    for column, (value, bound) in expected.items():
        score = found[column]
        if score is None:
            raise LeftOut(f"{column} {found.missing.get(column, 'is not defined')}")
        yield Difference(f"{column}{of}", abs(score - value), bound)


def tgen(places: Places) -> Iterator[Difference]:
    """TGen, the baseline of the E2E NLG Challenge."""
    references = places.find("e2e_data/testset_w_refs.csv", "e2e/testset_w_refs.csv")
    outputs = places.find("outputs/e2e_tgen.tsv", "e2e/system_outputs/tgen.tsv")
    yield from _columns(e2e.score(*e2e.read(references, outputs)), PUBLISHED["tgen"])


def independent(places: Places) -> Iterator[Difference]:
    """Texts of somebody else's prefix-tuned GPT-2 medium, with the scores of their report."""
    references = places.find("outputs/e2e_references.txt", "e2e/independent/target.txt")
    outputs = places.find("outputs/e2e_prefix.txt", "e2e/independent/paper-medium-ft_fine.txt")
    yield from _columns(e2e.score(*e2e.read(references, outputs)), PUBLISHED["independent"])


def bart_on_webnlg(places: Places) -> Iterator[Difference]:
    """BART-large on WebNLG 2017."""
    references = places.find("webnlg_challenge_2017/test.json", "webnlg_2017/test.json")
    outputs = places.find(
        "outputs/webnlg_bart-large.txt", "webnlg_2017/system_outputs/bart-large_webnlg-all.txt"
    )
    texts, categories = webnlg.read_references(references)
    rows = webnlg.score(texts, files.read_lines(outputs), categories)
    for part, expected in PUBLISHED["webnlg"].items():
        yield from _columns(rows[part], expected, f", {part.lower()}")


def bart_on_dart(places: Places) -> Iterator[Difference]:
    """BART-large on DART, with its test set of 2021."""
    name = "dart-v1.1.1-full-test.xml"
    references = places.find(f"outputs/{name}", f"dart/{name}")
    outputs = places.find("outputs/dart_bart-large.txt", "dart/system_outputs/bart-large_dart.txt")
    texts, triple_sets = dart.read_references(references)
    hypotheses = files.read_lines(outputs)
    if len(hypotheses) == len(set(triple_sets)):
        hypotheses = dart.expand(triple_sets, hypotheses)
    yield from _columns(dart.score(texts, hypotheses, models=False), PUBLISHED["dart"])


def own_texts() -> tuple[list[list[str]], list[str]]:
    """References and outputs: of the texts for a restaurant the first is taken for an output."""
    lines = (DATA / "restaurants" / "src1_valid.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("||") for line in lines]
    groups = [[text.strip() for _, text in group] for _, group in groupby(pairs, lambda p: p[0])]
    return [group[1:] for group in groups], [group[0] for group in groups]


def _padded(references: Sequence[Sequence[str]], padding: Any) -> list[list[Any]]:
    """References as sacrebleu takes them: a list for each rank."""
    most = max(map(len, references))
    rows = [[*group, *[padding] * (most - len(group))] for group in references]
    return [list(rank) for rank in zip(*rows, strict=True)]


def beside_packages() -> Iterator[Difference]:
    """BLEU and TER of sacrebleu, NIST of NLTK, ROUGE of rouge-score."""
    from nltk.translate.nist_score import corpus_nist
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU, TER

    references, outputs = own_texts()
    none, empty = _padded(references, None), _padded(references, "")
    bleu = BLEU(tokenize="13a", lowercase=True, smooth_method="none")
    found = e2e.score_ngrams(references, outputs)
    expected = bleu.corpus_score(outputs, none).score / 100
    yield Difference("BLEU of E2E", abs(found["BLEU -p"] - expected), 1e-9)
    first = Mteval([group[:1] for group in references], outputs, perl=False)
    expected = corpus_nist(first.references, first.hypotheses, n=5)
    yield Difference("NIST, one reference", abs((first.nist() or 0.0) - expected), 1e-9)
    bleu = BLEU(tokenize="none", lowercase=True, smooth_method="none", force=True)
    expected = bleu.corpus_score(outputs, empty).score
    multi_bleu = triples.multi_bleu(references, outputs, lowercase=True)
    yield Difference("BLEU of WebNLG", abs(multi_bleu - expected), 1e-9)
    edits = [TER().sentence_score(h, g) for h, g in zip(outputs, references, strict=True)]
    pairs = zip(edits, ter.statistics(references, outputs), strict=True)
    apart = [abs(a.num_edits - b[0]) + abs(a.ref_length - b[1]) for a, b in pairs]
    yield Difference("edits of TER", max(apart), 1e-9)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    rouge = summarization.score([group[0] for group in references], outputs)
    rows = [scorer.score(g[0], h) for g, h in zip(references, outputs, strict=True)]
    for name in ("rouge1", "rouge2", "rougeL"):
        expected = 100 * sum(row[name].fmeasure for row in rows) / len(rows)
        column = summarization.COLUMNS[name]
        yield Difference(column, abs((rouge[column] or 0.0) - expected), 1e-9)


def beside_java() -> Iterator[Difference]:
    """METEOR, ROUGE-L and CIDEr of pycocoevalcap, which has the challenge's own programs."""
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    references, outputs = own_texts()
    try:
        java.ptb_tokenize(outputs[:1])
    except Unavailable as reason:
        raise LeftOut(str(reason)) from None
    found = e2e.score(references, outputs)
    tokenizer = PTBTokenizer()
    captions = [[[{"caption": text} for text in group] for group in references]]
    captions.append([[{"caption": text}] for text in outputs])
    with quiet():
        theirs, ours = (tokenizer.tokenize(dict(enumerate(side))) for side in captions)
    for column, scorer in (("METEOR", Meteor()), ("ROUGE_L", Rouge()), ("CIDEr", Cider())):
        expected = scorer.compute_score(theirs, ours)[0]
        yield Difference(column, abs((found[column] or 0.0) - expected), 1e-9)


def checks(places: Places) -> list[Check]:
    """Packages first, which need no data."""
    return [
        Check("scores_packages", "sacrebleu, NLTK, rouge-score", beside_packages),
        Check("scores_pycocoevalcap", "the programs of E2E's challenge", beside_java),
        Check("scores_tgen_e2e", "TGen's published row", partial(tgen, places)),
        Check("scores_prefix_e2e", "an independent report", partial(independent, places)),
        Check("scores_bart_webnlg", "the official scripts", partial(bart_on_webnlg, places)),
        Check("scores_bart_dart", "DART's leaderboard", partial(bart_on_dart, places)),
    ]
