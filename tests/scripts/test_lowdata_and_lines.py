"""Low-data samples, and table-to-text files as lines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from evaluation import e2e
from gpt2.records import group_by_source
from gpt2.tasks import read_records
from prefix_tuning.errors import UserError
from scripts import sample_lowdata, table_to_text_lines
from seq2seq.data import read_split

RESTAURANTS = ROOT / "data" / "restaurants"


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def test_low_data_folders(tmp_path: Path) -> None:
    data = tmp_path / "news"
    data.mkdir()
    for split, count in (("train", 120), ("val", 40), ("test", 60)):
        for kind in ("source", "target"):
            text = "".join(f"{split} {kind} {i}\n" for i in range(count))
            (data / f"{split}.{kind}").write_text(text, encoding="utf-8")
    out = tmp_path / "low"
    arguments = [str(data), "--out", str(out), "--size", "20", "50", "--seed", "101", "22"]
    sample_lowdata.main([*arguments, "--max_test", "10"])
    names = ["news_20_101", "news_20_22", "news_50_101", "news_50_22"]
    assert sorted(path.name for path in out.iterdir()) == names
    np.random.seed(22)
    train, val = (np.random.choice(n, k, replace=False) for n, k in ((120, 50), (40, 15)))
    folder = out / "news_50_22"
    assert lines(folder / "train.source") == [f"train source {i}" for i in train]
    assert lines(folder / "val.target") == [f"val target {i}" for i in val]
    tests = {(out / name / "test.source").read_text("utf-8") for name in names}
    assert len(tests) == 1
    assert tests.pop().count("\n") == 10
    with pytest.raises(UserError, match="news_20_101 exists already"):
        sample_lowdata.main(arguments)
    with pytest.raises(UserError, match="takes 121 of 120 train examples"):
        sample_lowdata.main([str(data), "--out", str(tmp_path / "x"), "--size", "50", "121"])
    for flag in ("--max_test=-3", "--seed=-1"):
        with pytest.raises(UserError, match=flag.replace("=", " ")):
            sample_lowdata.main([str(data), "--out", str(tmp_path / "x"), flag])
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match=r"train\.source is one file"):
        sample_lowdata.main([str(data / "train.source"), "--out", str(tmp_path / "x")])


def test_columns_of_low_data(tmp_path: Path) -> None:
    for split in ("train", "val"):
        rows = [json.dumps({"a": f"{split} {i}", "b": f"t {i}"}) for i in range(9)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    options = ["--size", "4", "--seed", "0", "--out", str(tmp_path / "out"), "--name", "own"]
    with pytest.raises(UserError, match="--source_column"):
        sample_lowdata.main([str(tmp_path), *options])
    columns = ["--source_column", "a", "--target_column", "b"]
    sample_lowdata.main([str(tmp_path), *options, *columns])
    folder = tmp_path / "out" / "own_4_0"
    assert len(lines(folder / "train.source")) == 4
    assert len(lines(folder / "val.source")) == 1
    assert not (folder / "test.source").exists()


def test_restaurants_as_lines(tmp_path: Path) -> None:
    out = tmp_path / "lines"
    files = [(s, RESTAURANTS / f"src1_{n}.txt") for s, n in table_to_text_lines.SPLITS.items()]
    flags = [x for split, path in files for x in (f"--{split}", str(path))]
    table_to_text_lines.main(["data2text", *flags, "--out", str(out)])
    raw = lines(RESTAURANTS / "src1_train.txt")
    pairs = [(r.source, r.target) for r in read_split(out, "train", training=True)]
    assert ["||".join(pair) for pair in pairs] == raw
    test = read_records("data2text", RESTAURANTS / "src1_test.txt", training=False)
    grouped = group_by_source(test)
    found = read_split(out, "test", training=True)
    assert [(r.source, r.target) for r in found] == [(g.source, g.targets[0]) for g in grouped]
    # The scorer reads the references as the very groups.
    outputs = tmp_path / "outputs.txt"
    outputs.write_text("".join(f"{r.source}\n" for r in found), encoding="utf-8")
    references, hypotheses = e2e.read(out / "test.references", outputs)
    assert len(hypotheses) == len(references) == len(grouped)
    assert references == [[text.strip() for text in g.targets] for g in grouped]


@pytest.mark.parametrize(
    ("mode", "files", "inputs"),
    [
        ("webnlg", ["webnlg_2017/dev.json"] * 3, 871),
        ("triples", ["dart/dart-v1.1.1-full-dev.json"] * 3, None),
    ],
)
def test_real_triples(
    shared: Path, tmp_path: Path, mode: str, files: list[str], inputs: int | None
) -> None:
    paths = [str(shared / "data" / file) for file in files]
    flags = [x for pair in zip(("--train", "--val", "--test"), paths, strict=True) for x in pair]
    out = tmp_path / "lines"
    table_to_text_lines.main([mode, *flags, "--out", str(out)])
    records = read_records(mode, paths[0], training=True)
    train = read_split(out, "train", training=True)
    assert len(train) == sum(len(record.targets) for record in records)
    if inputs is not None:
        assert len(lines(out / "val.source")) == inputs
    assert (out / "val.references").read_text("utf-8").count("\n\n") == (
        len(lines(out / "val.source")) - 1
    )
