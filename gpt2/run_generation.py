"""Decode a data file with a trained prefix or a baseline.

Writes ``<name>_<split>_beam`` (one output a line; ``_greedy`` or ``_nucleus`` where the task is
searched so), ``<name>_<split>_gold`` (the references of each input, a blank line between inputs)
and ``<name>_<split>_src`` (the prompts) into ``--gen_dir``, in the order of the input file. Prompts
are decoded in batches of about one length; a batch gives the texts its prompts give alone. A decode
that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from transformers.utils import logging as library_logging

from gpt2 import baselines, scoring
from gpt2.data import Format
from gpt2.decoding import Search, decode, decode_samples, no_prefix, one_line
from gpt2.records import Record, group_by_source
from gpt2.tasks import TASKS, read_records
from harness.decode import decode_resumably
from harness.models import DTYPES, load_causal_lm, load_tokenizer
from prefix_tuning import checkpoint
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.errors import UserError, run_command
from prefix_tuning.files import write_text
from prefix_tuning.prefix import Prefix


class Decoder:
    """``run(skip)`` decodes every prompt whose index is not in ``skip``."""

    def __init__(self, args: argparse.Namespace, records: Sequence[Record], search: Search) -> None:
        name, folder = args.model_name_or_path, Path(args.prefixModel_name_or_path or "")
        has_prefix, meta = False, baselines.read_about(Path(name))
        if args.prefixModel_name_or_path:
            has_prefix = not baselines.needs_base_model(folder)
            meta = (checkpoint.read_metadata if has_prefix else baselines.read_about)(folder)
        recorded = meta.get("base_model", {}).get("dtype")
        print(f"loading {name} ...", flush=True)
        self.tokenizer = load_tokenizer(args.tokenizer_name or name, args.cache_dir)
        self.model = load_causal_lm(name, args.dtype or recorded or "float32", args.cache_dir)
        if args.prefixModel_name_or_path and not has_prefix:
            self.model = baselines.load_into(self.model, folder)
        enable_prefix(self.model.requires_grad_(False))
        if torch.cuda.is_available() and not args.no_cuda:
            self.model.cuda()
        self.prefix: KeyValues | Prefix = no_prefix(self.model)
        self.n_slot = 0
        if has_prefix:
            prefix, _ = checkpoint.load(folder, self.model)
            self.prefix = prefix.requires_grad_(False).to(self.model.device)
            self.n_slot = prefix.length
            if not prefix.reads_source:
                sites = prefix.prompt(self.model).sites
                self.prefix = KeyValues(sites, meta.get("position_offset"))
        task = meta.get("task", {})
        self.format = Format(
            self.tokenizer,
            args.separator or task.get("separator"),
            TASKS[args.task_mode].layout,
            task.get("source_prefix"),
        )
        self.prompts = self.format.encode_prompts([record.source for record in records])
        self._check_lengths(records, search)
        self.search, self.batch_size = search, args.batch_size

    def _check_lengths(self, records: Sequence[Record], search: Search) -> None:
        limit = getattr(self.model.config, "max_position_embeddings", None)
        for record, prompt in zip(records, self.prompts, strict=True):
            need = self.n_slot + len(prompt) + search.max_new_tokens
            if limit is not None and need > limit:
                raise UserError(
                    f"{record.where}: prefix, {len(prompt)} prompt tokens and "
                    f"{search.max_new_tokens} new ones exceed the model's {limit} positions; "
                    "shorten the text or lower --length"
                )

    def __call__(self, skip: Sequence[int]) -> Iterator[tuple[int, str]]:
        what = (self.model, self.tokenizer, self.prefix, self.prompts, self.search)
        if self.search.n_sample:
            return decode_samples(*what, skip)
        return decode(*what, self.batch_size, skip)


def write_results(
    stem: Path,
    suffix: str,
    task_mode: str,
    records: Sequence[Record],
    prompts: Sequence[str],
    texts: Sequence[str],
) -> Path:
    """Write the original's three files (two for summaries); return the path of the outputs."""
    # A blank line ends the references of an input that may have several.
    end = "\n" if TASKS[task_mode].grouped else ""
    gold = ("".join(f"{one_line(t)}\n" for t in r.targets if t) + end for r in records)
    # The original writes its dictionary's keys: tuples where relations are part of them.
    sources = (
        one_line(p) if r.relations is None else repr((p, r.relations))
        for p, r in zip(prompts, records, strict=True)
    )
    contents = {
        suffix: "".join(f"{text}\n" for text in texts),
        "gold": "".join(gold),
        "src": "".join(f"{source}\n" for source in sources),
    }
    if not TASKS[task_mode].keeps_sources:
        del contents["src"]
    for name, content in contents.items():
        write_text(stem.with_name(f"{stem.name}_{name}"), content)
    return stem.with_name(f"{stem.name}_{suffix}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model_name_or_path", required=True, help="base model, or fine-tuned model")
    add("--prefixModel_name_or_path", help="folder of a prefix, adapters or LoRA")
    add("--tokenizer_name", help="tokenizer, if not the model's")
    add("--cache_dir")
    add("--task_mode", default="data2text", choices=list(TASKS))
    add("--eval_dataset", default="valid", choices=["train", "valid", "test"], help="the split")
    add("--data_file", help="file to decode, if not the split's in data/")
    add("--gen_dir", default="e2e_results_conv2", help="folder of the results")
    add("--length", type=int, default=100, help="new tokens at most")
    add("--search", choices=["beam", "greedy", "nucleus"], help="if not the task's own")
    add("--num_beams", type=int, help="of beam search (default: 5); 1 is greedy search")
    add("--beam_search", default="legacy", choices=["legacy", "transformers"])
    add("--length_penalty", type=float, default=1.0)
    add("--top_p", type=float, default=0.8, help="nucleus: probability of the tokens kept")
    add("--num_return_sequences", type=int, default=5, help="nucleus: texts for every prompt")
    add("--seed", type=int, default=42, help="nucleus: decides what is drawn")
    add("--batch_size", type=int, default=64, help="prompts decoded together")
    add("--limit", type=int, help="decode only so many inputs")
    add("--separator", help="text between source and target, if not the checkpoint's")
    add("--dtype", choices=list(DTYPES), help="precision, if not the checkpoint's")
    add("--no_score", action="store_true", help="do not score the texts")
    add("--no_cuda", action="store_true")
    # Flags of the original that its own runs leave without effect.
    for name in ("model_type", "tuning_mode", "control_mode", "prefix_mode", "format_mode"):
        add(f"--{name}", help=argparse.SUPPRESS)
    for name in ("optim_prefix", "preseqlen", "stop_token"):
        add(f"--{name}", help=argparse.SUPPRESS)
    return parser


def _search(args: argparse.Namespace) -> Search:
    """The search that the flags ask for, or else the task."""
    asked = args.search or ("beam" if args.num_beams else TASKS[args.task_mode].search)
    if args.num_beams and asked != "beam":
        raise UserError(f"--num_beams {args.num_beams}: --search {asked} has no beams")
    return Search(
        1 if asked == "greedy" else args.num_beams or 5,
        args.length,
        length_penalty=args.length_penalty,
        implementation=args.beam_search,
        n_sample=args.num_return_sequences if asked == "nucleus" else 0,
        top_p=args.top_p,
        seed=args.seed,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Decode as ``argv`` says."""
    library_logging.set_verbosity_error()
    args = _parser().parse_args(argv)
    for name in ("length", "num_beams", "batch_size", "num_return_sequences", "limit"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: must be at least 1")
    if not 0 < args.top_p <= 1:
        raise UserError(f"--top_p {args.top_p}: must be above 0, and at most 1")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed {args.seed}: must be from 0 to 2**32 - 1")
    search = _search(args)
    data_file = args.data_file or TASKS[args.task_mode].files.get(args.eval_dataset)
    if data_file is None:
        raise UserError(f"{args.task_mode} has no {args.eval_dataset} file: name --data_file")
    entries = read_records(args.task_mode, data_file, training=False)
    grouped = group_by_source(entries) if TASKS[args.task_mode].grouped else entries
    records = grouped[: args.limit]
    run = Decoder(args, records, search)

    source = Path(args.prefixModel_name_or_path or args.model_name_or_path)
    suffix = "nucleus" if search.n_sample else "beam" if search.num_beams > 1 else "greedy"
    stem = Path(args.gen_dir) / f"{source.name}_{args.eval_dataset}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    settings = {
        **asdict(search),
        "data_file": str(data_file),
        "n_text": len(records),
        "prompts": hashlib.sha256(repr(run.prompts).encode()).hexdigest(),
        "model": args.model_name_or_path,
        "dtype": str(run.model.dtype),
        "weights": [
            [f.name, f.stat().st_size, f.stat().st_mtime_ns]
            for f in sorted([*source.glob("*.safetensors"), *source.glob("*.bin")])
        ],
    }
    partial = stem.with_name(f"{stem.name}_{suffix}.partial")
    n_text = len(records) * max(1, search.n_sample)
    texts = decode_resumably(partial, settings, n_text, run)
    prompts = [run.format.prompt(record.source) for record in records]
    output = write_results(stem, suffix, args.task_mode, records, prompts, texts)
    partial.unlink()
    print(f"{len(texts)} texts in {output}")
    if args.no_score or search.n_sample:
        return
    if not all(record.targets for record in records):
        print("not scored: some inputs have no references")
        return
    scores = scoring.score_outputs(args.task_mode, entries, texts, records)
    scoring.publish(scores, output.with_name(output.name + "_eval.json"))


if __name__ == "__main__":
    run_command(main)
