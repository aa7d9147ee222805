"""The ``README.md`` beside a saved prefix, which hubs show: what is known, and no more."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefix_tuning.files import numbered_lines, read_json_object, read_text, write_text

_TAGS = ["prefix-tuning"]
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

    def known(self) -> dict[str, Any]:
        """What is given, as JSON values; the address is left to the card."""
        named = {k: v for k, v in vars(self).items() if v and k != "address"}
        return {k: dict(v) if k == "metrics" else v for k, v in named.items()}


_RESULTS = ("best_results.json", "eval_results.json", "metrics.json", "eval_results_lm.txt")
"""Where runs of this project and ``Trainer`` leave their scores; the first that is there counts."""
_NO_SCORES = re.compile(r"runtime|per_second|epoch|step|gen_time|gen_len|samples|^full$")


def facts_of_run(run: Path, meta: Mapping[str, Any]) -> Facts:
    """What the folder of a training run tells about its prefix.

    Args:
        run: the folder; the launchers leave the command beside it, in ``RUN.sh``.
        meta: of the prefix. Facts that were given when it was saved are there.
    """
    task = meta.get("task")
    names = ("task_mode", "task_name", "dataset_name")
    found: dict[str, Any] = {"metrics": _scores_of_run(run), "command": _command_of_run(run)}
    if isinstance(task, Mapping):
        found["task"] = ", ".join(str(task[name]) for name in names if task.get(name)) or None
    return Facts(**{**found, **meta.get("facts", {})})


def _scores_of_run(run: Path) -> dict[str, float]:
    path = next((run / name for name in _RESULTS if (run / name).is_file()), None)
    if path is None:
        return {}
    if path.suffix == ".txt":  # lines "eval_loss = 1.25"
        pairs = (line.partition(" = ") for line, _ in numbered_lines(path))
        return {name: float(value) for name, _, value in pairs if value}
    values = read_json_object(path)
    if isinstance(values.get("val"), list):  # summaries keep every evaluation
        values = values["val"][-1]
    numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
    return {k: v for k, v in numbers.items() if not _NO_SCORES.search(k)}


def _command_of_run(run: Path) -> str | None:
    path = run.with_name(run.name + ".sh")
    if not path.is_file():
        return None
    line = read_text(path).strip().split("\n")[-1]
    # Where this machine keeps its files tells others nothing, and may tell them too much.
    words = [_without_folder(word) for word in shlex.split(line)]
    return shlex.join(["python" if words[0].startswith("python") else words[0], *words[1:]])


def _without_folder(word: str) -> str:
    flag, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return flag + sign + (Path(value).name if Path(value).is_absolute() else value)


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
    """Write the card of a prefix, unless somebody else's ``README.md`` is there.

    Args:
        folder: where the prefix is.
        meta: its metadata (:func:`prefix_tuning.checkpoint.metadata`).
        library: what opens it: ``prefix-tuning``, ``peft``, ``transformers`` or ``mlx``.
        auto: the class of transformers that loads the base model.
    """
    path = folder / FILE
    if path.exists() and f"tags: {json.dumps(_TAGS)}" not in path.read_text("utf-8", "replace"):
        return
    facts = facts or Facts()
    name = str(meta["base_model"].get("name_or_path") or "")
    is_hosted = _REPOSITORY.fullmatch(name) is not None and not Path(name).exists()
    # A path of this machine tells others nothing, and may tell them too much.
    shown = name if is_hosted else Path(name).name or "the base model"
    head = {"library_name": library, "tags": _TAGS}
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
    write_text(path, "\n".join(lines) + "\n")


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
