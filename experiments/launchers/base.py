"""What the launchers have in common for a table: their command lines, inputs, and scores.

A run is a list of steps, each a command that is called in Python; what a launcher leaves behind is
read into the columns, and in the units, of the paper's table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.flags import command
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
Values = dict[str, float | None]

JOB, STEPS = "job.json", "steps.json"
"""In the folder of a run: what is to be done, and the seconds of the steps that are done."""
RUN, TEXTS, SIZES = "run", "texts", "sizes.json"
"""In the folder of a run: what is trained, what is decoded; and in ``RUN``, how large it is."""
MODELS = ("tiny", "quickstart", "minilm")
"""What ``model`` of a scale may name instead of a model: it is made or found first."""
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Step:
    """A command: its module, and what it is given by place and by name."""

    name: str
    module: str
    flags: dict[str, Any]
    words: tuple[str, ...] = ()

    @property
    def argv(self) -> list[str]:
        """Its arguments as they would be typed."""
        return [*self.words, *command(self.flags)]


class Launcher(ABC):
    """A command that trains, and how a table uses it."""

    name: str
    """As files of tables write it."""
    dataset_flag = "mode"
    """The flag by which data sets are told apart."""
    has_switches = False
    """Whether flags may be truth values."""
    decodes_apart = False
    """Whether texts are decoded in steps of their own, and take time besides the training's."""
    batch_flag, epoch_flag = "bsz", "epoch"
    main_column = "BLEU"
    """The score by which prefix lengths are compared."""

    @property
    @abstractmethod
    def scorers(self) -> Sequence[str]:
        """What ``scorer`` of an experiment may name."""

    @property
    def datasets(self) -> Sequence[str] | None:
        """The data sets that there are; None where only the launcher knows."""
        return None

    def check_dataset(self, where: str, flags: Mapping[str, Any]) -> None:
        """Raise a :class:`UserError` that begins with ``where`` if flags name no data set."""
        name, known = flags.get(self.dataset_flag), self.datasets
        if name is None or (known is not None and name not in known):
            choices = "" if known is None else f", one of {', '.join(known)}"
            raise UserError(f"{where}: give the flag {self.dataset_flag}{choices}")

    def dataset(self, flags: Mapping[str, Any]) -> str:
        """The name of a run's data set."""
        name: str = flags[self.dataset_flag]
        return name

    @abstractmethod
    def tiny_model(self, flags: Mapping[str, Any]) -> str:
        """The kind of tiny model that stands for the base model."""

    @abstractmethod
    def steps(self, job: Mapping[str, Any], model: str | None, data: Path | None) -> list[Step]:
        """The steps of a run.

        Args:
            job: what ``reproduce.py`` wrote: ``splits``, ``folder``, ``settings`` and more.
            model: for ``--model_name_or_path``, None for the launcher's own.
            data: folder of the data, None for where the launcher looks.
        """

    @abstractmethod
    def run(self, step: Step) -> None:
        """Do one of :meth:`steps` in this process."""

    @abstractmethod
    def data_folder(self, name: str, given: str | None) -> Path | None:
        """The folder of a data set: ``given`` or one in it, or where ``download_data.sh`` puts it.

        None where the launcher knows by itself.
        """

    def data_files(self, name: str, folder: Path | None) -> Sequence[Path]:
        """What has to be there before a run starts; a hub may have the rest."""
        return ()

    def missing_data(self, settings: Mapping[str, Any]) -> str | None:
        """Why a run cannot start for want of data, where that can be seen without reading it."""
        given = settings["data"]
        if given == "toy":
            return None
        name = self.dataset(settings["flags"])
        files = self.data_files(name, self.data_folder(name, given))
        absent = next((path for path in files if not path.exists()), None)
        mend = "see ./scripts/download_data.sh, or use --data_dir"
        return None if absent is None else f"{absent} is missing: {mend}"

    def cut(self, name: str, source: Path, target: Path, count: int) -> None:
        """Write a data set with ``count`` inputs to decode, where no flag of the launcher does it.

        Raises:
            UserError: a file is missing or malformed.
        """
        raise NotImplementedError

    @property
    def is_cut(self) -> bool:
        """Whether :meth:`cut` makes the inputs of a scale."""
        return type(self).cut is not Launcher.cut

    @abstractmethod
    def scores(
        self, scorer: str, columns: str, split: str, folder: Path
    ) -> tuple[Values, dict[str, str]]:
        """The scores of a finished run by the table's columns, and why some are missing.

        Args:
            scorer: the experiment's, one of :attr:`scorers`.
            columns: what the row's columns begin with, where a table has several data sets.
            split: ``test`` or ``valid``.
            folder: of the run.
        """

    def scored(self, split: str, folder: Path) -> Path | None:
        """The scores of what a finished run decoded; None where nothing is decoded."""
        return None

    def outputs(self, split: str, folder: Path) -> Path | None:
        """What was decoded, a text a line."""
        path = self.scored(split, folder)
        return path and path.with_name(path.name.removesuffix("_eval.json"))


def newest(folder: Path, pattern: str) -> Path:
    """The file that was written last among those of a name.

    Raises:
        UserError: there is none.
    """
    found = sorted(folder.rglob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"{folder} holds no {pattern}: the launcher left no scores")
    return found[-1]


def parameters(run: Path) -> dict[str, int]:
    """Numbers of parameters that a training noted: ``base``, ``trained`` and perhaps ``stored``."""
    path = run / SIZES
    return read_json_object(path) if path.is_file() else {}


def training_state(run: Path) -> list[Path]:
    """What ``--keep_checkpoints no`` deletes: all weights but those of exports."""
    suffixes = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
    return [
        path
        for path in run.rglob("*")
        if path.suffix in suffixes and "export" not in path.parent.name and path.is_file()
    ]
