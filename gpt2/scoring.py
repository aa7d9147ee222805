"""The official scores of decoded texts, and the file they are kept in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.report import Scores, format_table
from evaluation.scorers import SCORERS, Texts
from gpt2.readers import Record
from gpt2.records import group_by_source
from gpt2.tasks import TASKS
from prefix_tuning.files import write_json


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


def publish(rows: dict[str, Scores], path: Path) -> None:
    """Print the table and write all digits to ``path``."""
    print(format_table(rows))
    write_json(path, {name: vars(scores) for name, scores in rows.items()})
