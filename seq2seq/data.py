"""Summarisation data: files -> records -> batches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from harness.own_data import Columns, held_out
from harness.own_files import FORMATS
from harness.progress import through
from harness.sources import with_sources
from prefix_tuning.errors import UserError
from seq2seq.files import ROWS, Record, hub_rows, read_pairs, read_rows

E2E_SPLITS = {"train": "train", "val": "valid", "test": "test"}
"""The middle of E2E's file names."""


def read_split(
    data: str | Path,
    split: str,
    training: bool,
    columns: Columns | None = None,
    config: str | None = None,
    skip_empty: bool = False,
) -> list[Record]:
    """Read one split of a data set; print how many records are left out, if any.

    Args:
        data: a folder that holds ``<split>.source`` (and ``.target``), ``<split>.jsonl``,
            ``.csv``, ``.tsv``, ``.json`` or ``.parquet``, or E2E's ``src1_<split>.txt``; a file of
            these kinds but the first, whatever its name; or the name of a data set of the hub.
        split: "train", "val" or "test".
        training: require a target of every source.
        columns: names of the columns in JSONL, CSV and on the hub.
        config: which configuration of the hub's data set, e.g. "3.0.0" of CNN/DailyMail.
        skip_empty: leave out records of which the source is empty, instead of refusing them.

    Raises:
        UserError: naming the file and line that is wrong, or what was looked for; or a flag that
            says something that this kind of data does not have.
    """
    columns, path = columns or Columns(), split_file(data, split)
    records: Iterable[Record]
    if path is None:
        records = read_rows(hub_rows(str(data), config, split), columns, training)
    else:
        if config is not None:
            raise UserError(f"--dataset_config {config}: {path} is a file and has none; leave it")
        if path.suffix not in FORMATS:
            for side in ("source", "target"):
                if (name := getattr(columns, side)) is not None:
                    raise UserError(f"--{side}_column {name}: {path} has no columns; leave it out")
        if path.suffix == ".source":
            records = read_pairs(path.parent, split, training)
        else:
            records = read_rows(ROWS[path.suffix](path), columns, training)
    records = with_sources(records, skip_empty, path or str(data))
    if not records:
        raise UserError(f"{path or data}: the {split} split has no records")
    return records


def hold_out(
    records: Sequence[Record], fraction: float, seed: int
) -> tuple[list[Record], list[Record]]:
    """The records to train on, and those to validate on: all of a random share of the sources.

    Raises:
        UserError: there is one source alone.
    """
    sources = [*dict.fromkeys(record.source for record in records)]
    chosen = held_out(sources, fraction, seed, records[0].where.split(", ")[0])
    return (
        [record for record in records if record.source not in chosen],
        [record for record in records if record.source in chosen],
    )


def split_file(data: str | Path, split: str) -> Path | None:
    """The file that :func:`read_split` reads; None for a data set of the hub.

    Raises:
        UserError: there is none.
    """
    path = Path(data)
    if path.is_dir():
        names = [*(f"{split}{end}" for end in (".source", ".jsonl", ".csv"))]
        names.append(f"src1_{E2E_SPLITS[split]}.txt")
        names += [f"{split}{end}" for end in (".tsv", ".json", ".parquet")]
        for name in names:
            if (path / name).is_file():
                return path / name
        raise UserError(f"{path} holds none of {', '.join(names)}")
    if path.is_file():
        if path.suffix not in ROWS:
            kinds = ", ".join(ROWS)
            raise UserError(f"{path}: give a folder, or a file ending in one of {kinds}")
        return path
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(data)) and path.suffix not in ROWS:
        return None
    raise UserError(f"{path}: there is no such file or folder")


class Seq2SeqDataset(Dataset[dict[str, Any]]):
    """Sources and targets as texts, tokenised a batch at a time.

    Args:
        tokenizer: of the base model.
        records: as :func:`read_split` gives them.
        max_source_length: tokens at which a source is cut, special tokens included.
        max_target_length: the same for targets.
        n_obs: number of first records to use; all when None or negative.
        prefix: text in front of every source, such as T5's "summarize: ".
        src_lang: language of the sources, for a tokenizer that has languages (mBART).
        tgt_lang: language of the targets.

    Raises:
        UserError: languages are given to a tokenizer without languages.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        records: Sequence[Record],
        max_source_length: int,
        max_target_length: int,
        n_obs: int | None = None,
        prefix: str = "",
        src_lang: str = "",
        tgt_lang: str = "",
    ) -> None:
        self.tokenizer = tokenizer
        self.records = list(records if n_obs is None or n_obs < 0 else records[:n_obs])
        self.has_targets = all(record.target is not None for record in self.records)
        self.max_source_length = max_source_length
        self.max_target_length = max_target_length
        self.prefix = prefix
        for name, language in (("src_lang", src_lang), ("tgt_lang", tgt_lang)):
            if language and not hasattr(tokenizer, name):
                raise UserError(f"--{name}: the tokenizer of this model has no languages; leave it")
            if language:
                setattr(tokenizer, name, language)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.records[index]
        return {"tgt_texts": record.target, "src_texts": self.prefix + record.source, "id": index}

    @property
    def src_lens(self) -> list[int]:
        """Characters of every source, which is what the original sorts by."""
        return [len(self.prefix) + len(record.source) for record in self.records]

    def token_lengths(self) -> list[int]:
        """Tokens of every example after truncation: those of its source or target, if longer."""
        lengths: list[int] = []
        step = 1000
        for start in through(range(0, len(self), step), "thousands of texts counted"):
            examples = [self[i] for i in range(start, min(start + step, len(self)))]
            counts = [self._encode(examples, "src_texts", pad=False)]
            if self.has_targets:
                counts.append(self._encode(examples, "tgt_texts", pad=False))
            ids = zip(*(count["input_ids"] for count in counts), strict=True)
            lengths += [max(map(len, sequences)) for sequences in ids]
        return lengths

    def _encode(self, examples: Sequence[Mapping[str, Any]], key: str, pad: bool = True) -> Any:
        texts = [example[key] for example in examples]
        is_source = key == "src_texts"
        return self.tokenizer(
            **{"text" if is_source else "text_target": texts},
            max_length=self.max_source_length if is_source else self.max_target_length,
            truncation=True,
            padding="longest" if pad else False,
            return_tensors="pt" if pad else None,
        )

    def collate_fn(self, batch: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Tokenise a batch of B items.

        Returns:
            ``input_ids`` and ``attention_mask`` ``[B, S]``, ``labels`` ``[B, T]`` (absent if a
            record has no target) and ``ids`` ``[B]``, all int64. Padding in ``labels`` is the
            tokenizer's pad token, not -100.
        """
        sources = self._encode(batch, "src_texts")
        tensors = {
            "input_ids": sources["input_ids"],
            "attention_mask": sources["attention_mask"],
            "ids": torch.tensor([item["id"] for item in batch]),
        }
        if self.has_targets:
            tensors["labels"] = self._encode(batch, "tgt_texts")["input_ids"]
        return tensors
