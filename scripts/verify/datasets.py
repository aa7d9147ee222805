"""Data: whole and unchanged, of the right counts and lengths, and the strings that are read."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, GPT2Tokenizer

from data.download.sources import read_sources
from data.village_news.generate import generate
from experiments.toy_models import tiny_gpt2
from gpt2.data import Format, TableToTextDataset
from gpt2.tasks import TASKS, read_records
from prefix_tuning.files import read_json
from scripts.verify.checks import DATA, ROOT, Check, Difference, LeftOut, Places
from scripts.verify.loop import quiet

EXAMPLES = Path(__file__).with_name("examples.json")
BPE = ROOT / ".cache" / "gpt2-bpe"
"""Where ``scripts/test.sh`` leaves GPT-2's vocabulary."""
EXPECTED = read_json(Path(__file__).with_name("datasets.json"))
"""By name of a table:

- ``own``: files of this repository, and what git calls their content.
- ``own_counts``: inputs and texts of a split of the restaurants.
- ``counts``: data set, file -> task, whether it is read as for training, texts, and records or
  distinct inputs.
- ``lengths``: file -> mean GPT-2 tokens before the separator and from it on, as the original logged
  them.
"""
SHARED = {"e2e": "e2e", "webnlg": "webnlg_2017", "dart": "dart"}
"""Data set of ``data/sources.json`` -> another name of its folder."""


def _git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


DIGESTS: Mapping[str, Callable[[bytes], str]] = {
    "git_blob": _git_blob,
    "sha256": lambda content: hashlib.sha256(content).hexdigest(),
    "sha256_lf": lambda content: hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest(),
}


def own_files() -> Iterator[Difference]:
    """The small sets of this repository."""
    changed = [n for n, d in EXPECTED["own"].items() if _git_blob((DATA / n).read_bytes()) != d]
    yield Difference("files that differ", len(changed), 0)
    for split, counts in EXPECTED["own_counts"].items():
        records = read_records("data2text", DATA / f"restaurants/src1_{split}.txt", False)
        found = len({record.source for record in records}), sum(len(r.targets) for r in records)
        apart = sum(abs(a - b) for a, b in zip(found, counts, strict=True))
        yield Difference(f"inputs and texts of {split}", apart, 0)
    lines = [text.count("\n") for name, text in sorted(generate(seed=0).items()) if "who" in name]
    yield Difference(
        "lines of the village news", float(lines != [200, 200, 2000, 2000, 200, 200]), 0
    )


def examples() -> Iterator[Difference]:
    """Ten records of all formats as the strings that the model reads, ids where these are known."""
    wrong, strange = 0, 0
    with tempfile.TemporaryDirectory() as name:
        tiny_gpt2(Path(name) / "model")
        byte_level = AutoTokenizer.from_pretrained(Path(name) / "model")
        gpt2 = GPT2Tokenizer.from_pretrained(BPE) if (BPE / "merges.txt").is_file() else None
        for i, example in enumerate(read_json(EXAMPLES)):
            path = _written(Path(name) / str(i), example)
            wrong += byte_level.decode(_ids(example["task"], path, byte_level)) != example["read"]
            if gpt2 is not None and "ids" in example:
                strange += _ids(example["task"], path, gpt2) != example["ids"]
    yield Difference("strings that differ", wrong, 0)
    if gpt2 is not None:
        yield Difference("token ids of GPT-2 that differ", strange, 0)


def _written(folder: Path, example: Mapping[str, Any]) -> Path:
    folder.mkdir()
    content = example["content"]
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / example["file"]).write_text(text, encoding="utf-8")
    if "beside" in example:
        (folder / example["beside"]).write_text(example["target"], encoding="utf-8")
    return folder / example["file"]


def _ids(task: str, path: Path, tokenizer: Any) -> list[int]:
    with quiet():
        records = read_records(task, path, training=True)
    dataset = TableToTextDataset(records, Format(tokenizer, layout=TASKS[task].layout))
    (example,) = dataset.examples
    return example["input_ids"]


def whole(name: str, places: Places) -> Iterator[Difference]:
    """Checksums, counts and lengths of the files of a data set that are here."""
    source, found = read_sources(ROOT / "data" / "sources.json")[name], 0
    for file, rule in source["files"].items():
        try:
            path = places.find(f"{source['folder']}/{file}", f"{SHARED[name]}/{file}")
        except LeftOut:
            continue
        found += 1
        for kind, digest in DIGESTS.items():
            if kind in rule:
                yield Difference(
                    f"{file}: another {kind}", float(digest(path.read_bytes()) != rule[kind]), 0
                )
        if file in EXPECTED["counts"][name]:
            yield from _counts(name, file, path)
    if not found:
        raise LeftOut(
            f"{source['folder']} is not here (--data, or scripts/download_data.sh {name})"
        )


def _counts(name: str, file: str, path: Path) -> Iterator[Difference]:
    task, training, n_text, n_input = EXPECTED["counts"][name][file]
    with quiet():
        records = read_records(task, path, training)
    texts = sum(len(record.targets) for record in records)
    yield Difference(f"{file}: texts", abs(texts - n_text), 0)
    inputs = len(records) if len(records) <= n_input else len({r.source for r in records})
    yield Difference(f"{file}: inputs", abs(inputs - n_input), 0)
    if file not in EXPECTED["lengths"] or not (BPE / "merges.txt").is_file():
        return
    tokenizer = GPT2Tokenizer.from_pretrained(BPE)
    rows = TableToTextDataset(records, Format(tokenizer, layout=TASKS[task].layout)).examples
    end = tokenizer.eos_token_id
    before = [row["input_ids"].index(end) for row in rows]
    behind = [len(row["input_ids"]) - n for row, n in zip(rows, before, strict=True)]
    for what, lengths, mean in zip(
        ("source", "target"), (before, behind), EXPECTED["lengths"][file], strict=True
    ):
        apart = abs(sum(lengths) / len(lengths) - mean)
        yield Difference(f"{file}: mean tokens of a {what}", apart, 5.1e-3)


def checks(places: Places) -> list[Check]:
    """The repository's own first."""
    return [
        Check("data_own", "their checksums and counts", own_files),
        Check("data_strings", "strings written by hand", examples),
        *(
            Check(f"data_{name}", "checksums and counts", partial(whole, name, places))
            for name in SHARED
        ),
    ]
