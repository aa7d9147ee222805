"""Decode a run: ``gen.py MODE CONTROL SPLIT CHECKPOINT SUBMIT`` as in the original.

What the original guesses from the checkpoint's path (prefix or fine-tuned, base model, prefix
length) is read from the checkpoint itself. ``gen.py RUN --prompt TEXT`` (or ``--prompts FILE``,
``--interactive``) writes texts for inputs of one's own. Further flags are those of
``run_generation.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpt2 import run_generation
from gpt2.decode_request import DecodeOptions, DecodeRequest
from gpt2.tasks import TASKS
from gpt2.write import WriteArguments, write
from harness.flags import Parser, flag, required
from prefix_tuning.errors import UserError, run_command

LONG = """\
Decode a run, of any tuning mode; or write texts for inputs of one's own.

    python gpt2/gen.py data2text yes valid runs/my-run no
    python gpt2/gen.py runs/my-run --prompt "name : The Mill | Type : pub"

Instead of --prompt: --prompts FILE, or --interactive.
"""
SHORT = """\
Write texts for inputs of one's own with a run.

    python gpt2/gen.py runs/my-run --prompt "name : The Mill | Type : pub"
"""


@dataclass(frozen=True)
class GenArguments:
    """What is decoded."""

    mode: str = required(f"task: {', '.join(TASKS)}", positional=True)
    control: str = required("accepted without effect", positional=True, choices=("yes", "no"))
    split: str = required("split of the data", positional=True, choices=("train", "valid", "test"))
    checkpoint: str = required(
        "folder of a run, of any tuning mode, or of prefixes that the records of --data_file name",
        positional=True,
    )
    submit: str = flag("no", "no, or print to only show the command", positional=True)
    model_name_or_path: str | None = flag(None, "base model, if not the one recorded")
    results_dir: str = flag(".", "where the result folder is made")

    def __post_init__(self) -> None:
        if self.mode not in TASKS:
            raise UserError(f"MODE {self.mode}: only {', '.join(TASKS)} so far")
        if not Path(self.checkpoint).is_dir():
            raise UserError(f"CHECKPOINT {self.checkpoint}: there is no such folder")
        if self.submit == "yes":
            raise UserError("SUBMIT yes: the original's cluster is not supported; use no or print")


def request_of(args: GenArguments, options: DecodeOptions) -> DecodeRequest:
    """What is to be decoded, after looking into the folder.

    Raises:
        UserError: the folder holds nothing that writes texts.
    """
    from gpt2.tuning import folders
    from harness.banked import base_of
    from prefix_tuning.hub import at_hand

    folder, named, bank = Path(args.checkpoint), args.model_name_or_path, None
    found = folders.describe(folder)
    of_bank = base_of(folder) if found.kind == "nothing" else None
    if of_bank is not None:
        bank, part = args.checkpoint, None
        base = named or at_hand(of_bank, folder, options.cache_dir)
    else:
        found = folders.describe_run(args.checkpoint, "CHECKPOINT")
        base, part = folders.models(found, named, options.cache_dir)
    return DecodeRequest(
        **vars(options),
        task_mode=args.mode,
        eval_dataset=args.split,
        gen_dir=str(Path(args.results_dir) / TASKS[args.mode].results),
        model_name_or_path=base,
        prefixModel_name_or_path=part,
        prefix_bank=bank,
    )


def command(request: DecodeRequest) -> list[str]:
    """The arguments of ``run_generation.py``: those that are not its defaults."""
    defaults = vars(DecodeRequest(model_name_or_path=""))
    given = {k: v for k, v in vars(request).items() if v != defaults[k]}
    given |= {k: getattr(request, k) for k in ("task_mode", "eval_dataset", "gen_dir")}
    line = []
    for name, value in given.items():
        line += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return line


def is_short(words: Sequence[str]) -> bool:
    """Whether a command line is ``RUN --prompt ...`` and not the original's."""
    names = {word.split("=")[0] for word in words}
    if names & {"--prompt", "--prompts", "--interactive"}:
        return True
    return bool(words) and words[0] not in TASKS and Path(words[0]).is_dir()


def read(
    argv: Sequence[str] | None, given: Mapping[str, Any] | None = None
) -> tuple[GenArguments, DecodeOptions]:
    """What ``argv`` says of a split to decode.

    Args:
        given: values of flags that ``argv`` may replace, by name.

    Raises:
        UserError: it cannot be decoded, or there is no such flag.
    """
    args, options = Parser(GenArguments, DecodeOptions, description=LONG, given=given).read(argv)
    return args, options


def decode(args: GenArguments, options: DecodeOptions) -> None:
    """Decode a split with what a folder holds, or only show the command.

    Raises:
        UserError: the folder holds nothing that writes texts, or data or model are not as needed.
    """
    request = request_of(args, options)
    if args.submit == "print":
        print("run_generation.py", *command(request))
        return
    run_generation.decode(request)


def main(argv: Sequence[str] | None = None) -> None:
    """Decode what ``argv`` names."""
    words = list(sys.argv[1:] if argv is None else argv)
    if is_short(words):
        parser = Parser(WriteArguments, DecodeOptions, description=SHORT)
        write(*parser.read(words))
        return
    decode(*read(argv))


if __name__ == "__main__":
    run_command(main)
