"""The official E2E file formats, and what is said about files that are not as they should be."""

from __future__ import annotations

import math

import pytest

from evaluation import e2e
from prefix_tuning.errors import UserError


@pytest.fixture
def write(tmp_path):
    def write(name, text, encoding="utf-8"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return tmp_path / name

    return write


REFERENCES = [["a cheap pub", "a pub"], ["the café"], ["one", "two", "three"]]


@pytest.mark.parametrize("ending", ["", "\n", "\n\n", "\n\n\n"])
def test_groups_of_lines(write, ending):
    text = "\n\n".join("\n".join(group) for group in REFERENCES) + ending
    hypotheses = write("hyps.txt", "x\ny y\nz\n")
    assert e2e.read(write("refs.txt", text), hypotheses) == (REFERENCES, ["x", "y y", "z"])
    windows = write("windows.txt", "\ufeff" + text.replace("\n", "\r\n"))
    assert e2e.read(windows, hypotheses)[0] == REFERENCES


def test_one_reference_per_line(write):
    references, _ = e2e.read(write("refs.txt", "one\ntwo\n"), write("hyps.txt", "x\ny\n"))
    assert references == [["one"], ["two"]]


def test_data_file_of_the_paper_is_grouped_by_source(write):
    text = "name : A || text 1 \nname : B||text 2 \nname : A ||text 3 \nname : B|| \n"
    references, _ = e2e.read(write("src1.txt", text), write("hyps.txt", "x\ny\n"))
    assert references == [["text 1", "text 3"], ["text 2"]]


CSV = 'mr,ref\n"name[A], b[c]",one\n"name[A], b[c]",two\nname[B],three\n"name[A], b[c]",four\n'


def test_table_and_plain_outputs_match_by_order(write):
    references, _ = e2e.read(write("refs.csv", CSV), write("hyps.txt", "x\ny\nz\n"))
    assert references == [["one", "two"], ["three"], ["four"]]


def test_two_tables_match_by_meaning_representation(write):
    outputs = write("hyps.tsv", 'MR\toutput\nname[B]\ty\n"name[A], b[c]"\tx\n')
    references, hypotheses = e2e.read(write("refs.csv", CSV), outputs)
    assert (references, hypotheses) == ([["three"], ["one", "two", "four"]], ["y", "x"])


def test_badly_decoded_text_is_repaired_in_csv_only(write):
    text = "mr{0}ref\nA{0}Â£20 cafÃ© Ł5\n"
    hypotheses = write("hyps.txt", "x\n")
    assert e2e.read(write("refs.csv", text.format(",")), hypotheses)[0] == [["£20 café £5"]]
    assert e2e.read(write("refs.tsv", text.format("\t")), hypotheses)[0] == [["Â£20 cafÃ© Ł5"]]


def test_challenge_files(data):
    references, hypotheses = e2e.read(
        data / "e2e/testset_w_refs.csv", data / "e2e/system_outputs/tgen.tsv"
    )
    assert (len(hypotheses), sum(map(len, references))) == (630, 4693)
    references, _ = e2e.read(data / "e2e/src1_test.txt", data / "e2e/system_outputs/tgen.tsv")
    assert (len(references), sum(map(len, references))) == (630, 4693)


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ("one\n\n\ntwo\n", r"refs\.txt, line 3: an instance without references"),
        ("\none\n\ntwo\n", r"refs\.txt, line 1: an instance without references"),
        ("", r"refs\.txt is empty"),
        ("caf\udce9\n", r"refs\.txt, line 1: not UTF-8 text \(byte 0xe9\)"),
    ],
)
def test_references_that_cannot_be_read(tmp_path, references, message):
    (tmp_path / "refs.txt").write_bytes(references.encode(errors="surrogateescape"))
    (tmp_path / "hyps.txt").write_text("x\ny\n")
    with pytest.raises(UserError, match=message):
        e2e.read(tmp_path / "refs.txt", tmp_path / "hyps.txt")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "MR\tanswer\nA\tx\n", "has no column named out or output"),
        ("a.tsv", "MR\toutput\nA\tx\nB\n", "line 3: 1 columns, the header has 2"),
        ("a.tsv", "MR\toutput\nname[B]\ty\n", r"a.tsv has no row for the MR 'name\[A\], b\[c\]'"),
        ("a.csv", f"{CSV}C,x\n", "a.csv has several outputs for one MR"),
        (
            "a.csv",
            'mr,ref\n"name[A], b[c]",x\nname[B],y\nC,z\n',
            "refs.csv has no row for the MR 'C'",
        ),
        ("a.csv", 'mr,ref\nA,"x', "a.csv, line 2: not a table"),
    ],
)
def test_tables_that_do_not_match(write, name, text, message):
    with pytest.raises(UserError, match=message):
        e2e.read(write("refs.csv", CSV), write(name, text))


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        ([["a"]], ["a", "b"], "the references have 1 instances, the hypotheses 2"),
        ([], [], "nothing to score"),
        ([["a"], []], ["a", "b"], "instance 2 has no reference"),
        ([["a"], ["", " "]], ["a", "b"], "instance 2 has no reference"),
    ],
)
def test_what_cannot_be_scored(references, hypotheses, message):
    with pytest.raises(UserError, match=message):
        e2e.score(references, hypotheses)


def test_outputs_too_short_for_the_python_program():
    scores = e2e.score_ngrams([["the cheap pub near the river"]], ["river pub cheap"])
    assert scores["BLEU"] == pytest.approx((3 / 3 / 4 / 4) ** (1 / 4) * math.exp(1 - 6 / 3))
    assert scores.values.keys() == {"BLEU", "NIST", "BLEU -p", "NIST -p"}
    assert set(scores.missing) == {"BLEU -p", "NIST -p"}
    assert "measure_scores.py -p fails" in scores.missing["BLEU -p"]
