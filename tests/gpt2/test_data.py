"""Files, strings, token ids and batches, against the specification and the real data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BPE, ROOT
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

from gpt2.data import Format, TableToTextDataset, collate
from gpt2.readers import Record
from gpt2.records import as_json, group_by_source, subset_size
from gpt2.tasks import Layout, read_records
from harness.samplers import LengthGroupedSampler
from prefix_tuning.errors import UserError

WEBNLG = {
    "entries": [
        {
            "1": {
                "modifiedtripleset": [
                    {"subject": "Aarhus", "property": "leaderName", "object": "Jacob_Bundsgaard"},
                    {"subject": "Aarhus", "property": "isPartOf", "object": "Denmark"},
                ],
                "lexicalisations": [
                    {"lex": "The leader of Aarhus.", "comment": "good"},
                    {"lex": "Aarhus leader.", "comment": "toFix"},
                ],
            }
        }
    ]
}
DART = [
    {
        "tripleset": [["Mars Hill", "JOINED", "1973"], ["Mars Hill", "LOCATION", "NC"]],
        "annotations": [{"text": "It joined in 1973."}, {"text": "Mars Hill, NC."}],
    }
]
E2E = "name : Blue Spice | area : city centre||Blue Spice is central . \n"


@pytest.fixture(scope="session")
def gpt2_tokenizer() -> GPT2Tokenizer:
    if not (BPE / "merges.txt").is_file():
        pytest.skip("GPT-2's vocabulary is not here: scripts/test.sh fetches it")
    tokenizer = GPT2Tokenizer.from_pretrained(BPE)
    assert tokenizer("Hello world").input_ids == [15496, 995]
    return tokenizer


def one(mode: str, path: Path, training: bool = True) -> Record:
    (record,) = read_records(mode, path, training)
    return record


def write(path: Path, content: Any) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


# Strings.


def test_strings_of_each_mode(tmp_path: Path) -> None:
    e2e = one("data2text", write(tmp_path / "a.txt", E2E))
    assert e2e.source == "name : Blue Spice | area : city centre"
    assert e2e.targets == ("Blue Spice is central . ",)
    webnlg = one("webnlg", write(tmp_path / "a.json", WEBNLG))
    assert (
        webnlg.source == " | Aarhus : leaderName : Jacob_Bundsgaard | Aarhus : isPartOf : Denmark"
    )
    assert webnlg.targets == ("The leader of Aarhus.",)
    assert len(one("webnlg", tmp_path / "a.json", training=False).targets) == 2
    dart = one("triples", write(tmp_path / "b.json", DART))
    assert dart.source == "Mars Hill : joined : 1973 | Mars Hill : location : NC"
    assert dart.targets == ("It joined in 1973.", "Mars Hill, NC.")


def test_ones_own_data(tmp_path: Path) -> None:
    lines = [
        {"source": "a", "target": "b"},
        {"source": "c", "targets": ["d", "e"]},
        {"source": "f"},
    ]
    path = write(tmp_path / "own.jsonl", "\n".join(map(json.dumps, lines)))
    records = read_records("data2text", path, training=False)
    assert [(r.source, r.targets) for r in records] == [
        ("a", ("b",)),
        ("c", ("d", "e")),
        ("f", ()),
    ]
    with pytest.raises(UserError, match=r"own\.jsonl, line 3: no 'target'"):
        read_records("data2text", path, training=True)


def test_token_ids_of_e2e(gpt2_tokenizer: GPT2Tokenizer, tmp_path: Path) -> None:
    line = (
        "name : Blue Spice | Type : coffee shop | area : city centre"
        "||A coffee shop in the city centre area called Blue Spice . \n"
    )
    records = read_records("data2text", write(tmp_path / "a.txt", line), training=True)
    (example,) = TableToTextDataset(records, Format(gpt2_tokenizer))
    source = "1438 1058 4518 43537 930 5994 1058 6891 6128 930 1989 1058 1748 7372 220 50256"
    target = "317 6891 6128 287 262 1748 7372 1989 1444 4518 43537 764 220 220 50256"
    ids = [int(i) for i in f"{source} {target}".split()]
    assert example["input_ids"] == ids
    n_source = len(source.split())
    assert example["labels"] == [-100] * n_source + ids[n_source:]
    joined = f" {records[0].source} <|endoftext|> {records[0].targets[0]} <|endoftext|>"
    assert gpt2_tokenizer(joined).input_ids == ids


def test_token_ids_of_webnlg(gpt2_tokenizer: GPT2Tokenizer) -> None:
    record = Record(" | Aarhus : leaderName : Jacob_Bundsgaard", ("The leader of Aarhus.",), "here")
    (example,) = TableToTextDataset([record], Format(gpt2_tokenizer))
    expected = (
        "220 930 317 283 7537 1058 3554 5376 1058 12806 62 33 917 82 36232 220 50256 "
        "383 3554 286 317 283 7537 13 220 50256"
    )
    assert example["input_ids"] == [int(i) for i in expected.split()]


@given(
    source=st.text(min_size=1).filter(str.strip),
    target=st.text(min_size=1).filter(str.strip),
)
def test_prompt_and_target_join_to_the_whole_string(
    tokenizer: PreTrainedTokenizerFast, source: str, target: str
) -> None:
    text_format = Format(tokenizer)
    (example,) = TableToTextDataset([Record(source, (target,), "")], text_format)
    (prompt,) = text_format.encode_prompts([source])
    joined = f" {source} <|endoftext|> {target} <|endoftext|>"
    assert example["input_ids"] == tokenizer(joined).input_ids
    assert example["input_ids"][: len(prompt)] == prompt
    assert example["labels"][len(prompt) :] == example["input_ids"][len(prompt) :]
    assert set(example["labels"][: len(prompt)]) == {-100}


# The real files, completely.


@pytest.mark.parametrize(
    ("file", "mode", "pairs", "inputs"),
    [
        ("e2e/src1_train.txt", "data2text", 42_061, 4_862),
        ("e2e/src1_valid.txt", "data2text", 4_672, 547),
        ("e2e/src1_test.txt", "data2text", 4_693, 630),
        ("webnlg_2017/train.json", "webnlg", 18_025, None),
        ("webnlg_2017/dev.json", "webnlg", 2_258, 871),
        ("webnlg_2017/test.json", "webnlg", 4_928, 1_862),
        ("dart/dart-v1.1.1-full-dev.json", "triples", 6_980, None),
    ],
)
def test_the_real_files(shared: Path, file: str, mode: str, pairs: int, inputs: int | None) -> None:
    records = read_records(mode, shared / "data" / file, training=True)
    assert sum(len(record.targets) for record in records) == pairs
    if inputs is not None:
        assert len(group_by_source(records)) == inputs


def test_average_lengths_of_e2e(shared: Path, gpt2_tokenizer: GPT2Tokenizer) -> None:
    """Table 1 of the paper: 28.5 source tokens without separator, 27.8 target tokens with both."""
    records = read_records("data2text", shared / "data/e2e/src1_train.txt", training=True)[::20]
    examples = list(TableToTextDataset(records, Format(gpt2_tokenizer)))
    sources = [e["labels"].count(-100) - 1 for e in examples]
    targets = [len(e["labels"]) - n for e, n in zip(examples, sources, strict=True)]
    assert sum(sources) / len(examples) == pytest.approx(28.5, abs=0.4)
    assert sum(targets) / len(examples) == pytest.approx(27.8, abs=0.4)


# Malformed files.


@pytest.mark.parametrize(
    ("mode", "name", "content", "message"),
    [
        ("data2text", "a.txt", E2E + "no separator\n", "a.txt, line 2: expected SOURCE||TARGET"),
        ("data2text", "a.txt", E2E + "a||b||c\n", "a.txt, line 2: expected SOURCE||TARGET"),
        ("data2text", "a.txt", E2E + "name : x|| \n", "a.txt, line 2: the target is missing"),
        ("data2text", "a.txt", "||text \n", "a.txt, line 1: the source is missing"),
        ("data2text", "a.txt", "\n\n", "a.txt: the file has no records"),
        ("webnlg", "a.json", json.dumps(WEBNLG, indent=1)[:200], "a.json, line 1"),
        ("webnlg", "a.json", {"entries": []}, "the file has no records"),
        ("webnlg", "a.json", [], "expected WebNLG 2017 JSON"),
        ("webnlg", "a.json", {"entries": [{"1": {}}]}, "a.json, entry 1: 'modifiedtripleset'"),
        ("webnlg", "a.json", {"entries": [{"2": {}}]}, "entry 1: 'modifiedtripleset' is missing"),
        ("triples", "a.json", json.dumps(DART)[:-20], "a.json, line 1: not JSON"),
        ("triples", "a.json", "", "a.json, line 1: not JSON"),
        ("triples", "a.json", {}, "expected DART JSON"),
        ("triples", "a.json", [{"tripleset": [["a", "b"]]}], "a.json, record 1: no DART record"),
        ("data2text", "a.jsonl", '{"source": "a"\n', "a.jsonl, line 1: not JSON"),
        ("data2text", "a.jsonl", '["a"]\n', "a.jsonl, line 1: expected an object"),
        ("data2text", "a.jsonl", '{"target": "a"}\n', "a.jsonl, line 1: 'source' is missing"),
        ("data2text", "a.jsonl", '{"source": "a", "target": ""}', "a.jsonl, line 1: a target"),
        ("data2text", "a.jsonl", '{"source": "a", "targets": "b"}', "'targets' is not a list"),
    ],
)
def test_malformed_files(tmp_path: Path, mode: str, name: str, content: Any, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError) as caught:
        read_records(mode, path, training=True)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_targets_in_json(tmp_path: Path) -> None:
    webnlg = json.loads(json.dumps(WEBNLG))
    webnlg["entries"][0]["1"]["lexicalisations"][0]["lex"] = " "
    with pytest.raises(UserError, match="entry 1: a lexicalisation is missing or empty"):
        read_records("webnlg", write(tmp_path / "a.json", webnlg), training=True)
    dart = json.loads(json.dumps(DART))
    dart[0]["annotations"][1]["text"] = ""
    with pytest.raises(UserError, match="record 1: a text is missing or empty"):
        read_records("triples", write(tmp_path / "b.json", dart), training=True)


def test_what_is_not_marked_good_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    webnlg = json.loads(json.dumps(WEBNLG))
    texts = [{"lex": f"Text {i}.", "comment": c} for i, c in enumerate(("good", "toFix", "bad"))]
    webnlg["entries"][0]["1"]["lexicalisations"] = texts
    path = write(tmp_path / "a.json", webnlg)
    assert read_records("webnlg", path, training=True)[0].targets == ("Text 0.",)
    assert "a.json: left out 2 texts, which are not marked good" in capsys.readouterr().out
    assert len(read_records("webnlg", path, training=False)[0].targets) == 3


def test_a_share_of_pairs_is_rounded_and_not_cut() -> None:
    assert [subset_size("10%", total) for total in (14, 16, 42061)] == [1, 2, 4206]


def test_targets_are_cut_less_where_they_are_only_evaluated(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    layout = Layout("{}", "{}", max_target=3, max_evaluated_target=5)
    record = Record("a", ("one two three four five six seven eight",), "line 1")
    for training, most in ((True, 3), (False, 5)):
        (example,) = TableToTextDataset([record], Format(tokenizer, "", layout), None, training)
        assert len([i for i in example["labels"] if i != -100]) == most + 1  # and the end token


def test_inputs_that_are_held_out_survive_their_file(tmp_path: Path) -> None:
    """A chat of two answers is two inputs, of which one may be held out; an input may have two."""

    def chat(*texts: str) -> dict[str, Any]:
        roles = ("user", "assistant") * 2
        return {"messages": [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]}

    pairs = [{"source": "a", "targets": ["b", "c"]}, {"source": "d", "targets": ["e"]}]
    for content in (pairs, [chat("a", "b", "c", "d"), chat("a", "e")]):
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        records = group_by_source(read_records("data2text", path, training=True))
        assert [len(record.targets) for record in records] == [2, 1]
        for record in records:
            path.write_text(json.dumps(as_json(record)), encoding="utf-8")
            (again,) = read_records("data2text", path, training=False)
            kept = [(r.source, r.targets, r.chat) for r in (record, again)]
            assert kept[0] == kept[1]
    path.write_text(json.dumps({**chat("a"), "targets": "b"}), encoding="utf-8")
    with pytest.raises(UserError, match="line 1: 'targets' is not a list"):
        read_records("data2text", path, training=True)


def test_a_file_without_a_text_to_train_on(tmp_path: Path) -> None:
    webnlg = json.loads(json.dumps(WEBNLG))
    webnlg["entries"][0]["1"]["lexicalisations"] = [{"lex": "Aarhus leader.", "comment": "toFix"}]
    dart = [{**DART[0], "annotations": []}]
    for mode, content in (("webnlg", webnlg), ("triples", dart)):
        path = write(tmp_path / f"{mode}.json", content)
        with pytest.raises(UserError, match=rf"{mode}\.json: no record has a text to train on"):
            read_records(mode, path, training=True)
        assert len(read_records(mode, path, training=False)) == 1


@pytest.mark.parametrize("mode", ["data2text", "webnlg", "triples"])
def test_wrong_files(tmp_path: Path, mode: str) -> None:
    with pytest.raises(UserError, match="is a directory"):
        read_records(mode, tmp_path, training=True)
    with pytest.raises(UserError, match="no such file"):
        read_records(mode, tmp_path / "none", training=True)
    (tmp_path / "latin1").write_bytes(b"name : a||b \nname : caf\xe9||c \n")
    with pytest.raises(UserError, match="latin1, line 2: not UTF-8"):
        read_records(mode, tmp_path / "latin1", training=True)


@pytest.mark.parametrize("mode", ["data2text", "webnlg", "triples"])
def test_malformed_copies_of_the_real_files(shared: Path, tmp_path: Path, mode: str) -> None:
    name = {"data2text": "e2e/src1_valid.txt", "webnlg": "webnlg_2017/dev.json"}.get(
        mode, "dart/dart-v1.1.1-full-dev.json"
    )
    raw = (shared / "data" / name).read_bytes()
    copy = tmp_path / "copy"
    copy.write_bytes(raw[: len(raw) // 2] + b"\xff\xfe" + raw[len(raw) // 2 :])
    with pytest.raises(UserError, match=r"copy, line \d+: not UTF-8"):
        read_records(mode, copy, training=True)
    if mode == "data2text":
        copy.write_bytes(raw.replace(b"||", b"|", 1000)[: len(raw) // 2])
    else:
        copy.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UserError, match=r"copy, line \d+: "):
        read_records(mode, copy, training=True)


def test_a_line_of_100000_characters(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    for long in (f"{'x ' * 50_000}||y \n", f"x||{'y ' * 50_000}\n"):
        path = write(tmp_path / "a.txt", E2E + long)
        records = read_records("data2text", path, training=True)
        with pytest.raises(UserError, match=r"a\.txt, line 2: \d+ tokens, but 1019 fit"):
            TableToTextDataset(records, Format(tokenizer), max_tokens=1019)


# Batches.


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=6))
def test_collate(lengths: list[tuple[int, int]]) -> None:
    examples = [
        {"input_ids": list(range(s + t)), "labels": [-100] * s + list(range(s, s + t))}
        for s, t in lengths
    ]
    batch = collate(examples, pad_id=99)
    width = max(s + t for s, t in lengths)
    assert batch["input_ids"].shape == batch["labels"].shape == (len(lengths), width)
    for example, ids, labels in zip(examples, *batch.values(), strict=True):
        n = len(example["input_ids"])
        assert ids.tolist() == example["input_ids"] + [99] * (width - n)
        assert labels.tolist() == example["labels"] + [-100] * (width - n)


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=400),
    batch_size=st.integers(1, 16),
    seed=st.integers(0, 5),
)
def test_length_groups_contain_every_example_once(
    lengths: list[int], batch_size: int, seed: int
) -> None:
    sampler = LengthGroupedSampler(lengths, batch_size, seed)
    first = list(sampler)
    assert Counter(first) == Counter(range(len(lengths)))
    assert list(sampler) == first
    if len(lengths) > 50:
        sampler.set_epoch(1)
        assert list(sampler) != first


def test_length_groups_waste_little(tokenizer: PreTrainedTokenizerFast) -> None:
    path = ROOT / "data" / "restaurants" / "src1_train.txt"
    data = TableToTextDataset(read_records("data2text", path, training=True), Format(tokenizer))

    def waste(order: list[int]) -> float:
        padded = real = 0
        for start in range(0, len(order), 10):
            batch = [data.lengths[i] for i in order[start : start + 10]]
            padded, real = padded + max(batch) * len(batch), real + sum(batch)
        return 1 - real / padded

    torch.manual_seed(0)
    assert waste(torch.randperm(len(data)).tolist()) > 0.15
    assert waste(list(LengthGroupedSampler(data.lengths, 10, seed=0))) < 0.03


def test_group_by_source_keeps_order_and_references() -> None:
    records = [
        Record("a", ("1",), ""),
        Record("b", ("2",), ""),
        Record("a", ("3",), ""),
        Record("a", ("4",), "", ("r",)),
    ]
    grouped = [(r.source, r.targets, r.relations) for r in group_by_source(records)]
    assert grouped == [("a", ("1", "3"), None), ("b", ("2",), None), ("a", ("4",), ("r",))]
