"""Readers of one format agree, and take a file with the right count or name its place."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation import classification, dart, e2e, files, qa, tagging, webnlg
from gpt2 import readers
from prefix_tuning.errors import UserError
from ptuning_v2.tasks.ner.dataset import read_columns
from ptuning_v2.tasks.srl.dataset import read_predicates
from seq2seq.files import ROWS


def save(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# One format, several readers


E2E = ["name : A||text 1", "name : B || text 2", "name : A||text 3"]


def read_e2e_thrice(path):
    """The sources and references of each reader, spaces left out."""
    gpt2 = [(r.source.strip(), r.targets[0].strip()) for r in readers.read_e2e(path)]
    bart = [(row["source"].strip(), row["target"].strip()) for row, _ in ROWS[".txt"](path)]
    score = e2e._read_references(path)
    return gpt2, bart, list(e2e.group_by_source(gpt2).values()), score


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "lines", [E2E, [*E2E, ""], ["", *E2E], [E2E[0], "", " ", *E2E[1:]], [*E2E, "\t"]]
)
def test_three_readers_of_e2e_skip_blank_lines(tmp_path, lines, end):
    gpt2, bart, grouped, score = read_e2e_thrice(save(tmp_path / "a.txt", end.join(lines)))
    assert gpt2 == bart == [("name : A", "text 1"), ("name : B", "text 2"), ("name : A", "text 3")]
    assert grouped == score == [["text 1", "text 3"], ["text 2"]]


@pytest.mark.parametrize("wrong", ["name : A", "name : A||a||b"])
def test_three_readers_of_e2e_name_the_same_line(tmp_path, wrong):
    path = save(tmp_path / "a.txt", f"{E2E[0]}\n\n{wrong}\n")
    message = rf"a\.txt, line 3: expected SOURCE\|\|TARGET, found {wrong.count('||')} times"
    for reader in (readers.read_e2e, ROWS[".txt"], e2e._read_references):
        with pytest.raises(UserError, match=message):
            list(reader(path))


def test_a_subset_of_webnlg_keeps_its_numbers(tmp_path):
    entry = {
        "category": "Food",
        "modifiedtripleset": [{"subject": "a", "property": "b", "object": "c"}],
        "lexicalisations": [{"lex": "A soup.", "comment": "good"}],
    }
    path = save(tmp_path / "a.json", json.dumps({"entries": [{"5": entry}, {"17": entry}]}))
    assert webnlg.read_references(path) == ([["A soup."]] * 2, ["Food"] * 2)
    assert [record.targets for record in readers.read_webnlg(path)] == [("A soup.",)] * 2
    save(path, json.dumps({"entries": [{"5": entry}, {"6": entry, "7": entry}]}))
    for reader in (webnlg.read_references, readers.read_webnlg):
        with pytest.raises(UserError, match=r"entry 2"):
            list(reader(path))


@pytest.mark.parametrize("triple", ["abc", [None, "b", "c"], ["a", "b", 3], ["a", ["b"], "c"]])
def test_triples_that_are_none(tmp_path, triple):
    record = {"tripleset": [["a", "b", "c"], triple], "annotations": [{"text": "A."}]}
    path = save(tmp_path / "a.json", json.dumps([record]))
    for reader in (dart.read_references, readers.read_dart):
        with pytest.raises(UserError, match=r"a\.json.*record 1"):
            list(reader(path))


NER = "Ann\tB-PER\nran\tO\n\n-DOCSTART-\tO\n\n-DOCSTART-x\tO\n\u00a0\tI-LOC\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", ["\t", " ", "  "])
def test_two_readers_of_columns_agree(tmp_path, end, separator):
    path = save(tmp_path / "a.txt", "\ufeff" + NER.replace("\t", separator).replace("\n", end))
    expected = [["B-PER", "O"], ["O", "I-LOC"]]
    assert tagging.read_tags(path) == expected
    sentences = read_columns(path)
    assert [list(s.tags) for s in sentences] == expected
    assert [s.words for s in sentences] == [("Ann", "ran"), ("-DOCSTART-x", "\u00a0")]


def test_an_empty_token(tmp_path):
    with pytest.raises(UserError, match=r"a\.txt, line 2: the token is empty"):
        read_columns(save(tmp_path / "a.txt", "Ann\tO\n\tO\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Ann B-PER\nran V O\n", "line 2: 3 columns, the first line has 2"),
        ("Ann N B-PER\n\nran O\n", "line 3: 2 columns, the first line has 3"),
        ("Ann U-PER\n", "line 1: tag 'U-PER'; tags of BILOU are not scored"),
        ("Ann B-PER\nLee L-PER\n", "line 2: tag 'L-PER'; tags of BILOU are not scored"),
        ("Ann PER\n", "line 1: tag 'PER'; expected O, or B- or I- and a type"),
        ("Ann B-\n", "line 1: tag 'B-'; expected O"),
        ("Ann o\n", "line 1: tag 'o'; expected O"),
        ("0 Go now ||| B-V\n", "line 1: expected INDEX words .* each of 2 words"),
        ("0 Go ||| B-V\n0 Go B-V\n", "line 2: expected INDEX words"),
        ("0 Go ||| B-V ||| B-V\n", "line 1: expected INDEX words"),
        ("0 Go ||| U-V\n", "line 1: tag 'U-V'; tags of BILOU"),
        ("\n\n", "is empty"),
    ],
)
def test_tags_that_are_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=rf"a\.txt.*{message}"):
        tagging.read_tags(save(tmp_path / "a.txt", text))


def test_bilou_is_refused_everywhere(tmp_path):
    with pytest.raises(UserError, match="sentence 2: tag 'U-A'; tags of BILOU"):
        tagging.score([["B-A"], ["O"]], [["B-A"], ["U-A"]])
    with pytest.raises(UserError, match=r"a\.txt, line 1: tag 'U-V'; tags of BILOU"):
        read_predicates(save(tmp_path / "a.txt", "0 Go ||| U-V\n"))
    iobes = tagging.score([["S-A", "B-B", "E-B"]], [["S-A", "B-B", "E-B"]])
    assert iobes["overall"]["f1"] == 1


# Tables


def test_a_quotation_mark_that_is_not_closed_merges_no_rows(tmp_path):
    # Two rows become one, so that as many references as outputs are left.
    path = save(tmp_path / "a.tsv", 'MR\tref\nA\t"one\nB\ttwo"\nC\tthree\n')
    with pytest.raises(UserError, match=r"a\.tsv, line 2: a tab or line break inside a cell"):
        files.read_table(path)
    save(path, 'MR\tref\nA\tone\nB\t"two\ttoo"\n')
    with pytest.raises(UserError, match=r"a\.tsv, line 3: a tab or line break inside a cell"):
        files.read_table(path)
    for inside in ("\t", "\n", "\r"):
        path.write_bytes(f'MR\tref\nA\t"one{inside}two"\n'.encode())
        with pytest.raises(UserError, match=r"a\.tsv, line 2: a tab or line break inside a cell"):
            files.read_table(path)
    save(path, 'MR\tref\nA\t"one ""two"" three"\nB\t5" wide\n')
    assert files.read_table(path)[1] == [["A", 'one "two" three'], ["B", '5" wide']]
    save(path, 'MR\tref\nA\t"one\nB\ttwo\n')
    with pytest.raises(UserError, match=r"a\.tsv, line 2: not a table"):
        files.read_table(path)


def test_xml_is_decoded_once(tmp_path):
    text = '<?xml version="1.0" encoding="ISO-8859-1"?>'
    text += '<b><entry category="Food"><lex>é</lex></entry></b>'
    assert webnlg.read_references(save(tmp_path / "a.xml", text)) == ([["é"]], ["Food"])


@pytest.mark.parametrize("line", ["-1", "1.0", "+1", "1_0", "", "9" * 400, "9" * 5000])
def test_class_numbers(tmp_path, line):
    with pytest.raises(UserError, match=r"a\.txt, line 2: '.{0,40}' is not a class number"):
        classification.read_labels(save(tmp_path / "a.txt", f"0\n{line}\n1\n"))


# Any reader, any damage


SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": "A cat.",
                    "qas": [
                        {"id": "q1", "answers": [{"text": "cat", "answer_start": 2}]},
                        {"id": "q2", "answers": []},
                    ],
                }
            ]
        }
    ]
}
RECORD = {"idx": 1, "qas": [{"idx": i, "answers": [{"text": "Rome"}]} for i in (1, 2)]}
QUESTION = {"idx": 0, "answers": [{"idx": 0, "label": 1}, {"idx": 1, "label": 0}]}
MULTIRC = {"idx": 3, "passage": {"text": "a", "questions": [QUESTION]}}
WEBNLG = {
    "entries": [
        {str(i): {"category": "Food", "lexicalisations": [{"lex": "A soup."}]}} for i in (1, 2)
    ]
}
DART = [{"tripleset": [["a", "B", "c"]], "annotations": [{"text": "It is A."}]}] * 2
READERS = [  # reader, ending, text, number of instances
    (qa.read_squad, ".json", json.dumps(SQUAD), 2),
    (qa.read_record, ".jsonl", json.dumps(RECORD) + "\n", 2),
    (lambda path: qa.read_multirc(path)[1], ".jsonl", json.dumps(MULTIRC) + "\n", 2),
    (qa.read_predictions, ".json", '{"q1": "cat", "q2": ""}', 2),
    (lambda path: webnlg.read_references(path)[0], ".json", json.dumps(WEBNLG), 2),
    (lambda path: dart.read_references(path)[0], ".json", json.dumps(DART), 2),
    (e2e._read_references, ".txt", "name : A||one\nname : B||two\n", 2),
    (e2e._read_references, ".txt", "one\ntwo\n\nthree\n", 2),
    (e2e._read_references, ".csv", 'mr,ref\n"A, b",one\nB,two\n', 2),
    (e2e._read_references, ".tsv", "MR\tref\nA\tone\nB\ttwo\n", 2),
    (tagging.read_tags, ".txt", "Ann B-PER\nran O\n\nBonn B-LOC\n", 2),
    (tagging.read_tags, ".txt", "1 Ann ran ||| B-A0 B-V\n0 Go ||| B-V\n", 2),
    (classification.read_labels, ".txt", "0\n1\n", 2),
]
PIECES = ["\\ud83d", '"', "\r", "\n\n", "\t", "[" * 5000, "9" * 5000, "null", "1e999", "||", "|||"]
PIECES += ["\u2028", "\0", "-1", "{}", "NaN", "é", "-DOCSTART-", ",", "true"]


@pytest.mark.parametrize(("reader", "ending", "text", "count"), READERS)
def test_line_ends_and_a_byte_order_mark_change_nothing(tmp_path, reader, ending, text, count):
    for variant in (text, "\ufeff" + text, text.replace("\n", "\r\n"), text.replace("\n", "\r")):
        assert len(reader(save(tmp_path / f"a{ending}", variant))) == count


def check_refusal(reader, path):
    """Whatever is wrong with a file ends in one sentence that names it."""
    try:
        reader(path)
    except UserError as error:
        sentence = str(error)
    else:
        return
    assert path.name in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(("reader", "ending", "text", "count"), READERS)
def test_a_damaged_file_is_read_or_refused_in_one_sentence(
    tmp_path_factory, reader, ending, text, count
):
    path = tmp_path_factory.mktemp("damaged") / f"a{ending}"

    @given(st.integers(0, 2**32))
    def damage(seed):
        rng = random.Random(seed)
        raw = bytearray(text.encode())
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(raw) + 1)
            if rng.random() < 0.5:
                raw[start : start + rng.randint(0, 9)] = rng.choice(PIECES).encode()
            else:
                raw[start : start + rng.randint(1, 9)] = bytes(rng.randrange(256) for _ in range(2))
        check_refusal(reader, save(path, bytes(raw)))

    damage()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("abc", max_size=3) | st.just(1e400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab"), inner, max_size=2),
    max_leaves=4,
)


def replaced(value, steps, new):
    """``value`` with the part at a path, chosen by numbers, replaced."""
    if not steps or not isinstance(value, dict | list) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[steps[0] % len(keys)]
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = replaced(value[key], steps[1:], new)
    return copy


@pytest.mark.parametrize(
    ("reader", "ending", "value"),
    [(r, e, json.loads(t)) for r, e, t, _ in READERS if e.startswith(".json")],
)
def test_a_part_of_another_type(tmp_path_factory, reader, ending, value):
    path = tmp_path_factory.mktemp("types") / f"a{ending}"

    @given(st.lists(st.integers(0, 3), max_size=8), JSON)
    def replace(steps, new):
        check_refusal(reader, save(path, json.dumps(replaced(value, steps, new))))

    replace()
