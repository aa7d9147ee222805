"""Folders of trained prefixes that are damaged, and decoded in this process."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
from pathlib import Path

from faults.folders import OLDER, _damage
from faults.readers import Fault

from gpt2 import gen
from prefix_tuning.errors import UserError

FLAGS = "--data_file data/valid.txt --no_score --length 4 --no_cuda --limit 2 --results_dir decoded"


class Decodes:
    """A finished run, its export and its base model, of which one file is damaged at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(OLDER / "gpt2", folder / "whole")

    def attempt(self, chance: random.Random) -> str:
        """Damage a file, decode; ``accepted`` or ``refused``.

        Raises:
            Fault: it ends in something else than one sentence.
        """
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self.folder / "whole", work)
        trained = chance.choice(["finished", "finished/export"])
        files = [f for f in (work / trained).iterdir() if f.is_file() and f.stat().st_size]
        path = chance.choice(files)
        _damage(path, chance)
        here = Path.cwd()
        os.chdir(work)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                gen.main(["data2text", "yes", "valid", trained, "no", *FLAGS.split()])
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
