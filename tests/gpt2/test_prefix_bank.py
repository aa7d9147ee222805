"""Records that name their prefix: every text of a mixed decode equals decoding the record alone."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from gpt2 import gen, run_generation
from prefix_tuning import checkpoint
from prefix_tuning.errors import UserError
from prefix_tuning.parametrizations import FlatPrefix
from prefix_tuning.shape import PrefixShape

LENGTHS = {"ann": 1, "ben": 7, "cem": 3}
SEPARATORS = {"ann": " =>", "ben": "<|endoftext|>", "cem": " :"}


@pytest.fixture(scope="module")
def bank(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three prefixes, large enough to change every text, with separators of their own."""
    folder = tmp_path_factory.mktemp("prefixes")
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    for seed, (name, length) in enumerate(LENGTHS.items()):
        torch.manual_seed(seed)
        prefix = FlatPrefix(PrefixShape.from_config(model.config), length)
        task = {"task_mode": "data2text", "separator": SEPARATORS[name]}
        meta = checkpoint.metadata(prefix, model, str(tiny_folder), task=task)
        checkpoint.export(folder / name, prefix, meta)
    return folder


def records(count: int) -> list[dict[str, str | None]]:
    chance = random.Random(3)
    words = "name Blue Spice food cheap area riverside near".split()
    return [
        {
            "source": f"{' '.join(chance.choices(words, k=chance.randrange(1, 9)))} {i}",
            "target": "a pub",
            "prefix": chance.choice([*LENGTHS, None]),
        }
        for i in range(count)
    ]


def jsonl(path: Path, rows: list[dict[str, str | None]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def decode(tiny_folder: Path, data: Path, out: Path, *flags: object) -> list[str]:
    given = f"--model_name_or_path {tiny_folder} --data_file {data} --gen_dir {out} --no_score"
    run_generation.main([*given.split(), "--length", "8", *map(str, flags)])
    (path,) = [p for p in out.iterdir() if p.name.split("_")[-1] in ("beam", "greedy", "nucleus")]
    return path.read_text("utf-8").split("\n")[:-1]


@pytest.mark.parametrize(
    "search",
    [
        "--search greedy --batch_size 7",
        "--num_beams 3 --batch_size 64 --no_repeat_ngram_size 2",
        "--search nucleus --num_return_sequences 1",
    ],
)
def test_a_mixed_decode_is_each_record_alone(
    search: str, bank: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    rows = records(12 if "nucleus" in search else 60)
    data = jsonl(tmp_path / "mixed.jsonl", rows)
    mixed = decode(tiny_folder, data, tmp_path / "all", "--prefix_bank", bank, *search.split())
    for name in [*LENGTHS, None]:
        # What is drawn depends on the place of a record.
        own = [i for i, row in enumerate(rows) if row["prefix"] == name]
        kept = rows if "nucleus" in search else [rows[i] for i in own]
        alone = jsonl(tmp_path / f"{name}.jsonl", kept)
        flags = ["--prefixModel_name_or_path", bank / name] if name else []
        texts = decode(tiny_folder, alone, tmp_path / f"{name}", *flags, *search.split())
        found = [texts[i] for i in own] if len(kept) == len(rows) else texts
        assert [mixed[i] for i in own] == found
    assert len({*mixed}) > 10


def test_gen_takes_a_folder_of_prefixes(bank: Path, tiny_folder: Path, tmp_path: Path) -> None:
    data = jsonl(tmp_path / "mixed.jsonl", records(5))
    flags = f"data2text yes test {bank} no --data_file {data} --results_dir {tmp_path / 'g'}"
    gen.main([*flags.split(), "--search", "greedy", "--length", "8", "--no_score"])
    (path,) = (tmp_path / "g").glob("*/*_greedy")
    flags_alone = ["--prefix_bank", bank, "--search", "greedy"]
    assert path.read_text("utf-8").split("\n")[:-1] == decode(
        tiny_folder, data, tmp_path / "r", *flags_alone
    )


def test_other_names_or_weights_are_another_decode(
    bank: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """Even where the prompts are the same tokens, as those of one separator are."""
    own = tmp_path / "bank"
    for name, origin in (("one", "ann"), ("two", "cem")):
        shutil.copytree(bank / origin, own / name)
        meta = json.loads((own / name / "prefix.json").read_text("utf-8"))
        meta["task"]["separator"] = " =>"
        (own / name / "prefix.json").write_text(json.dumps(meta), encoding="utf-8")
    out, data = tmp_path / "out", tmp_path / "a.jsonl"

    def decoded(*names: str) -> int:
        rows = [{"source": f"name {i}", "target": "a pub"} for i in range(len(names))]
        jsonl(data, [{**row, "prefix": name} for row, name in zip(rows, names, strict=True)])
        given = f"--model_name_or_path {tiny_folder} --data_file {data} --gen_dir {out}"
        flags = f"--prefix_bank {own} --search greedy --length 8 --no_score"
        run_generation.main([*given.split(), *flags.split()])
        return len([path for path in out.glob("*_greedy")])

    assert [decoded("one", "two"), decoded("one", "two"), decoded("two", "one")] == [1, 1, 2]
    shutil.copytree(own / "one", own / "two", dirs_exist_ok=True)
    assert decoded("one", "two") == 3


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        ({"prefix": "dora"}, "", r"line 1: .* has no prefix 'dora'"),
        ({"prefix": "../ann"}, "", r"line 1: .* has no prefix"),
        ({"prefix": 5}, "", "line 1: 'prefix' is not a name: 5"),
        ({"prefix": None}, "", "line 1: no record names its prefix"),
        ({"source": "name " * 320}, "", "line 1: prefix, .* exceed the model's 320 positions"),
        ({}, "--prefixModel_name_or_path x", "--prefix_bank and --prefixModel_name_or_path"),
    ],
)
def test_mistakes(
    change: dict[str, object],
    flags: str,
    message: str,
    bank: Path,
    tiny_folder: Path,
    tmp_path: Path,
) -> None:
    row = {"source": "name", "target": "a pub", "prefix": "ann", **change}
    data = tmp_path / "a.jsonl"
    data.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        decode(tiny_folder, data, tmp_path / "o", "--prefix_bank", bank, *flags.split())


def test_mistakes_in_flags(tiny_folder: Path, tmp_path: Path) -> None:
    for flags, message in (
        ("--prefix_bank nowhere --data_file a.jsonl", "--prefix_bank nowhere: there is no such"),
        (f"--prefix_bank {tmp_path}", "--prefix_bank: name the file of the records"),
    ):
        with pytest.raises(UserError, match=message):
            run_generation.main(["--model_name_or_path", str(tiny_folder), *flags.split()])
