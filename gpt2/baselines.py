"""What each tuning mode trains, how that is kept, and how it is loaded again.

Beside prefix-tuning there are the paper's baselines (fine-tuning all or the top layers, adapters),
prefix and model trained together, and LoRA. They minimise the mean loss of the target tokens, with
the model's dropout on. A run folder of theirs says in ``tuned.json`` what it is:

==========================  ==============================================================
tuning mode                 what the folder holds
==========================  ==============================================================
finetune, finetune-top      the whole model and its tokenizer
adaptertune                 ``model.safetensors`` with the adapters alone
lora                        peft's ``adapter_model.safetensors``, ``adapter_config.json``
bothtune                    a prefix, and the model that belongs to it in ``gpt2/``
==========================  ==============================================================

Adapters and LoRA remember their base model and refuse another one.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gpt2.adapters import attach_adapters, blocks, load_adapters
from prefix_tuning import fingerprint
from prefix_tuning.checkpoint import read_tensors, write_tensors
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object, write_json

if TYPE_CHECKING:
    from gpt2.arguments import ModelArguments

TOP_LAYERS = {0: (0, True), 1: (1, True), 2: (2, True), 11: (1, False), 22: (2, False)}
"""The original's codes: how many blocks train, and whether the word embeddings do."""

LAST_NORMS = ("ln_f", "norm", "final_layer_norm", "norm_f", "final_layernorm")
"""What decoders call the norm behind their blocks."""

ABOUT = "tuned.json"
ADAPTERS = "model.safetensors"
LORA = ("adapter_model.safetensors", "adapter_config.json")
ORIGINAL = ("pytorch_model.bin", "config.json")
BOTH = "gpt2"
"""Where a run that trained prefix and model keeps the model."""


def train_nothing(model: PreTrainedModel, args: ModelArguments) -> PreTrainedModel:
    """Freeze the model: all that is trained stands in front of it."""
    return model.requires_grad_(False)


def train_everything(model: PreTrainedModel, args: ModelArguments) -> PreTrainedModel:
    """Fine-tuning."""
    return model.requires_grad_(True)


def train_top(model: PreTrainedModel, args: ModelArguments) -> PreTrainedModel:
    """Train the last layer norm, the top blocks, and the word embeddings where asked for.

    GPT-2's embeddings are also its output matrix.
    """
    count, embeddings = TOP_LAYERS[args.top_layers]
    if args.train_top is not None:
        count, embeddings = args.train_top, args.train_embs == "yes"
    layers = blocks(model)
    if count > len(layers):
        raise UserError(f"--train_top {count}: the model has {len(layers)} blocks")
    model.requires_grad_(False)
    trained = [_last_norm(model, layers), *layers[len(layers) - count :]]
    if embeddings:
        trained += [model.get_input_embeddings(), model.get_output_embeddings()]
    for module in trained:
        module.requires_grad_(True)
    return model


def _last_norm(model: PreTrainedModel, layers: nn.ModuleList) -> nn.Module:
    for parent in model.base_model.modules():
        children = dict(parent.named_children())
        if layers in children.values():
            for name in LAST_NORMS:
                if name in children:
                    return children[name]
    raise UserError(
        f"--tuning_mode finetune-top: {type(model).__name__} has no last norm under one of the "
        f"names {', '.join(LAST_NORMS)}; use adaptertune or lora"
    )


def train_adapters(model: PreTrainedModel, args: ModelArguments) -> PreTrainedModel:
    """Put adapters into the blocks; nothing else is trained."""
    attach_adapters(model, args.adapter_design, args.adapter_bottleneck)
    return model


def train_lora(model: PreTrainedModel, args: ModelArguments) -> Any:
    """Low-rank updates of the attention's matrices (Hu et al. 2021), by the peft package."""
    import peft

    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        fan_in_fan_out=model.config.model_type == "gpt2",  # its matrices are transposed
    )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:  # peft has a table of the architectures it knows
        raise UserError(
            f"--tuning_mode lora: peft does not know {type(model).__name__} ({error}); use "
            "adaptertune"
        ) from error


PREPARE: dict[str, Callable[[PreTrainedModel, ModelArguments], Any]] = {
    "prefixtune": train_nothing,
    "finetune": train_everything,
    "finetune-top": train_top,
    "adaptertune": train_adapters,
    "bothtune": train_everything,
    "lora": train_lora,
}
"""Tuning mode -> what decides which parameters of the loaded model train."""

WITH_PREFIX = ("prefixtune", "bothtune")


def check_peft() -> None:
    """Raise :class:`UserError` if peft is missing."""
    if find_spec("peft") is None:
        raise UserError("--tuning_mode lora needs the peft package: pip install peft")


def set_residual_dropout(model: PreTrainedModel, rate: float) -> None:
    """Change GPT-2's dropout on what attention and MLP add to the residual stream."""
    if not hasattr(model.config, "resid_pdrop"):
        raise UserError(f"--teacher_dropout: {type(model).__name__} has no residual dropout")
    model.config.resid_pdrop = rate
    for block in blocks(model):
        block.attn.resid_dropout.p = block.mlp.dropout.p = rate


def saver(
    mode: str, model: Any, tokenizer: PreTrainedTokenizerBase, about: dict[str, Any]
) -> Callable[[Path], None]:
    """The function that writes a run of a baseline into a folder.

    Args:
        model: what :data:`PREPARE` returned.
        about: content of ``tuned.json``, with ``tuning_mode`` and ``base_model`` at least.
    """

    def save(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if mode == "adaptertune":
            trained = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
            write_tensors(folder / ADAPTERS, trained)
        elif mode == "lora":
            import peft

            state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
            write_tensors(folder / LORA[0], state)
            model.peft_config["default"].save_pretrained(folder)
        else:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        write_json(folder / ABOUT, about)

    return save


def read_about(folder: Path) -> dict[str, Any]:
    """What ``tuned.json`` says; of the original's adapters, what their configuration says.

    Empty for any other folder.
    """
    if (folder / ABOUT).is_file():
        return read_json_object(folder / ABOUT)
    if all((folder / name).is_file() for name in ORIGINAL):
        mode = read_json_object(folder / ORIGINAL[1]).get("_my_arg_tune_mode")
        if mode == "adaptertune":
            # The original's file holds the whole model, so the folder is its own base model.
            return {"tuning_mode": mode, "base_model": {"name_or_path": str(folder)}}
    return {}


def needs_base_model(folder: Path) -> bool:
    """Whether the folder has adapters or LoRA, to be put into a base model."""
    return read_about(folder).get("tuning_mode") in ("adaptertune", "lora")


def load_into(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Put the adapters or the LoRA of ``folder`` into a base model.

    Raises:
        UserError: they are damaged, or belong to another model.
    """
    about = read_about(folder)
    if "fingerprint" in about["base_model"]:
        fingerprint.check_same(about["base_model"], model, str(folder))
    if about["tuning_mode"] == "lora":
        check_peft()
        import peft

        read_tensors(folder / LORA[0])  # says so if it is damaged
        return peft.PeftModel.from_pretrained(model, folder).merge_and_unload()
    name = ADAPTERS if (folder / ABOUT).is_file() else ORIGINAL[0]
    load_adapters(model, read_tensors(folder / name), str(folder / name))
    return model.eval()
