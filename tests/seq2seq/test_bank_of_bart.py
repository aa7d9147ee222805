"""Records that name their prefix, on BART: each text equals decoding the record alone."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BartForConditionalGeneration

from prefix_tuning import checkpoint
from prefix_tuning.errors import UserError
from prefix_tuning.names import SITES
from prefix_tuning.parametrizations import FlatPrefix
from prefix_tuning.shape import PrefixShape
from seq2seq import finetune

LENGTHS = {"ann": 2, "ben": 5}


@pytest.fixture(scope="module")
def bank(bart_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefixes")
    model = BartForConditionalGeneration.from_pretrained(bart_folder)
    for seed, (name, length) in enumerate(LENGTHS.items()):
        torch.manual_seed(seed)
        prefix = FlatPrefix(PrefixShape.from_config(model.config), length, sites=SITES)
        task = {"task_mode": "summarization", "max_source_length": 24}
        meta = checkpoint.metadata(prefix, model, str(bart_folder), task=task)
        checkpoint.export(folder / name, prefix, meta)
    return folder


def decode(data: Path, *flags: object) -> list[str]:
    fixed = "--do_predict --eval_beams 2 --eval_min_gen_length 2 --eval_max_gen_length 8"
    given = [*fixed.split(), "--accelerator", "cpu", "--overwrite_results", "--data_dir", data]
    finetune.main([*map(str, given), *map(str, flags)])
    named = dict(zip(flags[::2], flags[1::2], strict=True))
    folder = Path(str(named.get("--prefix_bank", named.get("--prefixModel_name_or_path"))))
    return (folder / "test_beam_0.8").read_text("utf-8").split("\n")[:-1]


def test_a_mixed_decode_is_each_record_alone(bank: Path, bart_folder: Path, tmp_path: Path) -> None:
    chance = random.Random(1)
    words = "the pub serves cheap food by the river".split()
    rows = [
        {
            "source": " ".join(chance.choices(words, k=chance.randrange(1, 9))),
            "target": "a pub",
            "prefix": chance.choice([*LENGTHS]),
        }
        for _ in range(30)
    ]
    rows += [{**row, "prefix": "ann" if row["prefix"] == "ben" else "ben"} for row in rows[:4]]
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    mixed = decode(data, "--prefix_bank", bank, "--model_name_or_path", bart_folder)
    for name in LENGTHS:
        own = [i for i, row in enumerate(rows) if row["prefix"] == name]
        alone = tmp_path / f"{name}.jsonl"
        alone.write_text("".join(json.dumps(rows[i]) + "\n" for i in own), encoding="utf-8")
        texts = decode(
            alone, "--prefixModel_name_or_path", bank / name, "--model_name_or_path", bart_folder
        )
        assert [mixed[i] for i in own] == texts
    assert mixed[:4] != mixed[-4:]  # the same sources behind other prefixes


def test_other_names_or_weights_are_another_decode(
    bank: Path, bart_folder: Path, tmp_path: Path
) -> None:
    own, data = tmp_path / "bank", tmp_path / "test.jsonl"
    shutil.copytree(bank, own, ignore=shutil.ignore_patterns("test*"))  # of another test's decode
    fixed = "--do_predict --eval_beams 2 --eval_min_gen_length 2 --eval_max_gen_length 4 "
    flags = [
        *fixed.split(),
        "--accelerator",
        "cpu",
        "--prefix_bank",
        str(own),
        "--model_name_or_path",
        str(bart_folder),
    ]

    def decoded(*names: str) -> int:
        rows = [{"source": "the pub", "prefix": name} for name in names]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        finetune.main([*flags, "--data_dir", str(data)])
        return len([*own.glob("test*_beam_0.8")])

    assert [decoded("ann", "ben"), decoded("ann", "ben"), decoded("ben", "ann")] == [1, 1, 2]
    # Names and files' names are as before, only who has which weights is not.
    (own / "ann").rename(tmp_path / "ann")
    (own / "ben").rename(own / "ann")
    (tmp_path / "ann").rename(own / "ben")
    assert decoded("ann", "ben") == 3
    assert decoded("ben", "ann") == 4


@pytest.mark.parametrize(
    ("prefix", "flags", "message"),
    [
        ("dora", "", "line 1: .* has no prefix 'dora'"),
        (None, "", "line 1: no record names its prefix"),
        ("ann", "--prefixModel_name_or_path x", "--prefix_bank and --prefixModel_name_or_path"),
        ("ann", "--tuning_mode finetune", "--prefix_bank belongs to --tuning_mode prefixtune"),
    ],
)
def test_mistakes(
    prefix: str | None, flags: str, message: str, bank: Path, bart_folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "test.jsonl"
    data.write_text(json.dumps({"source": "a", "target": "b", "prefix": prefix}), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        decode(data, "--prefix_bank", bank, "--model_name_or_path", bart_folder, *flags.split())


def test_prefixes_that_read_sources_otherwise(
    bank: Path, bart_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(bank, tmp_path / "bank")
    path = tmp_path / "bank" / "ben" / "prefix.json"
    meta = json.loads(path.read_text("utf-8"))
    meta["task"]["max_source_length"] = 12
    path.write_text(json.dumps(meta), encoding="utf-8")
    rows = [{"source": "a", "target": "b", "prefix": name} for name in LENGTHS]
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(UserError, match="were trained with other sources"):
        decode(data, "--prefix_bank", tmp_path / "bank", "--model_name_or_path", bart_folder)
