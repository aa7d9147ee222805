"""Runs that are published, one JSON file each: ``results/published/<table>/<run>.json``.

``results/published/README.md`` describes the format. Tables are made of these files beside a
person's own runs, so that the runs of different people join.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments import scales
from experiments.launchers.base import ROOT
from experiments.pool import Job
from experiments.results import check_published, read_result
from experiments.spec import UNSAFE, Experiment, run_name
from harness.manifest import digest
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, read_text, write_json

FOLDER = "published"
"""In the folder of results."""
SCORERS = ("pycocoevalcap", "sacrebleu", "rouge-score", "scikit-learn", "seqeval")
LARGEST_OUTPUTS = 40_000
"""Characters of outputs that are published with a run."""
_LOCAL = ("model", "data")
"""Settings that may be places on one machine; the run's ``model`` and hashes stand for them."""


def provenance(run: Path) -> dict[str, Any]:
    """What made the numbers of a run, in words and digests that mean something elsewhere.

    Args:
        run: the folder of its training.
    """
    settings = run / "run_settings.json"
    data = read_json_object(settings).get("data_sha256", {}) if settings.is_file() else {}
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "commit": _commit(),
        "data_sha256": {name: found for name, found in data.items() if found},
        "scorer_sha256": scorer_hash(),
        "scorer_versions": dict(_versions()),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8", "replace").splitlines() if path.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of this checkout, ``-dirty`` where files are changed; ``unknown`` without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def scorer_hash() -> str:
    """A digest of all that scores: the modules of ``evaluation``."""
    files = sorted((ROOT / "evaluation").glob("*.py"))
    return hashlib.sha256("".join(f"{p.name} {digest(p)}\n" for p in files).encode()).hexdigest()


def _versions() -> Iterator[tuple[str, str]]:
    for name in SCORERS:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def publish(job: Job, results: Path) -> Path:
    """Write a finished run for others; return the file.

    Raises:
        UserError: an older version made the run, or it names a path of this machine.
    """
    run, result = job.run, read_result(job.result)
    if "commit" not in result:
        raise UserError(
            f"{job.result} does not say what made it, as an older version wrote it: remove it and "
            "the folder beside it, and reproduce.sh makes it again"
        )
    settings = {k: v for k, v in result["settings"].items() if k not in _LOCAL}
    document = {**result, "command": job.command, "settings": settings}
    texts = {split: _texts(job, split) for split in result["scores"]}
    outputs = {split: lines for split, lines in texts.items() if lines is not None}
    if outputs and sum(len(t) for lines in outputs.values() for t in lines) <= LARGEST_OUTPUTS:
        document["outputs"] = outputs
    name = f"{run.scale.name}_{UNSAFE.sub('_', run.row.name)}_{run.name}.json"
    path = results / FOLDER / run.experiment.name / name
    check_published(path, document)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, document)
    return path


def _texts(job: Job, split: str) -> list[str] | None:
    if not job.folder.is_dir():
        return None
    path = job.run.experiment.launcher.outputs(split, job.folder)
    return None if path is None else read_text(path).removesuffix("\n").split("\n")


def read(experiment: Experiment, scale: str, results: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Row -> name of a run -> what was published, of a scale.

    Raises:
        UserError: a file is not of the format, of no row of the table, or of a run that has one.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {row.name: {} for row in experiment.rows}
    known, files = scales.read(), dict[tuple[str, str, str], Path]()
    for path in sorted((results / FOLDER / experiment.name).glob("*.json")):
        run = check_published(path, read_json_object(path))
        if run["table"] != experiment.name:
            raise UserError(
                f"{path}, field table: {run['table']} has another folder: move it there"
            )
        if run["row"] not in found:
            raise UserError(f"{path}, field row: {experiment.name}.yaml has no row {run['row']}")
        if run["scale"] not in known:
            raise UserError(f"{path}, field scale: there are {', '.join(known)}")
        name = run_name(run["seed"], run["subset"], run["level"])
        if (key := (run["scale"], run["row"], name)) in files:
            raise UserError(f"{path} is the same run as {files[key].name}: keep one of them")
        files[key] = path
        if run["scale"] == scale:
            found[run["row"]][name] = run
    return found


def compared(run: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same of runs whose mean is taken: all settings but seed and subset."""
    settings = run["settings"]
    flags = {k: v for k, v in settings["flags"].items() if k not in ("seed", "notes")}
    return {
        "model": run.get("model"),
        "inputs": settings.get("inputs"),
        **{f"decoding {k}": v for k, v in settings.get("decoding", {}).items()},
        **flags,
    }


def join(
    own: dict[str, dict[str, Any]], others: dict[str, dict[str, Any]]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The runs of a row whose mean may be taken, by name, and what to say about the published ones.

    A run that is both one's own and published counts once. All have the settings of the first, a
    person's own before published ones.
    """
    joined, kept, apart = dict(own), 0, []
    for name, run in others.items():
        first = compared(next(iter(joined.values()), run))
        mine = compared(run)
        if name in own:
            continue
        if differing := sorted(k for k in first.keys() | mine if first.get(k) != mine.get(k)):
            key = differing[0]
            apart.append(f"{name} ({key} {mine.get(key)}, not {first.get(key)})")
        else:
            joined[name] = run
            kept += 1
    notes = [f"{kept} of {len(joined)} runs are published ones"] if kept else []
    if apart:
        notes.append(f"published with other settings, not counted: {', '.join(apart)}")
    return joined, notes
