"""Folders of prefixes to and from the hub of Hugging Face."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from prefix_tuning.errors import UserError

FILES = ("*.safetensors", "*.json", "adapter_model.bin", "README.md")
"""What a prefix may consist of on the hub."""
OURS = ("prefix.safetensors", "prefix.json", "model.safetensors", "config.json")
UPLOADED = (*OURS, "head.safetensors", "README.md")
"""What a folder of ours is uploaded of: not its settings, which name paths, nor its checkpoints."""
_ADDRESS = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def push(
    folder: Path,
    repo_id: str | None = None,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str = "Upload a prefix",
) -> str:
    """Upload a prefix; return the commit's address.

    Args:
        folder: what is in it besides a prefix is left out.
        repo_id: ``name`` or ``owner/name``, made if need be; the folder's name when not given.
        private, token: as everywhere in ``huggingface_hub``.
    """
    api = HfApi(token=token)
    name = api.create_repo(repo_id or folder.name, private=private, exist_ok=True).repo_id
    commit = api.upload_folder(
        repo_id=name,
        folder_path=folder,
        commit_message=commit_message,
        allow_patterns=[*UPLOADED],
    )
    return str(commit)


def local(folder: Path | str) -> Path:
    """``folder`` itself, or where the hub's ``owner/name`` lies once it is downloaded.

    Raises:
        UserError: it is neither.
    """
    if Path(folder).exists() or not _ADDRESS.fullmatch(str(folder)):
        return Path(folder)
    try:
        return Path(snapshot_download(str(folder), allow_patterns=[*FILES]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{folder}: there is no such folder, and the hub gives no such prefix "
            f"({type(error).__name__}): give the folder of a trained prefix"
        ) from error


def at_hand(name: str, folder: Path, cache_dir: str | None = None) -> str:
    """A base model that a trained folder names, if it is a local one or in the cache.

    Raises:
        UserError: it would have to be fetched, which only a flag may ask for.
    """
    if Path(name).exists():
        return name
    try:
        cached = try_to_load_from_cache(name, "config.json", cache_dir=cache_dir)
    except HFValidationError:  # no name of the hub: a folder of another machine
        cached = None
    if isinstance(cached, str):
        return name
    raise UserError(
        f"{folder} was trained on {name!r}, which is neither a local folder nor in the cache: a "
        "trained folder does not decide what is fetched; to use that model give "
        f"--model_name_or_path {name}"
    )
