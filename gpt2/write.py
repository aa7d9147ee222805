"""``gen.py RUN``: texts for prompts of one's own, shown at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2.decode_request import DecodeOptions, DecodeRequest
from gpt2.readers import Record
from gpt2.tasks import TASKS
from harness.flags import exclude, flag, required
from prefix_tuning.errors import UserError
from prefix_tuning.files import numbered_lines

if TYPE_CHECKING:
    from gpt2.generator import TextGenerator


@dataclass(frozen=True)
class WriteArguments:
    """What is written."""

    run: str = required("folder of a run, or of an export", positional=True)
    prompt: tuple[str, ...] | None = flag(None, "one input or more")
    prompts: str | None = flag(None, "file of inputs, one a line")
    interactive: bool = flag(False, "ask for one input after the other")
    model_name_or_path: str | None = flag(None, "base model, if not the one recorded")

    def __post_init__(self) -> None:
        if not Path(self.run).is_dir():
            raise UserError(f"RUN {self.run}: there is no such folder")
        exclude(prompt=self.prompt, prompts=self.prompts, interactive=self.interactive)
        if not (self.prompt or self.prompts or self.interactive):
            raise UserError(
                f'{self.run}: what to write? add --prompt "...", --prompts FILE or --interactive; '
                "a data file is decoded by gen.py MODE CONTROL SPLIT CHECKPOINT"
            )


def inputs(args: WriteArguments) -> Iterator[tuple[str, str]]:
    """Inputs and where they come from; interactive ones until the end of the standard input."""
    if args.prompt:
        yield from ((text, f"--prompt {i}") for i, text in enumerate(args.prompt, start=1))
    elif args.prompts:
        yield from ((t, where) for t, where in numbered_lines(Path(args.prompts)) if t.strip())
    else:
        print("an empty line or Ctrl-D ends this", flush=True)
        while True:
            print("> ", end="", flush=True)
            line = sys.stdin.readline().strip()
            if not line:
                return
            yield line, "the standard input"


def write(args: WriteArguments, options: DecodeOptions) -> None:
    """Write a text for every input.

    Raises:
        UserError: the folder holds nothing that writes texts, or an input is too long.
    """
    from gpt2.generator import TextGenerator
    from gpt2.tuning import folders

    for name in ("data_file", "source_column", "target_column", "limit"):
        if getattr(options, name) is not None:
            raise UserError(
                f"--{name}: a data file is decoded by gen.py MODE CONTROL SPLIT CHECKPOINT, "
                "without --prompt, --prompts and --interactive"
            )
    found = folders.describe_run(args.run, "RUN")
    mode = found.task.get("task_mode", "data2text")
    if mode not in TASKS:
        raise UserError(f"RUN {args.run}: trained for {mode}; only {', '.join(TASKS)} so far")
    base, part = folders.models(found, args.model_name_or_path, options.cache_dir)
    asked = {**vars(options), "data_file": args.run}
    request = DecodeRequest(
        **asked, task_mode=mode, model_name_or_path=base, prefixModel_name_or_path=part
    )
    generator = TextGenerator.load(request)
    if args.interactive:
        for text, where in inputs(args):
            _show(generator, request, [(text, where)])
    else:
        _show(generator, request, list(inputs(args)))


def _show(generator: TextGenerator, request: DecodeRequest, prompts: list[tuple[str, str]]) -> None:
    is_chat = generator.trained_task.get("chat", False)
    records = [
        Record(text, (), where, chat=(("user", text),) if is_chat else ())
        for text, where in prompts
    ]
    texts = dict(generator.texts(request, generator.prompts(request, records)))
    per_record = max(1, request.how().n_sample)
    for i, (prompt, _) in enumerate(prompts):
        if len(prompts) > 1:
            print(f"{prompt}\n  ", end="")
        numbers = range(i * per_record, (i + 1) * per_record)
        print("\n  ".join(texts[number] for number in numbers), flush=True)
