"""One run of a table: started by ``reproduce.py``, in a process of its own.

    python experiments/worker.py FOLDER

reads ``FOLDER/job.json``, does what is not done yet, and writes the result beside the folder.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.launchers import LAUNCHERS
from experiments.launchers.base import JOB, RUN, STEPS, parameters, training_state
from experiments.published import provenance
from prefix_tuning.errors import UserError, run_command
from prefix_tuning.files import read_json_object, write_json

NAMES = ("table", "row", "seed", "subset", "level", "scale", "command")


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder``, made by ``make`` if it is not there; it is whole or not there."""
    if not folder.is_dir():
        temporary = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        make(temporary)
        os.replace(temporary, folder)
    return folder


def find_model(job: dict[str, Any], work: Path) -> str | None:
    """What goes to ``--model_name_or_path``; None for the launcher's own."""
    name, flags = job["settings"]["model"], job["settings"]["flags"]
    if name == "tiny":
        family = LAUNCHERS[job["launcher"]].tiny_model(flags)

        def write(folder: Path) -> None:
            from experiments import toy_models

            toy_models.MODELS[family](folder)

        return str(once(work / "models" / f"tiny-{family}", write))
    if name == "quickstart":
        from experiments.small_models import find_base_model

        return find_base_model()
    if name == "minilm":
        from experiments.small_models import find_minilm

        return find_minilm()
    return name


def find_data(job: dict[str, Any], work: Path) -> Path | None:
    """The folder of the data, made or cut to size first where the scale says so."""
    settings, launcher = job["settings"], LAUNCHERS[job["launcher"]]
    name, given = launcher.dataset(settings["flags"]), settings["data"]
    if given == "toy":

        def write(folder: Path) -> None:
            from experiments import toy_data

            toy_data.write_data(name, folder)

        given = once(work / "data" / name, write)
    folder = launcher.data_folder(name, given and str(given))
    inputs = settings["inputs"]
    if not launcher.is_cut or inputs is None:
        return folder
    assert folder is not None
    whole = folder.resolve()
    target = work / "data" / f"{name}-{whole.parent.name}-{whole.name}-{inputs}"
    return once(target, lambda cut: launcher.cut(name, whole, cut, inputs))


def machine() -> dict[str, Any]:
    """What the numbers were computed with."""
    import torch
    import transformers

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    threads = torch.get_num_threads()
    return {
        "device": gpu or f"{threads} CPU thread{'s' * (threads > 1)}, {platform.machine()}",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def peak_memory() -> dict[str, float]:
    """Megabytes of this process, and of its GPU."""
    from harness.report import peak_memories

    return {f"{name}_mb": round(size / 1e6, 1) for name, size in peak_memories().items()}


def do_steps(job: dict[str, Any], folder: Path) -> tuple[dict[str, float], bool]:
    """Run the steps that are not done; return seconds of each, and whether any went on."""
    done = read_json_object(folder / STEPS) if (folder / STEPS).is_file() else {}
    resumed = bool(done) or (folder / RUN).exists()
    work = Path(job["work"])
    work.mkdir(parents=True, exist_ok=True)
    with FileLock(work / "prepare.lock"):
        model, data = find_model(job, work), find_data(job, work)
    launcher = LAUNCHERS[job["launcher"]]
    for step in launcher.steps(job, model, data):
        if step.name in done:
            continue
        print(f"== {step.module} {' '.join(step.argv)}", flush=True)
        start = time.monotonic()
        launcher.run(step)
        done[step.name] = round(time.monotonic() - start, 2)
        write_json(folder / STEPS, done)
    return done, resumed


def base_model(job: dict[str, Any], folder: Path) -> str:
    """The name of the model that was trained or decoded, without the folders it lies in."""
    if job["settings"]["model"] == "minilm":  # whose folder is called "model"
        return "minilm"
    path, flags = folder / RUN / "run_settings.json", job["settings"]["flags"]
    name = flags.get("finetune_model_path")
    return Path(read_json_object(path)["model_name_or_path"] if path.is_file() else name).name


def result_of(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What is known about a finished run."""
    scores, missing = {}, {}
    for split in job["splits"]:
        scores[split], missing[split] = LAUNCHERS[job["launcher"]].scores(
            job["scorer"], job["columns"], split, folder
        )
    return {
        **{key: job[key] for key in NAMES},
        "settings": job["settings"],
        "scores": scores,
        "missing": missing,
        "steps": job["steps"],
        "n_inputs": job["n_inputs"],
        "model": base_model(job, folder),
        "parameters": parameters(folder / RUN),
        **machine(),
        **provenance(folder / RUN),
        "peak_memory": peak_memory(),
        "disk_mb": round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6, 1),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Do the run in the folder ``argv[0]``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="a folder below results/ with job.json")
    folder = parser.parse_args(argv).folder
    if not (folder / JOB).is_file():
        raise UserError(f"{folder} holds no {JOB}: start scripts/reproduce.sh")
    job = read_json_object(folder / JOB)
    with FileLock(folder / "lock"):  # two commands never do the same run at a time
        if Path(job["result"]).is_file():
            return
        seconds, resumed = do_steps(job, folder)
        result = result_of(job, folder)
        if not job["keep_checkpoints"]:
            for path in training_state(folder / RUN):
                path.unlink()
        write_json(Path(job["result"]), {**result, "seconds": seconds, "resumed": resumed})


if __name__ == "__main__":
    run_command(main)
