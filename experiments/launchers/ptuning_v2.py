"""Tables of ``ptuning_v2/run.py``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.launchers.base import DATA, RUN, Launcher, Step, Values
from prefix_tuning.files import read_json_object

SCORES = {
    "evaluation.classification": {
        "best_eval_accuracy": ("", 1),
        "best_eval_matthews_correlation": ("", 1),
    },
    "evaluation.qa": {"best_eval_exact_match": (" EM", 100), "best_eval_f1": (" F1", 100)},
    "evaluation.tagging": {
        "best_test_f1": ("", 1),
        "best_test_wsj_f1": (" WSJ", 1),
        "best_test_brown_f1": (" Brown", 1),
    },
}
"""Scorer -> score of the best epoch -> what follows the data set's name in the column, and the
faultless score, which files of before the field ``full`` do not tell."""
_GLUE = ("cola", "sst2")
_SUPERGLUE = ("boolq", "copa", "rte", "wic", "wsc")
_SQUAD = ("squad", "squad_v2")


class PtuningV2(Launcher):
    """Training and scoring are one step; nothing is decoded."""

    name = "ptuning_v2/run.py"
    scorers = tuple(SCORES)
    dataset_flag = "dataset_name"
    has_switches = True
    batch_flag, epoch_flag = "per_device_train_batch_size", "num_train_epochs"

    def tiny_model(self, flags: Mapping[str, Any]) -> str:
        return "roberta" if "roberta" in flags["model_name_or_path"] else "bert"

    def steps(self, job: Mapping[str, Any], model: str | None, data: Path | None) -> list[Step]:
        flags, inputs = dict(job["settings"]["flags"]), job["settings"]["inputs"]
        if model:
            flags["model_name_or_path"] = model
        flags |= {"max_eval_samples": inputs, "max_predict_samples": inputs, "data_dir": data}
        flags |= {"do_train": True, "do_eval": True, "eval_strategy": "epoch"}
        flags["output_dir"] = Path(job["folder"], RUN)
        return [Step("train", "ptuning_v2.run", flags)]

    def run(self, step: Step) -> None:
        from ptuning_v2 import arguments, run

        run.run(arguments.get_args([], step.flags))

    def data_folder(self, name: str, given: str | None) -> Path | None:
        if given is not None:
            return Path(given)
        if name in _GLUE and (DATA / "glue").is_dir():
            return DATA / "glue"
        if name in _SUPERGLUE and (DATA / "superglue").is_dir():
            return DATA / "superglue"
        return DATA if name in _SQUAD and (DATA / name).is_dir() else None

    def scores(
        self, scorer: str, columns: str, split: str, folder: Path
    ) -> tuple[Values, dict[str, str]]:
        best, known = read_json_object(folder / RUN / "best_results.json"), SCORES[scorer]
        if split == "valid":
            known = {key.replace("best_test", "best_eval"): at for key, at in known.items()}
        values: Values = {
            f"{columns}{rest}": None
            if best[key] is None
            else 100 / best.get("full", full) * best[key]
            for key, (rest, full) in known.items()
            if key in best
        }
        undefined = [column for column, value in values.items() if value is None]
        # The trainer notes the other scores of an epoch that is better than all before, and than 0.
        missing = {"": "no epoch scored above 0 on the evaluation set"}
        return values, missing | dict.fromkeys(undefined, "undefined on the evaluation set")
