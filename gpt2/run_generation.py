"""Decode a data file with a trained prefix or a baseline.

Writes ``<name>_<split>_beam`` (one output a line; ``_greedy`` or ``_nucleus`` where the task is
searched so), ``<name>_<split>_gold`` (the references of each input, a blank line between inputs)
and ``<name>_<split>_src`` (the prompts) into ``--gen_dir``, in the order of the input file. Prompts
are decoded in batches of about one length; a batch gives the texts its prompts give alone. A decode
that was stopped goes on where it was. Texts that other weights, data or another search made are not
overwritten: the new ones go to ``<name>-2_<split>_beam``, unless ``--overwrite_results`` is given.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # started as a file: the project's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evaluation.report import Scores, format_table
from evaluation.scorers import SCORERS, Texts
from gpt2.decode_request import DecodeRequest
from gpt2.readers import Record
from gpt2.records import group_by_source, one_line
from gpt2.tasks import TASKS, Task, read_records
from harness import flags
from harness.decode import claim, decode_resumably, publish
from harness.lock import locked
from prefix_tuning.errors import run_command
from prefix_tuning.files import write_json, write_text

if TYPE_CHECKING:
    from gpt2.generator import TextGenerator


HELP = """\
Decode a data file with a trained prefix or model.

    python gpt2/run_generation.py --model_name_or_path gpt2-medium --prefixModel_name_or_path run
"""


def decode(request: DecodeRequest, generator: TextGenerator | None = None) -> None:
    """Decode a file, write the texts and score them.

    Args:
        generator: what decodes, if it is loaded already.

    Raises:
        UserError: a file, a line or a model is not what the request needs.
    """
    from transformers.utils import logging as library_logging

    library_logging.set_verbosity_error()
    entries = read_records(
        request.task_mode,
        request.data,
        training=False,
        skip_empty=request.empty_sources == "skip",
        columns=request.columns,
        split=request.eval_dataset,
    )
    by_prefix = request.prefix_bank is not None
    grouped = group_by_source(entries, by_prefix) if request.task.grouped else entries
    records = grouped[: request.limit]
    if generator is None:
        generator = _load(request)
    search = request.how()
    stem = Path(request.gen_dir) / f"{request.folder.name}_{request.eval_dataset}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    prompts = generator.prompts(request, records)
    identity = generator.identity(request, records, prompts)
    owner, starts = identity.owner(), generator.starts(request, records)
    n_text = len(records) * max(1, search.n_sample)
    run = partial(generator.texts, request, prompts)
    with locked(stem.parent, stem.name):
        stem = claim(stem, search.name, owner, request.overwrite_results)
        unfinished = stem.with_name(f"{stem.name}_{search.name}.partial")
        texts = decode_resumably(unfinished, identity.settings(), n_text, run)
        publish(stem.with_name(f"{stem.name}_{search.name}"), owner)
        output = write_results(stem, search.name, request.task, records, starts, texts)
        unfinished.unlink()
    print(f"{len(texts)} texts in {output}")
    show_some(records, texts, search.n_sample)
    if request.no_score or search.n_sample:
        return
    bare = [record for record in records if not record.targets]
    if bare:
        print(
            f"not scored: some inputs have no references ({len(bare)} of {len(records)}, the first "
            f"is {bare[0].where})"
        )
        return
    scores = score_outputs(request.task_mode, entries, texts, records)
    print(format_table(scores))
    rows = {name: vars(row) for name, row in scores.items()}
    write_json(output.with_name(output.name + "_eval.json"), rows)


def _load(request: DecodeRequest) -> TextGenerator:
    if request.prefix_bank is not None:
        from gpt2.bank_generator import BankGenerator

        return BankGenerator.load(request)
    from gpt2.generator import TextGenerator

    return TextGenerator.load(request)


def score_outputs(
    mode: str,
    entries: Sequence[Record],
    outputs: Sequence[str],
    records: Sequence[Record] | None = None,
) -> dict[str, Scores]:
    """Score texts as each challenge's script does, by the scorer of the task.

    Args:
        entries: of the file, not grouped; every one that was decoded has references.
        outputs: one per record of ``records``.
        records: what was decoded; all of ``entries``, grouped where the task groups them, if not
            given.

    Returns:
        the rows of the table.
    """
    task = TASKS[mode]
    if records is None:
        records = group_by_source(entries) if task.grouped else entries
    scorer = task.scorer
    if scorer.per_entry and records[0].relations is None:  # one's own data, which has no triples
        scorer = SCORERS["e2e"]
    if scorer.per_entry:
        output_of = {(r.source, r.relations): o for r, o in zip(records, outputs, strict=True)}
        records = [entry for entry in entries if (entry.source, entry.relations) in output_of]
        outputs = [output_of[entry.source, entry.relations] for entry in records]
    references = [record.targets for record in records]
    categories = [record.category or "" for record in records]
    return scorer.score(Texts(outputs, references, mode, categories))


def show_some(records: Sequence[Record], texts: Sequence[str], n_sample: int) -> None:
    """Show what became of the first three inputs, shortened to a line each."""
    for record, text in zip(records[:3], texts[:: max(1, n_sample)], strict=False):
        print(f"  {shorten(record.source, 60)} -> {shorten(text, 110)}")


def shorten(text: str, most: int) -> str:
    """``text`` on one line, cut to ``most`` characters."""
    text = one_line(text).strip()
    return text if len(text) <= most else text[: most - 3] + "..."


def write_results(
    stem: Path,
    suffix: str,
    task: Task,
    records: Sequence[Record],
    prompts: Sequence[str],
    texts: Sequence[str],
) -> Path:
    """Write the original's three files (two for summaries); return the path of the outputs."""
    # A blank line ends the references of an input that may have several.
    end = "\n" if task.grouped else ""
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
    if not task.keeps_sources:
        del contents["src"]
    for name, content in contents.items():
        write_text(stem.with_name(f"{stem.name}_{name}"), content)
    return stem.with_name(f"{stem.name}_{suffix}")


def main(argv: Sequence[str] | None = None) -> None:
    """Decode as ``argv`` says."""
    decode(flags.parse(DecodeRequest, argv, HELP))


if __name__ == "__main__":
    run_command(main)
