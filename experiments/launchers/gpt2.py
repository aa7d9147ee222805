"""Tables of ``gpt2/train_e2e.py``; data sets and scores are the rows of GPT-2's tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.report import percent
from evaluation.scorers import SCORERS
from experiments.inputs import evenly_spaced, pick_inputs
from experiments.launchers.base import RUN, SPLITS, TEXTS, Launcher, Step, Values, newest
from gpt2.readers import read_e2e
from gpt2.records import group_by_source
from gpt2.tasks import TASKS, read_records
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json, read_json_object, write_json, write_lines


def one_reference(path: Path) -> Path:
    """The file of the evaluation loss beside one that is decoded, as cut down sets have it."""
    other = path.with_name(f"{path.stem}_one_reference{path.suffix}")
    return other if path.suffix == ".txt" else path


def whole(path: Path) -> Path:
    """The file that was cut down to ``path``."""
    return path.with_name(f"whole_{path.name}")


class Gpt2(Launcher):
    """Training and decoding are steps of their own."""

    name = "gpt2/train_e2e.py"
    decodes_apart = True

    @property
    def scorers(self) -> Sequence[str]:
        return [f"evaluation.{name}" for name in SCORERS]

    @property
    def datasets(self) -> Sequence[str]:
        """Tasks that have a test set and a score in tables."""
        return [
            name for name, task in TASKS.items() if task.scorer.columns and "test" in task.files
        ]

    def tiny_model(self, flags: Mapping[str, Any]) -> str:
        return "gpt2"

    def steps(self, job: Mapping[str, Any], model: str | None, data: Path | None) -> list[Step]:
        settings, folder = job["settings"], Path(job["folder"])
        flags, run = dict(settings["flags"]), folder / RUN
        if model:
            flags["model_name_or_path"] = model
        files = self._files(flags["mode"], data) if data else {}
        for split, flag in zip(SPLITS, ("train_file", "eval_file", "test_file"), strict=True):
            if split in files:
                flags[flag] = files[split]
        if data and settings["inputs"] is not None:
            # A low-data run draws its development set from the whole file.
            drawn = job["subset"] is not None
            from_whole = whole(data / TASKS[flags["mode"]].files["valid"].name)
            flags["eval_file"] = from_whole if drawn else one_reference(files["valid"])
        flags |= {"output_dir": run, "generate": "no"}
        result = [Step("train", "gpt2.train_e2e", flags)]
        decoding = {k: v for k, v in settings["decoding"].items() if k != "split"}
        for split in job["splits"]:
            options = {"data_file": files.get(split), "results_dir": folder / TEXTS}
            words = (flags["mode"], "yes", split, str(run), "no")
            result.append(Step(split, "gpt2.gen", decoding | options, words))
        return result

    def run(self, step: Step) -> None:
        from gpt2 import gen, train_e2e

        if step.name == "train":
            train_e2e.start(*train_e2e.read([], step.flags))
        else:
            gen.decode(*gen.read(step.words, step.flags))

    @staticmethod
    def _files(name: str, folder: Path) -> dict[str, Path]:
        """Split -> file of a data set that lies in ``folder``."""
        names = {split: path.name for split, path in TASKS[name].files.items()}
        cut = {split: _as_jsonl(folder / file) for split, file in names.items()}
        return {s: cut[s] if cut[s].is_file() else folder / file for s, file in names.items()}

    def data_folder(self, name: str, given: str | None) -> Path:
        default = TASKS[name].files["train"]
        if given is None:
            return default.parent
        inside = Path(given, default.parent.name)
        return inside if (inside / default.name).is_file() else Path(given)

    def data_files(self, name: str, folder: Path | None) -> Sequence[Path]:
        return [*self._files(name, folder or self.data_folder(name, None)).values()]

    def cut(self, name: str, source: Path, target: Path, count: int) -> None:
        """The training file and the whole of the others are linked to."""
        train, *others = (path.name for path in TASKS[name].files.values())
        for file in (train, *others):
            if not (source / file).is_file():
                raise UserError(f"{source / file} is missing")
        (target / train).symlink_to((source / train).resolve())
        for file in dict.fromkeys(others):
            whole(target / file).symlink_to((source / file).resolve())
            if TASKS[name].read is read_e2e:
                every, first, _ = pick_inputs(source / file, count, target)
                every.replace(target / file)
                first.replace(one_reference(target / file))
            elif Path(file).suffix == ".json":
                write_json(target / file, _cut_entries(source / file, count))
            else:
                _cut_records(name, source / file, _as_jsonl(target / file), count)

    def scores(
        self, scorer: str, columns: str, split: str, folder: Path
    ) -> tuple[Values, dict[str, str]]:
        rows = read_json_object(self.scored(split, folder))
        chosen = SCORERS[scorer.removeprefix("evaluation.")]
        values: Values = {}
        missing = dict(chosen.missing)
        for column, place in chosen.columns.items():
            row = rows.get(place.row)
            if row is None:  # a part of the test set that this split has not
                continue
            value = row["values"].get(place.key)
            values[column] = percent(row, place.key) if place.percent else value
            if value is None:
                missing[column] = row["missing"].get(place.key, "not computed")
        return values, missing

    def scored(self, split: str, folder: Path) -> Path:
        return newest(folder / TEXTS, f"*_{split}_*_eval.json")


def _as_jsonl(path: Path) -> Path:
    """The file for inputs whose own format has no writer here."""
    return path.with_name(f"{path.name}.jsonl")


def _cut_records(name: str, source: Path, target: Path, count: int) -> None:
    grouped = group_by_source(read_records(name, source, training=True))
    picked = evenly_spaced(grouped, count)
    write_lines(target, [json.dumps({"source": r.source, "targets": r.targets}) for r in picked])


def _cut_entries(path: Path, count: int) -> list[Any] | dict[str, list[Any]]:
    """Evenly spaced entries of DART, a list, or of WebNLG, which has their numbers as keys."""
    document = read_json(path)
    entries = document.get("entries") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        raise UserError(f"{path}: expected a list of entries")
    picked = evenly_spaced(entries, count)
    if isinstance(document, list):
        return picked
    if not all(isinstance(entry, dict) and entry for entry in picked):
        raise UserError(f"{path}: expected entries with their numbers as keys")
    return {"entries": [{str(i): next(iter(e.values()))} for i, e in enumerate(picked, 1)]}
