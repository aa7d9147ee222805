"""Decode a test or development set with a trained prefix or a fine-tuned model, and score it.

Writes ``<checkpoint>/<split>_beam_<length_penalty>``, one output a line in the order of the input,
and the scores beside it. Sources are decoded in batches of about one length, equal ones once. A
decode that was stopped goes on where it was. Texts that other weights, data or another search made
are not overwritten: the new ones go to ``<split>-2_beam_<length_penalty>``, unless
``--overwrite_results`` is given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from evaluation import summarization, translation
from evaluation.report import Scores, format_table
from harness.banked import base_of, homes_of, names_of, tasks_of
from harness.decode import Identity, claim, decode_by_length, decode_resumably, publish
from harness.lock import locked
from harness.own_data import Columns
from harness.trained import note_task
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.bank import PrefixBank
from prefix_tuning.errors import UserError
from prefix_tuning.files import write_json, write_text
from prefix_tuning.hub import at_hand
from prefix_tuning.saving import load_headless
from seq2seq import arguments, loading, run_folder
from seq2seq.arguments import ORIGINAL_BASE, Arguments
from seq2seq.data import Seq2SeqDataset, read_split
from seq2seq.decoding import generate, texts
from seq2seq.files import Record


def rouge(references: Sequence[str], predictions: Sequence[str]) -> Scores:
    """Means of ROUGE over whole references, from 0 to 100; an empty output scores 0."""
    scores = summarization.score(references, predictions)
    names = {column: name for name, column in summarization.COLUMNS.items()}
    values = {names[c]: value for c, value in scores.values.items()}
    return Scores(values, note=scores.note, full=dict.fromkeys(values, 100))


def bleu(references: Sequence[str], predictions: Sequence[str]) -> Scores:
    """sacrebleu's corpus BLEU, and the share of predictions that are right, from 0 to 100."""
    scores = translation.score(references, predictions)
    values = {column.lower(): value for column, value in scores.values.items()}
    return Scores(values, note=scores.note, full=dict.fromkeys(values, 100))


SCORES: dict[str, Callable[[Sequence[str], Sequence[str]], Scores]] = {
    "summarization": rouge,
    "translation": bleu,
}
"""Task -> scores of whole texts, as validation and test report them."""


def of_run(args: Arguments) -> Arguments:
    """The flags that decode the best checkpoint of the run that the flags ``args`` trained."""
    best = str(Path(args.output_dir or "") / run_folder.BEST)
    of_prefix = "preseqlen mid_dim use_deep prefix_sites parametrization prefix_options"
    kept: dict[str, Any] = dict.fromkeys(of_prefix.split())
    kept["eval_fraction"] = None
    if arguments.held_out_share(args):  # what the run did not train on
        kept |= {"data_dir": str(Path(args.output_dir or "") / run_folder.HELD_OUT)}
        kept |= {"source_column": None, "target_column": None}
    decode = dataclasses.replace(args, do_train=False, **kept)
    if args.tuning_mode == "finetune":
        return dataclasses.replace(decode, model_name_or_path=best)
    return dataclasses.replace(decode, prefixModel_name_or_path=best)


_OF_TASK = ("task_mode", "source_prefix", "max_source_length", "src_lang", "tgt_lang")
"""What decides how a prefix's sources are read."""


class Decoder:
    """A loaded model with its prefix; ``run(sources, skip)`` decodes.

    Args:
        args: the flags.
        tokenizer: of the model.
        model: after ``enable_prefix``, where a prefix or a bank comes.
        folder: of what decodes: the prefix, the bank, or the model.
    """

    def __init__(
        self, args: Arguments, tokenizer: PreTrainedTokenizerBase, model: Any, folder: Path
    ) -> None:
        self.args, self.search = args, arguments.search(args)
        self.tokenizer, self.model, self.folder = tokenizer, model, folder
        self.prefix: KeyValues | None = None
        self.bank: PrefixBank | None = None
        self.names: list[str | None] = []
        """With a bank, the prefix of each record of the last :meth:`dataset`."""

    @classmethod
    def load(cls, args: Arguments) -> Decoder:
        """The model and the prefix that the flags name.

        Raises:
            UserError: the checkpoint is missing or damaged, belongs to another model, or
                contradicts a flag.
        """
        trained, meta = args.prefixModel_name_or_path, None
        if trained:
            meta = loading.check_flags(args, trained)
        elif args.tuning_mode == "prefixtune" and not args.prefix_bank:
            raise UserError(
                "--prefixModel_name_or_path is missing: name the trained prefix, or say "
                "--tuning_mode finetune"
            )
        part = trained or args.prefix_bank
        name = cls._base(args, meta or {})
        if part and not args.model_name_or_path:
            at_hand(name, Path(part), args.cache_dir)
        device = loading.device(args)
        tokenizer, model = loading.load_base(args, name)
        model.to(device)
        if part:
            enable_prefix(model.requires_grad_(False))
        run = cls(args, tokenizer, model, Path(part or name))
        if trained:
            prefix, _ = load_headless(trained, model)
            with torch.no_grad():
                run.prefix = KeyValues(prefix.to(model.device).all_key_values())
        if args.prefix_bank:  # whose prefixes say theirs once records name them
            run.bank = PrefixBank(model, args.prefix_bank)
        else:
            run._adopt((meta or {}).get("task", {}), trained)
        return run

    @staticmethod
    def _base(args: Arguments, meta: dict[str, Any]) -> str:
        recorded = meta.get("base_model", {}).get("name_or_path")
        if args.prefix_bank and not args.model_name_or_path:
            recorded = base_of(Path(args.prefix_bank))
        name = args.model_name_or_path or recorded
        if not name and meta.get("original"):
            name = ORIGINAL_BASE
        if not name:
            raise UserError("--model_name_or_path is missing: name the base or fine-tuned model")
        return name

    def _adopt(self, task: dict[str, Any], folder: str | None) -> None:
        """Take over the text in front and the lengths that training had."""
        args, self.task = self.args, task
        note_task(folder or self.folder, task.get("task_mode"), args.task_mode)
        self.max_source_length = args.max_source_length or task.get("max_source_length", 512)
        lengths = {"max_source_length": self.max_source_length}
        lengths["eval_max_gen_length"] = self.search.max_length
        loading.check_positions(self.model, lengths)

    def _adopt_all(self, bank: PrefixBank, records: Sequence[Record]) -> None:
        """The same of all prefixes that records name, which must have been trained alike.

        Raises:
            UserError: they were not, or a record names no prefix of the folder.
        """
        self.names = names_of(records)
        tasks = tasks_of(bank, self.names, records)
        tasks = {name: {k: t.get(k) for k in _OF_TASK} for name, t in tasks.items() if name}
        (first, task), *others = tasks.items()
        for name, other in others:
            if other != task:
                raise UserError(
                    f"{bank.folder}: the prefixes {first!r} and {name!r} were trained with other "
                    "sources (length, text in front, languages or task): decode them apart"
                )
        self._adopt({k: v for k, v in task.items() if v is not None}, str(first))

    def dataset(self, records: Sequence[Any]) -> Seq2SeqDataset:
        """The records with the text in front and the length that training had."""
        if self.bank is not None:
            self._adopt_all(self.bank, records)
        args, task = self.args, self.task
        front = task.get("source_prefix")
        if args.source_prefix is not None or front is None:
            front = loading.source_prefix(args, self.model)
        return Seq2SeqDataset(
            self.tokenizer,
            records,
            self.max_source_length,
            args.test_max_target_length,
            prefix=front,
            src_lang=args.src_lang or task.get("src_lang", ""),
            tgt_lang=args.tgt_lang or task.get("tgt_lang", ""),
        )

    def __call__(self, dataset: Seq2SeqDataset, skip: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Yield index and output of every source that is not in ``skip``, long ones first."""
        args = self.args
        dtype = torch.float16 if args.fp16 else torch.bfloat16

        def decode(indices: list[int]) -> list[str]:
            return self.decode_batch(dataset.collate_fn([dataset[i] for i in indices]))

        with torch.autocast(self.model.device.type, dtype, enabled=args.fp16 or args.bf16):
            yield from decode_by_length(dataset.src_lens, args.decode_batch_size, skip, decode)

    def decode_batch(self, batch: dict[str, Tensor]) -> list[str]:
        """The outputs for ``input_ids [B, S]``."""
        ids, mask = (batch[k].to(self.model.device) for k in ("input_ids", "attention_mask"))
        prefix = self.prefix
        if self.bank is not None:
            prefix = self.bank.key_values([self.names[i] for i in batch["ids"].tolist()])
        return texts(self.tokenizer, generate(self.model, prefix, ids, mask, self.search))


def evaluate(args: Arguments) -> list[Path]:
    """Decode the splits that the flags name; return the paths of the outputs."""
    columns = Columns(args.source_column, args.target_column)
    records = {
        split: read_split(
            args.data_dir,
            split,
            False,
            columns,
            args.dataset_config,
            args.empty_sources == "skip",
        )
        for split in arguments.predict_splits(args)
    }
    run = Decoder.load(args)
    return [
        _decode(args, run, split, of_split[: args.n_test] if args.n_test > 0 else of_split)
        for split, of_split in records.items()
    ]


def _decode(args: Arguments, run: Decoder, split: str, records: Sequence[Record]) -> Path:
    """Decode and score one split; return the path of the outputs."""
    folder = run.folder
    if not folder.is_dir():
        if not args.output_dir:
            raise UserError("--output_dir is missing: name the folder of the decoded texts")
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
    # Several references of one source are several records.
    first_of = {_input(run, record): record for record in reversed(records)}
    dataset = run.dataset(list(first_of.values()))
    identity, suffix = _identity(args, run, dataset, records), f"beam_{run.search.length_penalty}"
    owner = {**identity.owner(), **{n: identity.further[n] for n in ("length", "languages")}}
    settings, decode = identity.settings(), partial(run, dataset)
    with locked(folder, f"{split}_{suffix}"):
        stem = claim(folder / split, suffix, owner, args.overwrite_results, shared=())
        output = stem.with_name(f"{stem.name}_{suffix}")
        unfinished = output.with_name(output.name + ".partial")
        decoded = decode_resumably(unfinished, settings, len(dataset), decode)
        by_source = dict(zip(first_of, decoded, strict=True))
        predictions = [by_source[_input(run, record)] for record in records]
        publish(output, owner)
        write_text(output, "".join(f"{text}\n" for text in predictions))
        unfinished.unlink()
    print(f"{len(predictions)} texts in {output}")
    references = [record.target for record in records if record.target is not None]
    if len(references) < len(records):
        print("not scored: some inputs have no reference")
        return output
    scores = SCORES[args.task_mode](references, predictions)
    print(format_table({split: scores}, digits=2))
    document = {
        "scores": scores.values,
        "full": scores.full,
        "note": scores.note,
        "n_text": len(records),
        "search": dataclasses.asdict(run.search),
    }
    write_json(output.with_name(output.name + "_eval.json"), document)
    return output


def _input(run: Decoder, record: Record) -> tuple[str, str]:
    """What decides the text of a record."""
    return record.source, repr(record.prefix) if run.bank is not None else ""


def _identity(
    args: Arguments, run: Decoder, dataset: Seq2SeqDataset, records: Sequence[Record]
) -> Identity:
    prompts: list[object] = [dataset[i]["src_texts"] for i in range(len(dataset))]
    if run.bank is not None:
        prompts = list(zip(run.names, prompts, strict=True))
    precision = "float16" if args.fp16 else "bfloat16" if args.bf16 else "float32"
    return Identity(
        run.folder,
        prompts=prompts,
        search=dataclasses.asdict(run.search),
        precision=precision,
        further={
            "length": run.max_source_length,
            "languages": [args.src_lang, args.tgt_lang],
            "model": [args.model_name_or_path, args.tokenizer_name],
        },
        references=[(record.source, record.target) for record in records],
        parts=homes_of(run.bank, run.names) if run.bank is not None else {},
    )
