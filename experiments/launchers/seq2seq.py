"""Tables of ``seq2seq/train_bart.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.launchers.base import DATA, RUN, Launcher, Step, Values, newest
from prefix_tuning.files import read_json_object

FOLDERS = {
    "xsum": "xsum",
    "xsum_news": "xsum_news",
    "xsum_news_sport": "xsum_topic-news-sports",
    "translation": "translation",
}
"""The modes of tables -> folder in ``data/``."""
SCORES = {
    "evaluation.summarization": {"ROUGE-1": "rouge1", "ROUGE-2": "rouge2", "ROUGE-L": "rougeL"},
    "evaluation.translation": {"BLEU": "bleu", "exact": "exact"},
}
"""Scorer -> a table's column -> its name in the scores."""
_SPLITS = {"test": "test", "valid": "val"}


class Seq2seq(Launcher):
    """Training, decoding and scoring are one step."""

    name = "seq2seq/train_bart.py"
    scorers = tuple(SCORES)
    datasets = tuple(FOLDERS)
    main_column = "ROUGE-2"

    def tiny_model(self, flags: Mapping[str, Any]) -> str:
        return "bart"

    def steps(self, job: Mapping[str, Any], model: str | None, data: Path | None) -> list[Step]:
        settings = job["settings"]
        flags = {**settings["flags"], **settings["decoding"]}
        flags |= {"model_name_or_path": model, "data_dir": data}
        flags |= {"n_test": settings["inputs"], "output_dir": Path(job["folder"], RUN)}
        flags["predict_splits"] = ",".join(_SPLITS[split] for split in job["splits"])
        if flags.get("do_train") != "no":
            flags["do_predict"] = True
        return [Step("train", "seq2seq.train_bart", flags)]

    def run(self, step: Step) -> None:
        from seq2seq import train_bart

        train_bart.start(*train_bart.read([], step.flags))

    def data_folder(self, name: str, given: str | None) -> Path | None:
        if given is None:
            return None
        inside = Path(given, FOLDERS[name])
        return inside if inside.is_dir() else Path(given)

    def data_files(self, name: str, folder: Path | None) -> Sequence[Path]:
        return [folder or DATA / FOLDERS[name]]

    def scores(
        self, scorer: str, columns: str, split: str, folder: Path
    ) -> tuple[Values, dict[str, str]]:
        document = read_json_object(self.scored(split, folder))
        front = f"{columns} " if columns else ""
        values: Values = {
            f"{front}{name}": document["scores"][key] for name, key in SCORES[scorer].items()
        }
        undefined = [column for column, value in values.items() if value is None]
        return values, dict.fromkeys(undefined, document.get("note") or "undefined")

    def scored(self, split: str, folder: Path) -> Path:
        return newest(folder / RUN, f"{_SPLITS[split]}_beam_*_eval.json")
