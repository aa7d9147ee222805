"""Decode a data file with a trained prefix or a fine-tuned model.

Writes ``<name>_<split>_beam`` (one output a line), ``<name>_<split>_gold`` (the references of each
input, a blank line between inputs) and ``<name>_<split>_src`` (the prompts) into ``--gen_dir``, in
the order of the input file. Prompts are decoded in batches of about one length; a batch gives the
texts its prompts give alone. A decode that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from transformers.utils import logging as library_logging

from gpt2 import scoring
from gpt2.data import DEFAULT_FILES, READERS, Format, Record, group_by_source, read_records
from gpt2.decoding import Search, decode, no_prefix
from prefix_tuning import checkpoint
from prefix_tuning.attention import KeyValues, enable_prefix
from prefix_tuning.base_model import DTYPES, load_causal_lm, load_tokenizer
from prefix_tuning.errors import UserError, run_command
from prefix_tuning.prefix import Prefix


def _decode_resumably(
    path: Path, settings: dict[str, object], n_text: int, run: Decoder
) -> list[str]:
    """All texts, those in the file at ``path`` first; the file grows with every text."""
    texts = _read_partial(path, settings)
    if texts:
        print(f"going on after {len(texts)} of {n_text} texts")
    else:
        path.write_text(json.dumps(settings) + "\n", encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:
        for index, text in run(list(texts)):
            file.write(json.dumps([index, text]) + "\n")
            file.flush()
            texts[index] = text
    return [texts[i] for i in range(n_text)]


def _read_partial(path: Path, settings: dict[str, object]) -> dict[int, str]:
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # what was cut off has no line end
    try:
        if not lines or json.loads(lines[0]) != settings:
            return {}
        texts = dict(json.loads(line) for line in lines[1:])
    except ValueError:
        return {}
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return texts


class Decoder:
    """``run(skip)`` decodes every prompt whose index is not in ``skip``."""

    def __init__(self, args: argparse.Namespace, records: Sequence[Record], search: Search) -> None:
        folder = Path(args.prefixModel_name_or_path or args.model_name_or_path)
        self.meta = checkpoint.read_metadata(folder) if args.prefixModel_name_or_path else None
        recorded = self.meta["base_model"].get("dtype") if self.meta else None
        name = args.model_name_or_path
        print(f"loading {name} ...", flush=True)
        self.tokenizer = load_tokenizer(args.tokenizer_name or name, args.cache_dir)
        self.model = load_causal_lm(name, args.dtype or recorded or "float32", args.cache_dir)
        enable_prefix(self.model.requires_grad_(False))
        if torch.cuda.is_available() and not args.no_cuda:
            self.model.cuda()
        self.prefix: KeyValues | Prefix = no_prefix(self.model)
        self.n_slot = 0
        if self.meta:
            prefix, _ = checkpoint.load(folder, self.model)
            self.prefix = prefix.requires_grad_(False).to(self.model.device)
            self.n_slot = prefix.length
            if not prefix.reads_source:
                sites = prefix.prompt(self.model).sites
                self.prefix = KeyValues(sites, self.meta.get("position_offset"))
        task = (self.meta or {}).get("task", {})
        self.format = Format(self.tokenizer, args.separator or task.get("separator"))
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
        return decode(
            self.model,
            self.tokenizer,
            self.prefix,
            self.prompts,
            self.search,
            self.batch_size,
            skip,
        )


def write_results(
    stem: Path, suffix: str, records: Sequence[Record], prompts: Sequence[str], texts: Sequence[str]
) -> Path:
    """Write the original's three files; return the path of the outputs."""
    gold = ("".join(f"{t}\n" for t in r.targets if t) + "\n" for r in records)
    # The original writes its dictionary's keys: tuples where relations are part of them.
    sources = (
        p if r.relations is None else repr((p, r.relations))
        for p, r in zip(prompts, records, strict=True)
    )
    contents = {
        suffix: "".join(f"{text}\n" for text in texts),
        "gold": "".join(gold),
        "src": "".join(f"{source}\n" for source in sources),
    }
    for name, content in contents.items():
        path = stem.with_name(f"{stem.name}_{name}")
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(content, encoding="utf-8")
        os.replace(temporary, path)
    return stem.with_name(f"{stem.name}_{suffix}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model_name_or_path", required=True, help="base model, or fine-tuned model")
    add("--prefixModel_name_or_path", help="folder of a trained prefix")
    add("--tokenizer_name", help="tokenizer, if not the model's")
    add("--cache_dir")
    add("--task_mode", default="data2text", choices=list(READERS))
    add("--eval_dataset", default="valid", choices=["train", "valid", "test"], help="the split")
    add("--data_file", help="file to decode, if not the split's in data/")
    add("--gen_dir", default="e2e_results_conv2", help="folder of the results")
    add("--length", type=int, default=100, help="new tokens at most")
    add("--num_beams", type=int, default=5, help="1 is greedy search")
    add("--beam_search", default="legacy", choices=["legacy", "transformers"])
    add("--length_penalty", type=float, default=1.0)
    add("--batch_size", type=int, default=64, help="prompts decoded together")
    add("--limit", type=int, help="decode only so many inputs")
    add("--separator", help="text between source and target, if not the checkpoint's")
    add("--dtype", choices=list(DTYPES), help="precision, if not the checkpoint's")
    add("--no_score", action="store_true", help="do not score the texts")
    add("--no_cuda", action="store_true")
    # Flags of the original that its own runs leave without effect.
    for name in ("model_type", "tuning_mode", "control_mode", "prefix_mode", "format_mode"):
        add(f"--{name}", help=argparse.SUPPRESS)
    for name in ("optim_prefix", "preseqlen", "num_return_sequences", "stop_token", "seed"):
        add(f"--{name}", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Decode as ``argv`` says."""
    library_logging.set_verbosity_error()
    args = _parser().parse_args(argv)
    for name in ("length", "num_beams", "batch_size"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: must be at least 1")
    search = Search(
        args.num_beams,
        args.length,
        length_penalty=args.length_penalty,
        implementation=args.beam_search,
    )
    data_file = args.data_file or DEFAULT_FILES[args.task_mode][args.eval_dataset]
    entries = read_records(args.task_mode, data_file, training=False)
    records = group_by_source(entries)[: args.limit]
    run = Decoder(args, records, search)

    source = Path(args.prefixModel_name_or_path or args.model_name_or_path)
    suffix = "beam" if search.num_beams > 1 else "greedy"
    stem = Path(args.gen_dir) / f"{source.name}_{args.eval_dataset}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    settings = {
        **asdict(search),
        "data_file": str(data_file),
        "n_text": len(records),
        "model": args.model_name_or_path,
        "weights": [
            [f.name, f.stat().st_size, f.stat().st_mtime_ns]
            for f in sorted(source.glob("*.safetensors"))
        ],
    }
    partial = stem.with_name(f"{stem.name}_{suffix}.partial")
    texts = _decode_resumably(partial, settings, len(records), run)
    prompts = [run.format.prompt(record.source) for record in records]
    output = write_results(stem, suffix, records, prompts, texts)
    partial.unlink()
    print(f"{len(texts)} texts in {output}")
    if args.no_score:
        return
    if not all(record.targets for record in records):
        print("not scored: some inputs have no references")
        return
    decoded = {(record.source, record.relations) for record in records}
    entries = [entry for entry in entries if (entry.source, entry.relations) in decoded]
    scores = scoring.score_outputs(args.task_mode, entries, texts)
    scoring.publish(scores, output.with_name(output.name + "_eval.json"))


if __name__ == "__main__":
    run_command(main)
