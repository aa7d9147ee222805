"""Data: files -> records -> token ids -> batches.

A record is read from E2E's ``SOURCE||TARGET`` lines, the WebNLG 2017 JSON, DART's JSON, or one's
own JSONL. ``S`` being the separator (GPT-2: ``<|endoftext|>``) and ``E`` the end token (the same in
GPT-2), a training example is ``" SOURCE S TARGET E"`` with exactly these spaces, and the loss is on
everything after the separator. E2E's targets end with a space in the file, so two stand before
their end token; the paper's numbers include that. Other tasks differ in the spaces
(``gpt2/tasks.py``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from gpt2 import tasks
from gpt2.records import Record, checked, lines
from gpt2.tasks import Layout
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json
from prefix_tuning.objectives import IGNORE


def read_e2e(path: Path) -> Iterator[Record]:
    """``SOURCE||TARGET`` lines, one reference each."""
    for line, where in lines(path):
        if line.count("||") != 1:
            raise UserError(
                f"{where}: expected SOURCE||TARGET, found {line.count('||')} times '||'"
            )
        source, target = line.split("||")
        yield Record(
            checked(source, "the source", where), (checked(target, "the target", where),), where
        )


def read_webnlg(path: Path) -> Iterator[Record]:
    """The WebNLG 2017 challenge's JSON, with all its lexicalisations."""
    return _read_webnlg(path, good_only=False)


def read_webnlg_training(path: Path) -> Iterator[Record]:
    """The same with the lexicalisations marked "good" only, as the original trains on."""
    return _read_webnlg(path, good_only=True)


def _read_webnlg(path: Path, good_only: bool) -> Iterator[Record]:
    data = read_json(path)
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
                checked(text["lex"], "a lexicalisation", where)
                for text in entry["lexicalisations"]
                if not good_only or text["comment"] == "good"
            ]
        except (KeyError, TypeError) as error:
            raise UserError(f"{where}: {error!s} is missing, no WebNLG 2017 entry") from error
        # A bar in front of every triple, the first one too (the paper's text shows it without).
        source = "".join(f" | {s} : {p} : {o}" for s, p, o in triples)
        relations = tuple(p for _, p, _ in triples)
        source = checked(source, "modifiedtripleset", where)
        yield Record(source, tuple(texts), where, relations, entry.get("category"))


def read_dart(path: Path) -> Iterator[Record]:
    """DART's JSON. Relations are lower-cased, as in the original and here alone."""
    data = read_json(path)
    if not isinstance(data, list):
        raise UserError(f"{path}: expected DART JSON, a list of records")
    for number, entry in enumerate(data, start=1):
        where = f"{path}, record {number}"
        try:
            triples = [(s, p.lower(), o) for s, p, o in entry["tripleset"]]
            texts = tuple(checked(a["text"], "a text", where) for a in entry["annotations"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{where}: no DART record ({error!s})") from error
        source = checked(" | ".join(f"{s} : {p} : {o}" for s, p, o in triples), "tripleset", where)
        yield Record(source, texts, where, tuple(p for _, p, _ in triples))


def read_jsonl(path: Path) -> Iterator[Record]:
    """One's own data: ``{"source": ..., "target": ...}`` or ``{"source": ..., "targets": [...]}``.

    A record without a target can be decoded but not trained on.
    """
    for line, where in lines(path):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not JSON ({error.msg})") from error
        if not isinstance(entry, dict):
            raise UserError(f'{where}: expected an object {{"source": ..., "target": ...}}')
        targets = entry.get("targets", [entry["target"]] if "target" in entry else [])
        if not isinstance(targets, list):
            raise UserError(f"{where}: 'targets' is not a list")
        texts = tuple(checked(target, "a target", where) for target in targets)
        yield Record(checked(entry.get("source"), "'source'", where), texts, where)


Reader = Callable[[Path], Iterable[Record]]
READERS: dict[str, tuple[Reader, Reader]] = {
    "data2text": (read_e2e, read_e2e),
    "webnlg": (read_webnlg_training, read_webnlg),
    "triples": (read_dart, read_dart),
    "writingPrompts": (tasks.read_prompts, tasks.read_prompts),
    "sentiment": (tasks.read_sentiment, tasks.read_sentiment),
    "topic": (tasks.read_topic, tasks.read_topic),
    "classify-sentiment": (tasks.read_sentiment_classes, tasks.read_sentiment_classes),
    "classify-topic": (tasks.read_topic_classes, tasks.read_topic_classes),
    "xsum": (tasks.read_parallel, tasks.read_parallel),
    "cnndm": (tasks.read_parallel, tasks.read_parallel),
}
"""Per mode: how its training files are read, and how the files that are decoded."""


_DATA = Path(__file__).resolve().parents[1] / "data"


def _files(folder: str, train: str, valid: str, test: str | None) -> dict[str, Path]:
    names = {"train": train, "valid": valid, "test": test}
    return {split: _DATA / folder / name for split, name in names.items() if name}


_IMDB = _files("imdb", "train.txt", "dev.txt", "test.txt")
_NEWS = _files("agnews", "train1.tsv", "dev1.tsv", "dev1.tsv")
_DART = "dart-v1.1.1-full"
DEFAULT_FILES = {
    "data2text": _files("e2e_data", "src1_train.txt", "src1_valid.txt", "src1_test.txt"),
    "webnlg": _files("webnlg_challenge_2017", "train.json", "dev.json", "test.json"),
    "triples": _files("dart", f"{_DART}-train.json", f"{_DART}-dev.json", f"{_DART}-test.json"),
    "writingPrompts": _files("writingPrompts", "train_small.txt", "valid_small.txt", None),
    "sentiment": _IMDB,
    "topic": _NEWS,
    "classify-sentiment": _IMDB,
    "classify-topic": _NEWS,
    "xsum": _files("xsum", "train.source", "val.source", "test.source"),
    "cnndm": _files("cnn_dm", "train.source", "val.source", "test.source"),
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
    if training and not any(record.targets for record in records):
        raise UserError(f"{path}: no record has a text to train on")
    return records


class Format:
    """The strings around source and target, and their token ids.

    Args:
        tokenizer: of the base model.
        separator: text between source and target; the tokenizer's beginning-of-text token when
            not given, or its end token when it has none.
        layout: of the task.
        source_prefix: a word in front of every source, as the original has it for fine-tuning on
            little data.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        separator: str | None = None,
        layout: Layout | None = None,
        source_prefix: str | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.separator = separator or tokenizer.bos_token or tokenizer.eos_token
        self.layout = layout or Layout()
        self.source_prefix = source_prefix

    def _head(self, source: str) -> str:
        if self.source_prefix:
            source = f"{self.source_prefix} {source}"
        return self.layout.source.format(source)

    def prompt(self, source: str) -> str:
        """What precedes the target; also what decoding starts from."""
        return self._head(source) + self.separator

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), add_special_tokens=False).input_ids

    def encode_prompts(self, sources: Sequence[str]) -> list[list[int]]:
        """Token ids of the prompts of ``sources``, cut as the layout says."""
        if self.layout.max_source is None:
            return self._encode([self.prompt(source) for source in sources])
        (separator,) = self._encode([self.separator])
        heads = self._encode([self._head(source) for source in sources])
        return [[*ids[: self.layout.max_source], *separator] for ids in heads]

    def encode_targets(self, targets: Sequence[str], training: bool = True) -> list[list[int]]:
        """Token ids of what follows a prompt, cut as the layout says, then the end token."""
        # Special tokens are cut out before anything else, so that prompt and target encoded apart
        # are the joined string encoded at once.
        most = self.layout.max_target
        if not training:
            most = self.layout.max_evaluated_target or most
        end = self.tokenizer.eos_token_id
        encoded = self._encode([self.layout.target.format(target) for target in targets])
        return [[*ids[:most], end] for ids in encoded]


class TableToTextDataset(Dataset[dict[str, list[int]]]):
    """Every (source, reference) pair of a file as token ids and labels.

    Args:
        records: as read for training.
        text_format: strings and tokenizer.
        max_tokens: the most tokens of an example, i.e. the model's positions less the prefix.
        training: whether targets are cut as for training, where the layout knows two ways.

    Raises:
        UserError: an example is longer, naming its file and line.
    """

    def __init__(
        self,
        records: Sequence[Record],
        text_format: Format,
        max_tokens: int | None = None,
        training: bool = True,
    ) -> None:
        pairs = [(record, target) for record in records for target in record.targets]
        prompts = text_format.encode_prompts([record.source for record, _ in pairs])
        targets = text_format.encode_targets([target for _, target in pairs], training)
        if text_format.layout.cut_target and max_tokens is not None:
            room = [max(1, max_tokens - len(prompt)) for prompt in prompts]
            targets = [target[:most] for target, most in zip(targets, room, strict=True)]
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
