"""WebNLG and DART: normalisation, multi-bleu, TER, splits, readers and expansion."""

from __future__ import annotations

import json
import random

import pytest
from conftest import official_files
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics import TER

from evaluation import dart, java, ter, triples, webnlg
from prefix_tuning.errors import UserError


def corpus_ter(references, hypotheses):
    statistics = ter.statistics(references, hypotheses)
    return sum(edits for edits, _ in statistics) / sum(length for _, length in statistics)


@pytest.fixture
def no_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


# Normalisation


@pytest.mark.parametrize(
    ("text", "hypothesis", "reference"),
    [
        ("It is 2702.0 m up.", "it is 2702 . 0 m up .", "it is 2702 . 0 m up ."),
        ("Adolfo_Suárez – Madrid", "adolfo_suarez - madrid", "adolfo_suarez - madrid"),
        ("Köln's “Dom”", 'koln \' s " dom "', 'koln \' s " dom "'),
        # Punctuation that comes from transliteration is split off in hypotheses only.
        ("5½ m", "5 1 / 2 m", "5 1/2 m"),
    ],
)
def test_webnlg_normalisation(text, hypothesis, reference):
    assert webnlg.normalize_hypothesis(text) == hypothesis
    assert webnlg.normalize_reference(text) == reference


@pytest.mark.parametrize("name", official_files("webnlg"))
def test_official_webnlg_normalisation(vectors, name):
    file = vectors(name)
    assert list(map(webnlg.normalize_hypothesis, file["hyps_raw"])) == file["hyps_normalised"]
    refs = [list(map(webnlg.normalize_reference, group[:3])) for group in file["refs_raw"]]
    assert refs == file["refs_normalised"]


@given(st.text())
def test_dart_normalisation_leaves_normalised_text_alone(text):
    assert dart.normalize(dart.normalize(text)) == dart.normalize(text)


def test_dart_references_are_the_normalised_texts(data):
    texts, triple_sets = dart.read_references(data / "dart/dart-v1.1.1-full-test.xml")
    lines, _ = dart.read_references(data / "dart/eval_refs/all-delex-reference0.lex")
    padded = [[*map(dart.normalize, group[:3]), "", "", ""][:3] for group in texts]
    assert padded == lines
    assert (len(triple_sets), len(set(triple_sets))) == (5097, 4159)


# BLEU


@pytest.mark.parametrize(
    ("name", "part", "lowercase"),
    [
        *((n, part, True) for n in official_files("webnlg") for part in ("all", "seen", "unseen")),
        *((n, None, False) for n in official_files("dart")),
    ],
)
def test_official_bleu_and_ter(vectors, name, part, lowercase):
    file = vectors(name)
    refs, hyps = (
        file.get("refs_normalised", file["refs" if part is None else "refs_normalised"]),
        (file["hyps" if part is None else "hyps_normalised"]),
    )
    where = file.get("seen_unseen", [part] * len(hyps))
    chosen = [i for i in range(len(hyps)) if part in ("all", where[i])]
    official = file["official"] if part is None else file["official"][part]
    refs = [[ref for ref in refs[i] if ref] for i in chosen]
    hyps = [hyps[i] for i in chosen]
    assert triples.multi_bleu(refs, hyps, lowercase) == pytest.approx(official["BLEU"], abs=1e-6)
    assert corpus_ter(refs, hyps) == pytest.approx(official["TER"], abs=0.002)


@pytest.mark.parametrize("name", official_files("ter_bleu_meteor_edge_cases"))
def test_official_edge_cases(vectors, name):
    file = vectors(name)
    refs, hyps = [i["refs"] for i in file["items"]], [i["hyp"] for i in file["items"]]
    for official, part in [
        (file["corpus_official"], range(len(hyps))),
        *((item["official"], [i]) for i, item in enumerate(file["items"])),
    ]:
        part_refs, part_hyps = [refs[i] for i in part], [hyps[i] for i in part]
        bleu = triples.multi_bleu(part_refs, part_hyps, lowercase=True)
        assert bleu == pytest.approx(official["BLEU"], abs=1e-6)
        statistics = [list(pair) for pair in ter.statistics(part_refs, part_hyps)]
        assert statistics == [
            pytest.approx(pair) for pair in official["TER_segments_edits_avgreflen"]
        ]


def test_a_missing_reference_counts_as_one_of_length_0():
    # 4 words are closer to 0 than to 9: no brevity penalty.
    refs, hyps = [["a b c d e f g h i"]], ["a b c d"]
    assert triples.multi_bleu(refs, hyps, lowercase=False) == pytest.approx(100)
    full = [["a b c d e f g h i"] * 3]
    assert triples.multi_bleu(full, hyps, lowercase=False) == pytest.approx(28.6505, abs=1e-4)


def test_bleu_case():
    assert triples.multi_bleu([["A b c d"]], ["a b c d"], lowercase=True) == pytest.approx(100)
    assert triples.multi_bleu([["A b c d"]], ["a b c d"], lowercase=False) == 0


# TER


@pytest.mark.parametrize(
    ("hypothesis", "reference", "expected"),
    [
        ("d e f g h a b c", "a b c d e f g h", 1),  # one shift
        ("a b c", "a b c", 0),
        ("a x c", "a b c", 1),
        ("a b c d", "", 4),
        ("x", "a b c", 3),
        ("b a d c", "a b c d", 2),
    ],
)
def test_edits_by_hand(hypothesis, reference, expected):
    assert ter.edits(hypothesis.split(), reference.split()) == expected


SHORT = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=12).map(" ".join)


@given(st.lists(st.tuples(SHORT, st.lists(SHORT, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_ter_is_sacrebleu(pairs):
    for hyp, refs in pairs:
        official = TER().sentence_score(hyp, refs)
        assert ter.statistics([refs], [hyp]) == [(official.num_edits, official.ref_length)]


@pytest.mark.parametrize("seed", range(3))
def test_ter_is_sacrebleu_on_long_texts(seed):
    rng = random.Random(seed)
    words = [rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(70)]
    cut, end = rng.randint(26, 40), rng.randint(50, 70)
    hyp, ref = " ".join(words[cut:end] + words[:cut]), " ".join(words)
    official = TER().sentence_score(hyp, [ref])
    assert ter.statistics([[ref]], [hyp]) == [(official.num_edits, official.ref_length)]


def test_ter_is_sacrebleu_where_a_shortest_path_leaves_its_beam():
    # Every other word agrees, 26 words further on: too far for a beam of 25.
    reference = [f"word{i}" for i in range(90)]
    hypothesis = [word if i % 2 else f"other{i}" for i, word in enumerate(reference[26:])]
    hypothesis += [f"more{i}" for i in range(26)]
    assert Levenshtein.distance(hypothesis, reference) < 90
    assert TER().sentence_score(" ".join(hypothesis), [" ".join(reference)]).num_edits == 90
    assert ter.edits(hypothesis, reference) == 90


# Splits, order, equality


CATEGORIES = ["Airport", "Artist", "Food", "Politician"]
PLAIN = ["The airport is big.", "He sings in Köln.", "It is a soup of 2.5 kg.", "She was elected."]
WORDY = st.lists(st.sampled_from(["a", "b", "c", "Dé", "4.5", ";"]), min_size=1, max_size=9)
TEXT = WORDY.map(" ".join)
RECORDS = st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=1, max_size=5)


def test_equal_texts_score_perfectly_in_every_part(no_java):
    references = [[text, "something else"] for text in PLAIN]
    rows = webnlg.score(references, PLAIN, CATEGORIES, segments=True)
    assert list(rows) == ["Seen", "Unseen", "All"]
    for scores, count in zip(rows.values(), (2, 2, 4), strict=True):
        assert scores["BLEU"] == pytest.approx(100)
        assert scores["TER"] == 0
        assert scores.segments == {"TER": [0.0] * count}
        assert "needs Java" in scores.missing["METEOR"]


def test_parts_are_scored_by_category(no_java):
    hypotheses = ["wrong", PLAIN[1], "wrong", PLAIN[3]]
    rows = webnlg.score([[text] for text in PLAIN], hypotheses, CATEGORIES)
    assert rows["Unseen"]["TER"] == 0
    assert rows["Seen"]["TER"] == 1
    assert 0 < rows["All"]["TER"] < 1
    only_seen = webnlg.score([["a b"]], ["a b"], ["Food"])
    assert list(only_seen) == ["Seen", "All"]


def test_only_three_references_count(no_java):
    references = [["a b", "c d", "e f", "the fourth one counts not"]]
    scores = webnlg.score(references, ["the fourth one counts not"], ["Food"])["All"]
    assert scores["TER"] > 1


@given(RECORDS, st.randoms(use_true_random=False))
def test_order_does_not_matter(records, rng):
    shuffled = [(hyp, rng.sample(refs, len(refs))) for hyp, refs in records]
    rng.shuffle(shuffled)
    first, second = (
        ([refs for _, refs in corpus], [hyp for hyp, _ in corpus]) for corpus in (records, shuffled)
    )
    assert triples.multi_bleu(*first, False) == pytest.approx(triples.multi_bleu(*second, False))
    assert corpus_ter(*first) == pytest.approx(corpus_ter(*second))


def test_unknown_category():
    with pytest.raises(UserError, match="entry 1: 'Film' is not a category of WebNLG 2017"):
        webnlg.score([["a"]], ["a"], ["Film"])


# Readers


def test_webnlg_json_and_xml_say_the_same(tmp_path):
    texts = [["One lex.", "Another é."], ["Third."]]
    categories = ["Airport", "Artist"]
    entries = [
        {str(i): {"category": category, "lexicalisations": [{"lex": lex} for lex in lexes]}}
        for i, (category, lexes) in enumerate(zip(categories, texts, strict=True), 1)
    ]
    (tmp_path / "test.json").write_text(json.dumps({"entries": entries}))
    lines = [
        f'<entry category="{category}">'
        + "".join(f"<lex>{lex}</lex>" for lex in lexes)
        + "</entry>"
        for category, lexes in zip(categories, texts, strict=True)
    ]
    xml = f"<benchmark><entries>{''.join(lines)}</entries></benchmark>"
    (tmp_path / "test.xml").write_text(xml, encoding="utf-8")
    assert webnlg.read_references(tmp_path / "test.json") == (texts, categories)
    assert webnlg.read_references(tmp_path / "test.xml") == (texts, categories)


def test_dart_json_and_xml_say_the_same(tmp_path):
    records = [
        {"tripleset": [["s", "REL", "o"]], "annotations": [{"text": "A."}, {"text": "B."}]},
        {"tripleset": [["s", "rel", "o"]], "annotations": [{"text": "C."}]},
        {"tripleset": [["s", "REL", "p"], ["x", "Y", "z"]], "annotations": [{"text": "D."}]},
    ]
    (tmp_path / "test.json").write_text(json.dumps(records))
    lines = [
        "<entry><modifiedtripleset>"
        + "".join(f"<mtriple>{' | '.join(triple)}</mtriple>" for triple in record["tripleset"])
        + "</modifiedtripleset>"
        + "".join(f"<lex>{annotation['text']}</lex>" for annotation in record["annotations"])
        + "</entry>"
        for record in records
    ]
    xml = f"<benchmark><entries>{''.join(lines)}</entries></benchmark>"
    (tmp_path / "test.xml").write_text(xml)
    for name in ("test.json", "test.xml"):
        texts, triple_sets = dart.read_references(tmp_path / name)
        assert texts == [["A.", "B."], ["C."], ["D."]]
        assert triple_sets[0] == triple_sets[1] != triple_sets[2]


def test_expansion_repeats_the_output_of_equal_triple_sets():
    assert dart.expand(["x", "y", "x", "z", "y"], ["1", "2", "3"]) == ["1", "2", "1", "3", "2"]
    with pytest.raises(UserError, match=r"references have 3 distinct triple sets, the hyp.* 2"):
        dart.expand(["x", "y", "z"], ["1", "2"])


def test_dart_names_the_test_set_and_what_is_missing(no_java, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    texts = ["The pub, in the city, is big."] * 6959
    scores = dart.score([[text] for text in texts], texts, bertscore_model="no/such-model")
    assert scores["BLEU"] == pytest.approx(100)
    assert "July 2020 (6959 records)" in scores.note
    assert set(scores.missing) == {"METEOR", "MoverScore", "BERTScore", "BLEURT"}
    assert "no/such-model" in scores.missing["BERTScore"]
    few = dart.score([["a b"]], ["A B"], bertscore_model="no/such-model")
    assert "1 records, which is neither" in few.note


def test_meteor_statistics_are_asked_for_once(monkeypatch):
    calls = []

    def fake(references, hypotheses, parts):
        calls.append(len(parts))
        return [(0.5, [0.25] * len(part)) for part in parts]

    monkeypatch.setattr(java, "meteor", fake)
    rows = webnlg.score([[text] for text in PLAIN], PLAIN, CATEGORIES, segments=True)
    assert calls == [3]
    assert rows["Seen"]["METEOR"] == 0.5
    assert rows["Seen"].segments["METEOR"] == [0.25, 0.25]
