"""LoRA: low-rank updates of the attention's matrices (Hu et al. 2021), by the peft package."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gpt2.tuning.base import TuningMode
from harness.flags import flag
from harness.ranges import COUNT, FRACTION, WIDTH
from prefix_tuning.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = "adapter_model.safetensors"


def check_peft() -> None:
    """Raise :class:`UserError` if peft is missing."""
    if find_spec("peft") is None:
        raise UserError("--tuning_mode lora needs the peft package: pip install peft")


@dataclass(frozen=True)
class Lora(TuningMode):
    """Low-rank updates, LoRA (lora)."""

    name: ClassVar[str] = "lora"
    needs_base: ClassVar[bool] = True

    lora_r: int = flag(4, "rank of the updates", within=WIDTH)
    lora_alpha: int = flag(32, "the updates are scaled by alpha / rank", within=COUNT)
    lora_dropout: float = flag(0.0, "dropout on what the updates read", within=FRACTION)

    def check(self) -> None:
        """Refuse to train without peft."""
        super().check()
        check_peft()

    def note(self) -> str:
        """Rank and scale, and dropout where there is some."""
        dropout = f"_ld={self.lora_dropout}" if self.lora_dropout else ""
        return f"r={self.lora_r}_alpha={self.lora_alpha}{dropout}"

    def flags(self) -> dict[str, object]:
        """The options by their flags, without a dropout that there is not."""
        flags = super().flags()
        if not self.lora_dropout:
            del flags["lora_dropout"]
        return flags

    def prepare(self, model: PreTrainedModel) -> Any:
        """Wrap the model; the updates alone are trained."""
        import peft

        config = peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            fan_in_fan_out=model.config.model_type == "gpt2",  # its matrices are transposed
        )
        try:
            return peft.get_peft_model(model, config)
        except ValueError as error:  # peft has a table of the architectures it knows
            raise UserError(
                f"--tuning_mode lora: peft does not know {type(model).__name__} ({error}); use "
                "adaptertune"
            ) from error

    def save(self, folder: Path, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write the updates in peft's format."""
        import peft

        from prefix_tuning.checkpoint import write_tensors

        state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
        write_tensors(folder / WEIGHTS, state)
        model.peft_config["default"].save_pretrained(folder)

    @classmethod
    def load(cls, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
        """Add the updates of ``folder`` to a base model's matrices."""
        check_peft()
        import peft

        from prefix_tuning.checkpoint import read_tensors

        read_tensors(folder / WEIGHTS)  # says so if it is damaged
        return peft.PeftModel.from_pretrained(model, folder).merge_and_unload()
