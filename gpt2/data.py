"""Table-to-text data: files -> records -> token ids -> batches.

A record is read from E2E's ``SOURCE||TARGET`` lines, the WebNLG 2017 JSON, DART's JSON, or one's
own JSONL. ``S`` being the separator (GPT-2: ``<|endoftext|>``) and ``E`` the end token (the same in
GPT-2), a training example is ``" SOURCE S TARGET E"`` with exactly these spaces, and the loss is on
everything after the separator. E2E's targets end with a space in the file, so two stand before
their end token; the paper's numbers include that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from prefix_tuning.errors import UserError
from prefix_tuning.objectives import IGNORE


@dataclass(frozen=True)
class Record:
    """One input and its references, in the order of the file."""

    source: str
    targets: tuple[str, ...]
    where: str
    """File and line (or entry), for messages."""
    relations: tuple[str, ...] | None = None
    """Relation names of a set of triples; part of the identity of a WebNLG or DART input."""
    category: str | None = None
    """WebNLG's category, which decides whether an entry counts as seen."""


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise UserError(f"{path} is a directory: give a data file")
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such data file; README.md says where files go and which flags "
            "name them"
        )
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text; convert the file") from error


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Non-blank lines and where they stand."""
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if line.strip():
            yield line.removesuffix("\r"), f"{path}, line {number}"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        reason = f"not complete JSON ({error.msg}); fetch it again"
        raise UserError(f"{path}, line {error.lineno}: {reason}") from error


def _text(value: Any, what: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {what} is missing or empty")
    return value


def read_e2e(path: Path) -> Iterator[Record]:
    """``SOURCE||TARGET`` lines, one reference each."""
    for line, where in _lines(path):
        if line.count("||") != 1:
            raise UserError(
                f"{where}: expected SOURCE||TARGET, found {line.count('||')} times '||'"
            )
        source, target = line.split("||")
        yield Record(
            _text(source, "the source", where), (_text(target, "the target", where),), where
        )


def read_webnlg(path: Path) -> Iterator[Record]:
    """The WebNLG 2017 challenge's JSON, with all its lexicalisations."""
    return _read_webnlg(path, good_only=False)


def read_webnlg_training(path: Path) -> Iterator[Record]:
    """The same with the lexicalisations marked "good" only, as the original trains on."""
    return _read_webnlg(path, good_only=True)


def _read_webnlg(path: Path, good_only: bool) -> Iterator[Record]:
    data = _read_json(path)
    entries = data.get("entries") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise UserError(f"{path}: expected WebNLG 2017 JSON, an object with a list 'entries'")
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, entry {number}"
        try:
            entry = entry[str(number)]
            triples = [
                (triple["subject"], triple["property"], triple["object"])
                for triple in entry["modifiedtripleset"]
            ]
            texts = [
                _text(text["lex"], "a lexicalisation", where)
                for text in entry["lexicalisations"]
                if not good_only or text["comment"] == "good"
            ]
        except (KeyError, TypeError) as error:
            raise UserError(f"{where}: {error!s} is missing, no WebNLG 2017 entry") from error
        # A bar in front of every triple, the first one too (the paper's text shows it without).
        source = "".join(f" | {s} : {p} : {o}" for s, p, o in triples)
        relations = tuple(p for _, p, _ in triples)
        source = _text(source, "modifiedtripleset", where)
        yield Record(source, tuple(texts), where, relations, entry.get("category"))


def read_dart(path: Path) -> Iterator[Record]:
    """DART's JSON. Relations are lower-cased, as in the original and here alone."""
    data = _read_json(path)
    if not isinstance(data, list):
        raise UserError(f"{path}: expected DART JSON, a list of records")
    for number, entry in enumerate(data, start=1):
        where = f"{path}, record {number}"
        try:
            triples = [(s, p.lower(), o) for s, p, o in entry["tripleset"]]
            texts = tuple(_text(a["text"], "a text", where) for a in entry["annotations"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{where}: no DART record ({error!s})") from error
        source = _text(" | ".join(f"{s} : {p} : {o}" for s, p, o in triples), "tripleset", where)
        yield Record(source, texts, where, tuple(p for _, p, _ in triples))


def read_jsonl(path: Path) -> Iterator[Record]:
    """One's own data: ``{"source": ..., "target": ...}`` or ``{"source": ..., "targets": [...]}``.

    A record without a target can be decoded but not trained on.
    """
    for line, where in _lines(path):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not JSON ({error.msg})") from error
        if not isinstance(entry, dict):
            raise UserError(f'{where}: expected an object {{"source": ..., "target": ...}}')
        targets = entry.get("targets", [entry["target"]] if "target" in entry else [])
        if not isinstance(targets, list):
            raise UserError(f"{where}: 'targets' is not a list")
        texts = tuple(_text(target, "a target", where) for target in targets)
        yield Record(_text(entry.get("source"), "'source'", where), texts, where)


Reader = Callable[[Path], Iterable[Record]]
READERS: dict[str, tuple[Reader, Reader]] = {
    "data2text": (read_e2e, read_e2e),
    "webnlg": (read_webnlg_training, read_webnlg),
    "triples": (read_dart, read_dart),
}
"""Per mode: how its training files are read, and how the files that are decoded."""


_DATA = Path(__file__).resolve().parents[1] / "data"
DEFAULT_FILES = {
    "data2text": {s: _DATA / "e2e_data" / f"src1_{s}.txt" for s in ("train", "valid", "test")},
    "webnlg": {
        s: _DATA / "webnlg_challenge_2017" / f"{name}.json"
        for s, name in (("train", "train"), ("valid", "dev"), ("test", "test"))
    },
    "triples": {
        s: _DATA / "dart" / f"dart-v1.1.1-full-{name}.json"
        for s, name in (("train", "train"), ("valid", "dev"), ("test", "test"))
    },
}
"""Where the original's repository keeps the files of each mode, and ours looks for them."""


def read_records(mode: str, path: str | Path, training: bool) -> list[Record]:
    """Read a data file of ``mode``; a name ending in ``.jsonl`` is one's own data in any mode.

    Args:
        training: leave out what the original does not train on, and require targets.

    Raises:
        UserError: naming the file and the line or entry that is wrong.
    """
    path = Path(path)
    readers = (read_jsonl, read_jsonl) if path.suffix == ".jsonl" else READERS[mode]
    records = list(readers[0 if training else 1](path))
    if not records:
        raise UserError(f"{path}: the file has no records")
    if training and path.suffix == ".jsonl":
        for record in records:
            if not record.targets:
                raise UserError(f"{record.where}: no 'target' or 'targets' to train on")
    return records


def group_by_source(records: Iterable[Record]) -> list[Record]:
    """One record per distinct input, with all its references, in order of first appearance."""
    groups: dict[tuple[str, tuple[str, ...] | None], list[Record]] = {}
    for record in records:
        groups.setdefault((record.source, record.relations), []).append(record)
    return [
        replace(same[0], targets=tuple(t for record in same for t in record.targets))
        for same in groups.values()
    ]


class Format:
    """The strings around source and target, and their token ids.

    Args:
        tokenizer: of the base model.
        separator: text between source and target; the tokenizer's beginning-of-text token when
            not given, or its end token when it has none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, separator: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.separator = separator or tokenizer.bos_token or tokenizer.eos_token

    def prompt(self, source: str) -> str:
        """What precedes the target; also what decoding starts from."""
        return f" {source} {self.separator}"

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), add_special_tokens=False).input_ids

    def encode_prompts(self, sources: Sequence[str]) -> list[list[int]]:
        """Token ids of the prompts of ``sources``."""
        return self._encode([self.prompt(source) for source in sources])

    def encode_targets(self, targets: Sequence[str]) -> list[list[int]]:
        """Token ids of what follows a prompt, the end token included."""
        # Special tokens are cut out before anything else, so that prompt and target encoded apart
        # are the joined string encoded at once.
        end = self.tokenizer.eos_token_id
        return [[*ids, end] for ids in self._encode([f" {target} " for target in targets])]


class TableToTextDataset(Dataset[dict[str, list[int]]]):
    """Every (source, reference) pair of a file as token ids and labels.

    Args:
        records: as read for training.
        text_format: strings and tokenizer.
        max_tokens: the most tokens of an example, i.e. the model's positions less the prefix.

    Raises:
        UserError: an example is longer, naming its file and line.
    """

    def __init__(
        self, records: Sequence[Record], text_format: Format, max_tokens: int | None = None
    ) -> None:
        pairs = [(record, target) for record in records for target in record.targets]
        prompts = text_format.encode_prompts([record.source for record, _ in pairs])
        targets = text_format.encode_targets([target for _, target in pairs])
        for (record, _), prompt, target in zip(pairs, prompts, targets, strict=True):
            length = len(prompt) + len(target)
            if max_tokens is not None and length > max_tokens:
                raise UserError(
                    f"{record.where}: {length} tokens, but {max_tokens} fit beside the prefix; "
                    "shorten the text or the prefix"
                )
        self.examples = [
            {"input_ids": p + t, "labels": [IGNORE] * len(p) + t}
            for p, t in zip(prompts, targets, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.examples[index]

    @property
    def lengths(self) -> list[int]:
        """Tokens of every example."""
        return [len(example["input_ids"]) for example in self.examples]


def collate(examples: Sequence[dict[str, list[int]]], pad_id: int) -> dict[str, Tensor]:
    """Pad on the right to ``input_ids`` and ``labels`` ``[B, T]`` int64.

    There is no attention mask, as in the original: no real token sees what stands to its right.
    """
    width = max(len(example["input_ids"]) for example in examples)

    def pad(key: str, value: int) -> Tensor:
        rows = [e[key] + [value] * (width - len(e[key])) for e in examples]
        return torch.tensor(rows, dtype=torch.long)

    return {"input_ids": pad("input_ids", pad_id), "labels": pad("labels", IGNORE)}


def collate_infix(examples: Sequence[dict[str, list[int]]], pad_id: int) -> dict[str, Tensor]:
    """The same for an infix, which stands between source and target.

    ``input_ids`` and ``labels`` begin with the last token of the prompt, the separator; what
    precedes it is ``src [B, S]`` int64, padded on the right, with ``src_attn [B, S]`` bool.
    """
    n_source = [example["labels"].count(IGNORE) - 1 for example in examples]
    targets = [
        {key: ids[n:] for key, ids in example.items()}
        for example, n in zip(examples, n_source, strict=True)
    ]
    width = max(n_source)
    source = [
        e["input_ids"][:n] + [pad_id] * (width - n) for e, n in zip(examples, n_source, strict=True)
    ]
    lengths = torch.tensor(n_source)
    return {
        **collate(targets, pad_id),
        "src": torch.tensor(source, dtype=torch.long),
        "src_attn": torch.arange(width) < lengths[:, None],
    }
