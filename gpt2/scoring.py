"""The official scores of decoded texts, and the file they are kept in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import evaluation.classification
import evaluation.dart
import evaluation.e2e
import evaluation.summarization
import evaluation.webnlg
from evaluation.report import Scores, format_table
from gpt2.records import Record, group_by_source
from prefix_tuning.files import write_json


def score_outputs(
    mode: str, records: Sequence[Record], outputs: Sequence[str]
) -> dict[str, Scores]:
    """Score one output per distinct input, as each challenge's script does.

    Args:
        mode: ``data2text`` counts inputs, the other tasks entries of the file.
        records: of the file, not grouped; every one has references.
        outputs: one per record of ``group_by_source(records)``, in that order; of summaries and
            classes one per record.

    Returns:
        the rows of the table.
    """
    if mode in ("xsum", "cnndm"):
        references = [record.targets[0] for record in records]
        return {"ROUGE": evaluation.summarization.score(references, outputs)}
    if mode.startswith("classify-"):
        labels = [record.targets[0].strip() for record in records]
        return {mode: Scores({"accuracy": evaluation.classification.accuracy(labels, outputs)})}
    grouped = group_by_source(records)
    own_data = records[0].relations is None
    if mode == "data2text" or own_data:
        return {"E2E": evaluation.e2e.score([record.targets for record in grouped], outputs)}
    by_input = {(r.source, r.relations): o for r, o in zip(grouped, outputs, strict=True)}
    hypotheses = [by_input[r.source, r.relations] for r in records]
    references = [record.targets for record in records]
    if mode == "webnlg":
        categories = [record.category or "" for record in records]
        return evaluation.webnlg.score(references, hypotheses, categories)
    return {"DART": evaluation.dart.score(references, hypotheses, models=False)}


def publish(rows: dict[str, Scores], path: Path) -> None:
    """Print the table and write all digits to ``path``."""
    print(format_table(rows))
    write_json(path, {name: vars(scores) for name, scores in rows.items()})
