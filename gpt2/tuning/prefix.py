"""Prefix-tuning: the model is frozen, and a prefix is optimised in front of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gpt2.prefix_flags import PrefixFlags
from gpt2.tuning.base import Built, Json, Setting, TuningMode, alone
from harness.flags import flag, yes_no
from harness.only import Only
from prefix_tuning.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prefix_tuning.prefix import Prefix

MATCHING_OBJECTIVES = ("kl", "logits")
POSITIONS = ("target", "all")


def _has_mlp(prefix: PrefixFlags) -> bool:
    from prefix_tuning.choice import own_options

    bare = prefix.variant == "embedding" and prefix.parametrize_emb == "Emb"
    return "mid_dim" in own_options(prefix.variant) and not bare


_DISTILLS = Only("with --distill yes", lambda mode: mode.distill == "yes")


@dataclass(frozen=True)
class WithPrefix(PrefixFlags, TuningMode):
    """Tuning modes that optimise a prefix."""

    only: ClassVar[dict[str, Only]] = {
        "mid_dim": Only("with a parametrisation that has an MLP", _has_mlp),
        "parametrize_emb": Only(
            "with --prefix_mode embedding", lambda prefix: prefix.variant == "embedding"
        ),
    }

    def check(self) -> None:
        """Refuse what no prefix can be, and flags that it would not read."""
        PrefixFlags.check(self)
        TuningMode.check(self)

    @property
    def sums_losses(self) -> bool:
        """Whether the objective adds up the losses of a text, instead of their mean."""
        return self.objective_mode == 1

    def check_processes(self) -> None:
        """Refuse an objective that divides by what else is in the batch."""
        if self.objective_mode == 4:
            raise alone("--objective_mode 4")

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        """Freeze the model: all that is trained stands in front of it."""
        return model.requires_grad_(False)

    def trainer_class(self, model: PreTrainedModel) -> Callable[..., Any]:
        """What trains the prefix."""
        from gpt2.trainer_prefix import Trainer_Prefix

        return Trainer_Prefix

    def save_prefix(
        self, folder: Path, prefix: Prefix, config: Json, meta: Json, setting: Setting
    ) -> None:
        """Write the checkpoint of a prefix, and its export."""
        from prefix_tuning import checkpoint

        checkpoint.save(folder, prefix, config, meta)
        if not prefix.reads_source:
            checkpoint.export(folder / "export", prefix, meta, setting.model)

    def build(self, setting: Setting) -> Built:
        """Make the prefix and its trainer."""
        from harness import report
        from harness.sharing import shard
        from prefix_tuning import checkpoint
        from prefix_tuning.attention import enable_prefix

        model, tokenizer = setting.model, setting.tokenizer
        enable_prefix(self.prepare(model))
        prefix = self.make_prefix(model, tokenizer)
        meta = checkpoint.metadata(prefix, model, setting.model_name, task=setting.task)
        config = {
            **model.config.to_dict(),
            "_my_arg_tune_mode": self.name,
            "_my_arg_task_mode": setting.task["task_mode"],
            "_my_arg_control": True,
            "optim_prefix": True,
            "preseqlen": prefix.length,
            "mid_dim": self.mid_dim,
            "prefix_dropout": self.prefix_dropout,
            "format_mode": self.format_mode,
            "use_infix": prefix.reads_source,
        }

        args: Any = setting.trainer["args"]
        if args.shard_model == "yes":
            shard(model, args)

        def save(folder: Path) -> None:
            self.save_prefix(folder, prefix, config, meta, setting)

        trainer = self.trainer_class(model)(
            model=prefix,
            model_gpt2=model,
            use_dropout=self.use_dropout == "yes",
            save=save,
            **setting.trainer,
        )
        sizes = report.sizes(model, prefix)
        print("\n".join(sizes.lines()), flush=True)
        if prefix.reads_source:
            print("an infix depends on the source, so nothing is exported: the checkpoint serves")
        start = partial(self.initialise, trainer.prefix, model, tokenizer)
        return Built(trainer, save, sizes, start)


@dataclass(frozen=True)
class Distillation:
    """Learning from a teacher (prefixtune)."""

    distill: str = yes_no("no", "learn from a fine-tuned teacher, not from the texts")
    finetuned_model_path: str | None = flag(None, "the teacher: a run of finetune")
    matching_objective: str = flag("kl", f"what is matched: {' or '.join(MATCHING_OBJECTIVES)}")
    distill_positions: str = flag(
        "target", "positions that are matched; the original matches all", choices=POSITIONS
    )

    def __post_init__(self) -> None:
        if self.matching_objective == "last_layer":
            raise UserError(
                "--matching_objective last_layer: the teacher's hidden states belong to other "
                "weights than the prefix's model has, and the original fails on it too; use kl or "
                "logits"
            )
        if self.matching_objective not in MATCHING_OBJECTIVES:
            raise UserError(f"--matching_objective {self.matching_objective}: use kl or logits")
        if self.distill == "no" and self.finetuned_model_path is not None:
            raise UserError("--finetuned_model_path: only with --distill yes")


@dataclass(frozen=True)
class PrefixTune(Distillation, WithPrefix):
    """Prefix-tuning (prefixtune)."""

    name: ClassVar[str] = "prefixtune"
    freezes: ClassVar[bool] = True
    only: ClassVar[dict[str, Only]] = {
        **WithPrefix.only,
        **dict.fromkeys(("matching_objective", "distill_positions"), _DISTILLS),
    }

    def __post_init__(self) -> None:
        Distillation.__post_init__(self)
        WithPrefix.__post_init__(self)

    def check(self) -> None:
        """Refuse what no prefix can be, and what it cannot learn from a teacher."""
        super().check()
        if self.distill == "no":
            return
        if self.finetuned_model_path is None:
            raise UserError("--distill yes needs the teacher: add --finetuned_model_path")
        if self.reads_source:
            raise UserError(
                "--distill yes: an infix sees no source where the teacher sees it; use cat"
            )

    def check_processes(self) -> None:
        """Refuse such an objective, and a teacher."""
        super().check_processes()
        if self.distill == "yes":
            raise alone("--distill yes")

    def check_sharding(self) -> None:
        """Refuse prefixes that the model computes, which the first process does when it saves."""
        from prefix_tuning.parametrizations import PARAMETRIZATIONS

        if PARAMETRIZATIONS[self.variant].uses_model:
            super().check_sharding()

    def check_smoothing(self) -> None:
        """Refuse it with a teacher."""
        if self.distill == "yes":
            raise UserError(
                "--label_smoothing: with --distill yes a teacher's predictions are learnt and no "
                "labels; leave it out"
            )

    def flags(self) -> dict[str, object]:
        """The options by their flags, without the defaults for a teacher that there is not."""
        flags = super().flags()
        if self.distill == "no":
            for field in fields(Distillation):
                if flags[field.name] == field.default:
                    del flags[field.name]
        return flags

    def trainer_class(self, model: PreTrainedModel) -> Callable[..., Any]:
        """What trains the prefix, from the texts or from the teacher."""
        if self.distill == "no":
            return super().trainer_class(model)
        from gpt2.distillation import Trainer_Distill, load_teacher

        assert self.finetuned_model_path is not None
        return partial(
            Trainer_Distill,
            teacher=load_teacher(self.finetuned_model_path, model),
            matching_objective=self.matching_objective,
            positions=self.distill_positions,
        )
