"""What a folder of GPT-2 holds, and how a part is put into its base model."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from gpt2.tuning import TUNING
from gpt2.tuning.adapters import ORIGINAL, Adapters
from gpt2.tuning.base import MANIFEST
from gpt2.tuning.both import MODEL_FOLDER
from harness import trained
from harness.trained import Trained
from prefix_tuning import fingerprint, schema
from prefix_tuning.errors import UserError
from prefix_tuning.files import read_json_object
from prefix_tuning.hub import at_hand


def describe(folder: Path) -> Trained:
    """Look into a folder: a prefix, the run of a baseline (its mode is the kind), a model.

    Raises:
        UserError: a file that says what the folder is cannot be read.
    """
    return trained.describe(folder, _of_manifest, _original_adapters)


def describe_run(folder: str, called: str) -> Trained:
    """:func:`describe` a folder that texts are to be written with.

    Args:
        called: what the command line calls it, for the message.

    Raises:
        UserError: it holds nothing that writes texts, or as :func:`describe`.
    """
    found = describe(Path(folder))
    if found.kind == "nothing":
        raise UserError(f"{called} {folder} holds neither a prefix nor a model")
    return found


def models(found: Trained, base: str | None, cache_dir: str | None) -> tuple[str, str | None]:
    """The model to load, and the folder of the part that belongs into it, if it is one.

    Args:
        base: the base model of a part, where that is given. Otherwise it is the one beside the
            part, the recorded one, or the one that the original would guess.

    Raises:
        UserError: it would have to be fetched. What is fetched is the user's decision, not that of
            a folder that may come from somebody else.
    """
    if not found.needs_base:
        return str(found.folder), None
    beside = found.folder / MODEL_FOLDER
    if base is None and (beside / "config.json").is_file():
        base = str(beside)
    if base is None:
        guess = "gpt2-large" if "large" in found.folder.name else "gpt2-medium"
        base = at_hand(found.base_model or guess, found.folder, cache_dir)
    return base, str(found.folder)


def load_into(model: PreTrainedModel, found: Trained) -> PreTrainedModel:
    """Put the trained part of a baseline into a base model.

    Raises:
        UserError: it is damaged, or belongs to another model.
    """
    described = found.metadata.get("base_model") or {}
    if "fingerprint" in described:
        fingerprint.check_same(described, model, str(found.folder))
    return TUNING[found.kind].load(model, found.folder)


def _of_manifest(folder: Path) -> Trained | None:
    path = folder / MANIFEST
    if not path.is_file():
        return None
    manifest = read_json_object(path)
    schema.from_json(schema.TunedManifest, manifest, str(path))
    mode = manifest.get("tuning_mode")
    if mode is None:  # the model beside a prefix
        return Trained(folder, "model", metadata=manifest)
    if mode not in TUNING:
        raise UserError(f"{path}: no tuning mode {mode!r}; only {', '.join(TUNING)} so far")
    return Trained(folder, mode, TUNING[mode].needs_base, manifest)


def _original_adapters(folder: Path) -> Trained | None:
    """The original's file holds the whole model, so the folder is its own base model."""
    if not all((folder / name).is_file() for name in (ORIGINAL, "config.json")):
        return None
    if read_json_object(folder / "config.json").get("_my_arg_tune_mode") != Adapters.name:
        return None
    manifest = {"tuning_mode": Adapters.name, "base_model": {"name_or_path": str(folder)}}
    return Trained(folder, Adapters.name, True, manifest)
