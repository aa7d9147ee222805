"""Trained prefixes and base models that are damaged, and decoded in this process."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from faults.folders import OLDER, _damage
from faults.readers import Fault

import ptuning_v2.run
from gpt2 import gen
from prefix_tuning.errors import UserError
from seq2seq import finetune

GPT2 = "--data_file data/valid.txt --no_score --length 4 --no_cuda --limit 2 --results_dir decoded"
SEQ2SEQ = (
    "--do_predict --model_name_or_path base --data_dir data --eval_beams 2 --eval_max_gen_length 4 "
    "--eval_min_gen_length 2 --limit 1 --accelerator cpu --prefixModel_name_or_path"
)
PTUNING = (
    "--do_eval --do_predict --model_name_or_path base --data_dir data --max_eval_samples 2 "
    "--task_name glue --dataset_name sst2 --prefix --output_dir out --report_to none --use_cpu "
    "--max_seq_length 16 --prefix_checkpoint"
)
DECODES: dict[str, tuple[tuple[str, ...], Callable[[str], object]]] = {
    "gpt2": (
        ("finished", "finished/export"),
        lambda folder: gen.main(["data2text", "yes", "valid", folder, "no", *GPT2.split()]),
    ),
    "seq2seq": (
        ("finished", "finished/export", "finished/checkpoint-curr_best"),
        lambda folder: finetune.main([*SEQ2SEQ.split(), folder]),
    ),
    "ptuning_v2": (
        ("finished/export", "finished/best"),
        lambda folder: ptuning_v2.run.main([*PTUNING.split(), folder]),
    ),
}
"""What can be decoded of a finished run, and how."""


class Decodes:
    """A finished run, its export and its base model, of which one file is damaged at a time."""

    def __init__(self, folder: Path, system: str) -> None:
        self.folder, (self.trained, self.decode) = folder, DECODES[system]
        shutil.copytree(OLDER / system, folder / "whole")

    def attempt(self, chance: random.Random) -> str:
        """Damage a file, decode; ``accepted`` or ``refused``.

        Raises:
            Fault: it ends in something else than one sentence.
        """
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self.folder / "whole", work)
        trained = chance.choice(self.trained)
        damaged = work / chance.choice([trained, trained, "base"])
        files = [f for f in sorted(damaged.iterdir()) if f.is_file() and f.stat().st_size]
        path = chance.choice(files)
        _damage(path, chance)
        here = Path.cwd()
        os.chdir(work)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                self.decode(trained)
        except UserError:
            return "refused"
        except OSError as error:
            if error.strerror is None:
                raise Fault(f"{path.name}: {type(error).__name__}: {error}") from error
            return "refused"
        except Exception as error:
            raise Fault(f"{path.name}: {type(error).__name__}: {error}"[:300]) from error
        finally:
            os.chdir(here)
        return "accepted"
