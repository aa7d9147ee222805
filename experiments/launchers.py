"""What the launchers have in common for a table: their command lines, inputs, and scores.

A run is a list of steps, each the ``main(argv)`` of a module; what a launcher leaves behind is read
into the columns, and in the units, of the paper's table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefix_tuning.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
Values = dict[str, float | None]

JOB, STEPS = "job.json", "steps.json"
"""In the folder of a run: what is to be done, and the seconds of the steps that are done."""
MODELS = ("tiny", "quickstart", "minilm")
"""What ``model`` of a scale may name instead of a model: it is made or found first."""
FILES = {
    "data2text": ("e2e_data", "src1_train.txt", "src1_valid.txt", "src1_test.txt"),
    "webnlg": ("webnlg_challenge_2017", "train.json", "dev.json", "test.json"),
    "triples": (
        "dart",
        "dart-v1.1.1-full-train.json",
        "dart-v1.1.1-full-dev.json",
        "dart-v1.1.1-full-test.json",
    ),
}
"""GPT-2's modes -> folder in ``data/``, and files of training, development and test set."""
SPLITS = ("train", "valid", "test")
SUMMARIES = {"xsum": "xsum", "xsum_news": "xsum_news", "xsum_news_sport": "xsum_topic-news-sports"}
"""BART's modes -> folder in ``data/``."""
_BART_SPLITS = {"test": "test", "valid": "val"}


@dataclass(frozen=True)
class Step:
    """``module.main(argv)``."""

    name: str
    module: str
    argv: list[str]


def check_dataset(where: str, launcher: str, flags: dict[str, Any]) -> None:
    """Raise a :class:`UserError` that begins with ``where`` if flags name no data set."""
    known = {"gpt2/train_e2e.py": FILES, "seq2seq/train_bart.py": SUMMARIES}.get(launcher)
    name = flags.get("dataset_name" if known is None else "mode")
    if name is None or (known is not None and name not in known):
        choices = "dataset_name" if known is None else f"mode, one of {', '.join(known)}"
        raise UserError(f"{where}: give the flag {choices}")


def dataset(flags: dict[str, Any]) -> str:
    """``--mode`` or ``--dataset_name``, by which data sets are told apart."""
    return flags.get("mode") or flags["dataset_name"]


def base_family(launcher: str, flags: dict[str, Any]) -> str:
    """The kind of tiny model that stands for the base model."""
    if launcher == "gpt2/train_e2e.py":
        return "gpt2"
    if launcher == "seq2seq/train_bart.py":
        return "bart"
    return "roberta" if "roberta" in flags["model_name_or_path"] else "bert"


def _arguments(flags: dict[str, Any]) -> list[str]:
    """``--name=value``; a truth value becomes a bare flag or none."""
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in flags.items()
        if value is not False and value is not None
    ]


def steps(job: dict[str, Any], model: str | None, data: Path | None) -> list[Step]:
    """The steps of a run.

    Args:
        job: what ``reproduce.py`` wrote: ``launcher``, ``splits``, ``folder`` and the settings.
        model: for ``--model_name_or_path``, None for the launcher's own.
        data: folder of the data, None for where the launcher looks.
    """
    return _STEPS[job["launcher"]](job, model, data)


def _gpt2(job: dict[str, Any], model: str | None, data: Path | None) -> list[Step]:
    flags, run = dict(job["settings"]["flags"]), Path(job["folder"], "run")
    if model:
        flags["model_name_or_path"] = model
    files = {}
    if data:
        files = dict(zip(SPLITS, (data / name for name in FILES[flags["mode"]][1:]), strict=True))
        for split, flag in zip(SPLITS, ("train_file", "eval_file", "test_file"), strict=True):
            flags[flag] = files[split]
        if job["settings"]["inputs"] is not None:
            # A low-data run draws its development set from the whole file.
            beside = one_reference if job["subset"] is None else whole
            flags["eval_file"] = beside(files["valid"])
    flags |= {"output_dir": run, "generate": "no"}
    decoding = {k: v for k, v in job["settings"]["decoding"].items() if k != "split"}
    result = [Step("train", "gpt2.train_e2e", _arguments(flags))]
    for split in job["splits"]:
        argv = [flags["mode"], "yes", split, str(run), "no"]
        options = {**decoding, "data_file": files.get(split)}
        options["results_dir"] = Path(job["folder"], "texts")
        result.append(Step(split, "gpt2.gen", [*argv, *_arguments(options)]))
    return result


def one_reference(path: Path) -> Path:
    """The file of the evaluation loss beside one that is decoded, as cut down sets have it."""
    other = path.with_name(f"{path.stem}_one_reference{path.suffix}")
    return other if path.suffix == ".txt" else path


def whole(path: Path) -> Path:
    """The file that was cut down to ``path``."""
    return path.with_name(f"whole_{path.name}")


def _seq2seq(job: dict[str, Any], model: str | None, data: Path | None) -> list[Step]:
    settings = job["settings"]
    flags = {**settings["flags"], **settings["decoding"]}
    flags |= {"model_name_or_path": model, "data_dir": data}
    flags |= {"n_test": settings["inputs"], "output_dir": Path(job["folder"], "run")}
    flags["predict_splits"] = ",".join(_BART_SPLITS[split] for split in job["splits"])
    if flags.get("do_train") != "no":
        flags["do_predict"] = True
    return [Step("train", "seq2seq.train_bart", _arguments(flags))]


def _ptuning(job: dict[str, Any], model: str | None, data: Path | None) -> list[Step]:
    flags, inputs = dict(job["settings"]["flags"]), job["settings"]["inputs"]
    if model:
        flags["model_name_or_path"] = model
    flags |= {"max_eval_samples": inputs, "max_predict_samples": inputs, "data_dir": data}
    flags |= {"do_train": True, "do_eval": True, "eval_strategy": "epoch"}
    flags["output_dir"] = Path(job["folder"], "run")
    return [Step("train", "ptuning_v2.run", _arguments(flags))]


_STEPS = {
    "gpt2/train_e2e.py": _gpt2,
    "seq2seq/train_bart.py": _seq2seq,
    "ptuning_v2/run.py": _ptuning,
}


# --- data -------------------------------------------------------------------------------------


def data_folder(launcher: str, name: str, given: str | None) -> Path | None:
    """The folder of a data set: ``given`` or one in it, or where ``download_data.sh`` puts it.

    None where the launcher knows by itself.
    """
    if launcher == "gpt2/train_e2e.py":
        folder, *files = FILES[name]
        if given is None:
            return ROOT / "data" / folder
        base = Path(given)
        return base / folder if (base / folder / files[0]).is_file() else base
    if given is not None:
        inside = Path(given, SUMMARIES.get(name, ""))
        return inside if inside.is_dir() else Path(given)
    if launcher == "ptuning_v2/run.py" and name in ("boolq", "copa", "rte", "wic", "wsc"):
        folder = ROOT / "data" / "superglue"
        return folder if folder.is_dir() else None
    if name in ("squad", "squad_v2") and (ROOT / "data" / name).is_dir():
        return ROOT / "data"
    return None


def missing_data(job: dict[str, Any]) -> str | None:
    """Why a run cannot start for want of data, where that can be seen without reading it.

    What a model hub may have (``ptuning_v2``) is left to the launcher.
    """
    launcher, given = job["launcher"], job["settings"]["data"]
    if given == "toy" or launcher == "ptuning_v2/run.py":
        return None
    name = dataset(job["settings"]["flags"])
    folder = data_folder(launcher, name, given) or ROOT / "data" / SUMMARIES[name]
    files = [folder / file for file in FILES[name][1:]] if name in FILES else [folder]
    absent = next((path for path in files if not path.exists()), None)
    return absent and f"{absent} is missing: see ./scripts/download_data.sh, or use --data_dir"


def cut(mode: str, source: Path, target: Path, count: int) -> None:
    """Write GPT-2's data of a mode with ``count`` evenly spaced inputs to develop and to test.

    The training file and the whole of the others are linked to.

    Raises:
        UserError: a file is missing or malformed.
    """
    from experiments.inputs import evenly_spaced, pick_inputs

    train, *others = FILES[mode][1:]
    for name in (train, *others):
        if not (source / name).is_file():
            raise UserError(f"{source / name} is missing")
    (target / train).symlink_to((source / train).resolve())
    for name in others:
        whole(target / name).symlink_to((source / name).resolve())
        if mode == "data2text":
            every, first, _ = pick_inputs(source / name, count, target)
            every.replace(target / name)
            first.replace(one_reference(target / name))
            continue
        document = json.loads((source / name).read_text(encoding="utf-8"))
        entries = document["entries"] if mode == "webnlg" else document
        picked = evenly_spaced(entries, count)
        if mode == "webnlg":  # an entry's key is its number in the file
            picked = [{str(i): next(iter(e.values()))} for i, e in enumerate(picked, 1)]
        content = {"entries": picked} if mode == "webnlg" else picked
        (target / name).write_text(json.dumps(content), encoding="utf-8")


# --- scores -----------------------------------------------------------------------------------

E2E = {"BLEU": ("BLEU -p", 100), "NIST": ("NIST -p", 1), "METEOR": ("METEOR", 100)}
E2E |= {"ROUGE-L": ("ROUGE_L", 100), "CIDEr": ("CIDEr", 1)}
TRIPLES = ("BLEU", "METEOR", "TER")
ROUGE = {"ROUGE-1": "rouge1", "ROUGE-2": "rouge2", "ROUGE-L": "rougeL"}
NEEDS_MODEL = "needs a model of its own: python -m evaluation.dart scores the decoded texts"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _newest(folder: Path, pattern: str) -> Path:
    found = sorted(folder.rglob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"{folder} holds no {pattern}: the launcher left no scores")
    return found[-1]


def read_scores(
    scorer: str, columns: str, split: str, folder: Path
) -> tuple[Values, dict[str, str]]:
    """The scores of a finished run by the table's columns, and why some are missing.

    Args:
        scorer: the experiment's.
        columns: what the row's columns begin with, where a table has several data sets.
        split: ``test`` or ``valid``.
        folder: of the run.
    """
    if scorer in ("evaluation.e2e", "evaluation.webnlg", "evaluation.dart"):
        return _table_to_text(scorer, _read(_newest(folder / "texts", f"*_{split}_*_eval.json")))
    if scorer == "evaluation.summarization":
        pattern = f"{_BART_SPLITS[split]}_beam_*_eval.json"
        scores = _read(_newest(folder / "run", pattern))["scores"]
        front = f"{columns} " if columns else ""
        return {f"{front}{name}": scores[key] for name, key in ROUGE.items()}, {}
    return _understanding(scorer, columns, _read(folder / "run" / "best_results.json"))


def _table_to_text(scorer: str, rows: dict[str, Any]) -> tuple[Values, dict[str, str]]:
    values: Values = {}
    missing: dict[str, str] = {}

    def take(column: str, row: dict[str, Any], key: str, factor: float = 1) -> None:
        value = row["values"].get(key)
        values[column] = None if value is None else factor * value
        if value is None:
            missing[column] = row["missing"].get(key, "not computed")

    if "E2E" in rows:
        for column, (key, factor) in E2E.items():
            take(column, rows["E2E"], key, factor)
    elif scorer == "evaluation.dart":
        for column in TRIPLES:
            take(column, rows["DART"], column)
        missing |= dict.fromkeys(("MoverScore", "BERTScore", "BLEURT"), NEEDS_MODEL)
    else:
        for letter, part in (("S", "Seen"), ("U", "Unseen"), ("A", "All")):
            for column in TRIPLES if part in rows else ():
                take(f"{column} {letter}", rows[part], column)
        for column in TRIPLES:  # a development set has one column for all
            take(column, rows["All"], column)
    return values, missing


def _understanding(
    scorer: str, columns: str, best: dict[str, float]
) -> tuple[Values, dict[str, str]]:
    parts = {"best_test_f1": (columns, 100), "best_test_wsj_f1": (f"{columns} WSJ", 100)}
    parts["best_test_brown_f1"] = (f"{columns} Brown", 100)
    if scorer == "evaluation.classification":
        parts = {"best_eval_accuracy": (columns, 100)}
    if scorer == "evaluation.qa":
        parts = {
            "best_eval_exact_match": (f"{columns} EM", 1),
            "best_eval_f1": (f"{columns} F1", 1),
        }
    values: Values = {c: factor * best[key] for key, (c, factor) in parts.items() if key in best}
    # The trainer notes the other scores of an epoch that is better than all before, and than 0.
    return values, {"": "no epoch scored above 0 on the evaluation set"}


def parameters(log: str) -> dict[str, int]:
    """What the launchers print about sizes: ``base``, ``trained`` and perhaps ``stored``."""
    names = {"base": "base model", "trained": "trained parameters", "stored": "stored parameters"}
    found = {key: re.findall(rf"^{name} +([\d,]+)", log, re.M) for key, name in names.items()}
    return {key: int(values[-1].replace(",", "")) for key, values in found.items() if values}


def training_state(run: Path) -> Sequence[Path]:
    """What ``--keep_checkpoints no`` deletes: all weights but those of exports."""
    suffixes = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
    return [
        path
        for path in run.rglob("*")
        if path.suffix in suffixes and "export" not in path.parent.name and path.is_file()
    ]
