"""The ``README.md`` beside a saved prefix, which hubs show: what is known, and no more."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefix_tuning.files import write_text

FILE = "README.md"
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Facts:
    """What a folder cannot tell by itself."""

    task: str | None = None
    """What the prefix makes the model do, in a phrase."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    command: str | None = None
    """The command line that trained it."""
    license: str | None = None
    """An identifier of the hub (``apache-2.0``), which should agree with the base model's."""
    address: str | None = None
    """Where it will be found, ``owner/name``; the folder's name when not given."""


_USE = {
    "prefix-tuning": """```python
import prefix_tuning
from transformers import {auto}

model = prefix_tuning.load({auto}.from_pretrained({base!r}), {folder!r})
```""",
    "peft": """```python
from peft import PeftModel
from transformers import {auto}

model = PeftModel.from_pretrained({auto}.from_pretrained({base!r}), {folder!r})
```""",
    "transformers": """```python
from safetensors.torch import load_file
from transformers import DynamicCache, {auto}

arrays = load_file("cache.safetensors")
layers = range(len(arrays) // 2)
cache = DynamicCache([(arrays[f"keys.{{i}}"], arrays[f"values.{{i}}"]) for i in layers])
model = {auto}.from_pretrained({base!r})
```

Give the cache as `past_key_values`, and an attention mask with a 1 in front for every slot.""",
    "mlx": """```sh
mlx_lm.generate --prompt-cache-file prompt_cache.safetensors --prompt TEXT
```""",
}


def write(
    folder: Path,
    meta: Mapping[str, Any],
    facts: Facts | None = None,
    library: str = "prefix-tuning",
    auto: str = "AutoModelForCausalLM",
) -> None:
    """Write the card of a prefix.

    Args:
        folder: where the prefix is.
        meta: its metadata (:func:`prefix_tuning.checkpoint.metadata`).
        library: what opens it: ``prefix-tuning``, ``peft``, ``transformers`` or ``mlx``.
        auto: the class of transformers that loads the base model.
    """
    facts = facts or Facts()
    name = str(meta["base_model"].get("name_or_path") or "")
    is_hosted = _REPOSITORY.fullmatch(name) is not None and not Path(name).exists()
    # A path of this machine tells others nothing, and may tell them too much.
    shown = name if is_hosted else Path(name).name or "the base model"
    head = {"library_name": library, "tags": ["prefix-tuning"]}
    if is_hosted:
        head |= {"base_model": name, "base_model_relation": "adapter"}
    if facts.license:
        head["license"] = facts.license
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", ""]
    lines += [f"# A prefix for {shown}", ""]
    lines += [*_facts(meta, facts, shown), ""]
    if facts.metrics:
        rows = [f"| {key} | {value:.6g} |" for key, value in facts.metrics.items()]
        lines += ["| metric | value |", "|---|---:|", *rows, ""]
    if facts.command:
        lines += ["Trained with:", "", "```sh", facts.command, "```", ""]
    lines += [_USE[library].format(auto=auto, base=shown, folder=facts.address or folder.name)]
    write_text(folder / FILE, "\n".join(lines) + "\n")


def _facts(meta: Mapping[str, Any], facts: Facts, base: str) -> list[str]:
    length = meta["options"].get("length")
    kind, sites = meta["parametrization"], meta["options"].get("sites", ["self"])
    lines = [
        f"- base model: {base} ({meta['base_model'].get('model_type')}), frozen: its weights are "
        "not in this folder",
        f"- {length} trained slots in front of every layer's keys and values ({kind}), at "
        + ", ".join(sites),
    ]
    if facts.task:
        lines.insert(0, f"- task: {facts.task}")
    lines += [f"- licence: {facts.license or 'see that of the base model'}"]
    return lines
