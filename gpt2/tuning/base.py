"""What a tuning mode is: what it trains, how that is kept, and how it is loaded again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from harness.only import Only, check_only
from prefix_tuning.errors import UserError
from prefix_tuning.files import let_read, write_json

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

    from gpt2.data import Rounding, TableToTextDataset
    from gpt2.trainer_prefix import TableToTextTrainer
    from harness.report import Sizes

Json = dict[str, Any]
MANIFEST = "tuned.json"
"""What the folder of a baseline says of itself: its mode, its base model, its task."""


class TrainerOptions(TypedDict):
    """What every trainer is given, whatever the tuning mode."""

    args: TrainingArguments
    data_collator: Callable[..., dict[str, Tensor]]
    train_dataset: TableToTextDataset
    eval_dataset: TableToTextDataset | None
    length_groups: bool
    rounding: Rounding
    label_smoothing: float


@dataclass
class Setting:
    """What a tuning mode builds a trainer from.

    Attributes:
        model: the loaded base model, which the mode may change.
        model_name: where it was loaded from.
        tokenizer: of the model, with the padding token that training uses.
        task: what decoding has to know: ``task_mode``, ``separator``, ``source_prefix``.
        trainer: what is none of the mode's business.
    """

    model: PreTrainedModel
    model_name: str
    tokenizer: PreTrainedTokenizerBase
    task: dict[str, object]
    trainer: TrainerOptions


@dataclass
class Built:
    """A trainer, and what there is to do before and after it runs.

    Attributes:
        save: writes what is trained into a folder.
        sizes: numbers of parameters.
        start: brings the parameters of a new run to where they start, if not where they are.
    """

    trainer: TableToTextTrainer
    save: Callable[[Path], None]
    sizes: Sizes
    start: Callable[[], None] = lambda: None


def alone(flag: str) -> UserError:
    """The refusal of a flag with several processes."""
    return UserError(
        f"{flag}: its loss depends on what else is in the batch of a process, so that several "
        "processes would not train as one: start one process"
    )


@dataclass(frozen=True)
class TuningMode:
    """A tuning mode with its options, whose fields are its flags.

    A subclass checks its options in the constructor; it says what is trained (:meth:`prepare`),
    and, unless that is the whole model, how it is kept (:meth:`save`, :meth:`load`).
    """

    name: ClassVar[str]
    """What ``--tuning_mode`` calls it."""
    needs_base: ClassVar[bool] = False
    """Whether its folder holds a part, to be put into a base model."""
    keeps_base: ClassVar[bool] = False
    """Whether the base model of the part is kept in its folder too."""
    freezes: ClassVar[bool] = False
    """Whether the base model stays as it was loaded, so that several runs can share it."""
    only: ClassVar[dict[str, Only]] = {}
    """Flags that are read only beside others."""

    def check(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            UserError: options exclude each other or are not read, or a package is missing.
        """
        check_only(self.only, self)

    def check_processes(self) -> None:
        """Refuse what several processes would not train as one.

        Raises:
            UserError: the loss depends on what else is in the batch of a process.
        """

    def check_sharding(self) -> None:
        """Refuse ``--shard_model`` where processes would not run the frozen model alike.

        Raises:
            UserError: the model is trained, or computes what stands in front of it.
        """
        raise UserError(
            "--shard_model yes: only for --tuning_mode prefixtune, and a --parametrization that "
            "the frozen model takes no part in"
        )

    def check_smoothing(self) -> None:
        """Refuse ``--label_smoothing`` where it would do nothing.

        Raises:
            UserError: no text's tokens are what is learnt.
        """

    def flags(self) -> dict[str, object]:
        """The options by their flags, as a launcher writes them down."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def note(self) -> str:
        """What the name of a run says of the options."""
        return ""

    def slots(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Positions that stand in front of every text."""
        return 0

    @property
    def reads_source(self) -> bool:
        """Whether batches keep source and target apart."""
        return False

    @property
    def sums_losses(self) -> bool:
        """Whether the loss of a text is the sum of those of its tokens."""
        return False

    def prepare(self, model: PreTrainedModel) -> Any:
        """Decide which parameters of the loaded model train; return the model to be trained."""
        raise NotImplementedError

    def save(self, folder: Path, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write what was trained: here the whole model and its tokenizer."""
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    @classmethod
    def load(cls, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
        """Put the trained part of ``folder`` into a base model, in eval mode.

        Raises:
            UserError: it is damaged, or belongs to another model.
        """
        raise NotImplementedError

    def build(self, setting: Setting) -> Built:
        """Make the trainer."""
        from gpt2.trainer_prefix import TableToTextTrainer
        from harness import report
        from prefix_tuning import fingerprint

        manifest = {
            "tuning_mode": self.name,
            # Before the model is changed, as it will be found again.
            "base_model": fingerprint.describe(setting.model, setting.model_name),
            "task": setting.task,
        }
        tuned = self.prepare(setting.model)
        sizes = report.sizes(tuned, None)
        print("\n".join(sizes.lines()), flush=True)

        def save(folder: Path) -> None:
            folder.mkdir(parents=True, exist_ok=True)
            self.save(folder, tuned, setting.tokenizer)
            let_read(folder)
            write_json(folder / MANIFEST, manifest)

        return Built(TableToTextTrainer(model=tuned, save=save, **setting.trainer), save, sizes)
