"""Writes a trained prefix without its parametrisation: small, for use and for sharing.

python -m prefix_tuning.export RUN                   # safetensors and JSON, into RUN/export
python -m prefix_tuning.export RUN --format peft     # for PEFT's PeftModel, into RUN/peft
python -m prefix_tuning.export RUN --format cache    # a transformers DynamicCache, into RUN/cache
python -m prefix_tuning.export RUN --format mlx      # a prompt cache of mlx-lm, into RUN/mlx
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefix_tuning.errors import UserError, run_command

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMATS = {"native": "prefix-tuning", "peft": "peft", "cache": "transformers", "mlx": "mlx"}
"""Format -> the library that opens it, as hubs call it."""


def main(argv: Sequence[str] | None = None) -> None:
    """Export as ``argv`` says, and print where."""
    args = _parser().parse_args(argv)
    from prefix_tuning import cache_format, checkpoint, model_card, peft_format, saving

    write = {
        "native": checkpoint.export,
        "peft": peft_format.write,
        "cache": cache_format.write_cache,
        "mlx": cache_format.write_mlx,
    }[args.format]
    source = _folder_of_prefix(args.run)
    output = args.output or args.run / ("export" if args.format == "native" else args.format)
    if output.resolve() == source.resolve():
        raise UserError(f"--output {output} is the folder that is read: give another")
    prefix, meta, head = saving.read(source)
    model = None
    if prefix.parametrization == "embedding":  # its keys and values are computed by the base
        model = _load_base(args.model_name_or_path, meta, source)
        prefix, meta, head = saving.read(source, model)
    if head and args.format != "native":
        reader = "PEFT" if args.format == "peft" else FORMATS[args.format]
        raise UserError(
            f"{source} has a trained head ({', '.join(sorted(head))}), which {reader} keeps "
            "elsewhere: use --format native"
        )
    if args.format == "mlx" and args.model_name_or_path:  # mlx-lm wants the name it will be given
        base = {**meta["base_model"], "name_or_path": args.model_name_or_path}
        meta = {**meta, "base_model": base}
    size = write(output, prefix, meta, model)
    if head:
        checkpoint.write_tensors(output / saving.HEAD, head)
    elif args.format == "native":
        (output / saving.HEAD).unlink(missing_ok=True)
    facts = model_card.facts_of_run(args.run, meta)
    given = {k: v for k in ("task", "license") if (v := getattr(args, k)) is not None}
    model_card.write(output, meta, replace(facts, **given), FORMATS[args.format])
    print(f"{output}: {prefix.length} slots, {size / 1e6:.2f} MB, {args.format} format")


def _folder_of_prefix(run: Path) -> Path:
    from prefix_tuning.checkpoint import is_prefix_folder

    inner = run / "export"
    return inner if is_prefix_folder(inner) and not is_prefix_folder(run) else run


def _load_base(name: str | None, meta: dict[str, Any], folder: Path) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    from prefix_tuning import hub
    from prefix_tuning.attention import enable_prefix

    recorded = meta["base_model"].get("name_or_path")
    if name is None and recorded is None:
        raise UserError("the run does not name its base model: give --model_name_or_path")
    name = name or hub.at_hand(recorded, folder)
    return enable_prefix(AutoModelForCausalLM.from_pretrained(name, trust_remote_code=False).eval())


def _folder(text: str) -> Path:
    if not text:  # Path("") is where the command was started
        raise argparse.ArgumentTypeError("it is empty: give a folder")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m prefix_tuning.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a trained prefix")
    parser.add_argument(
        "--format",
        "--to",
        choices=FORMATS,
        default="native",
        help="who is to open it: this project, PEFT, transformers without this project, or "
        "mlx-lm (decoders only)",
    )
    parser.add_argument("--task", help="for the model card: what the prefix is for, in a phrase")
    parser.add_argument(
        "--license",
        help="for the model card: an identifier of the hub (apache-2.0, mit), in line with the "
        "base model's",
    )
    parser.add_argument("--output", type=_folder, help="folder to write, by default inside RUN")
    parser.add_argument(
        "--model_name_or_path",
        help="base model, where the run's own name for it no longer leads there "
        "(read only for prefixes made of embeddings), or what mlx-lm will be given as --model",
    )
    return parser


if __name__ == "__main__":
    run_command(main)
