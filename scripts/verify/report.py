"""The certificate: a table on screen, ``fidelity.json``, and ``docs/fidelity.md``."""

from __future__ import annotations

import math
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prefix_tuning.files import write_json, write_text
from scripts.verify.checks import ROOT, Outcome

PACKAGES = ("torch", "transformers", "peft", "sacrebleu", "rouge-score", "nltk", "pycocoevalcap")
HEADER = f"{'check':38} {'held against':32} {'largest difference':>18} {'bound':>8}  result"


def number(value: float) -> str:
    """A difference as it is printed: counts as they are."""
    return (
        str(int(value)) if value == int(value) else f"{value:.1e}" if math.isfinite(value) else "-"
    )


def row(outcome: Outcome) -> str:
    """A line of the table on screen."""
    worst = outcome.worst
    found, bound = ("", "") if worst is None else (number(worst.found), number(worst.bound))
    line = f"{outcome.check.name:38} {outcome.check.against:32} {found:>18} {bound:>8}  "
    about = outcome.reason if outcome.left_out or worst is None else worst.what
    shown = about if not outcome.passed else ""
    return f"{line}{outcome.result}{': ' + shown if shown else ''}"


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many checks came out how."""
    counts = {
        word: sum(o.result == word for o in outcomes) for word in ("passed", "OFF", "left out")
    }
    return f"{counts['passed']} passed, {counts['OFF']} off, {counts['left out']} left out"


def about() -> dict[str, str]:
    """What the numbers were computed with."""
    found = {"python": platform.python_version(), "system": f"{sys.platform} {platform.machine()}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        found["commit"] = subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        found["commit"] = "unknown"
    return found


def write(
    outcomes: Sequence[Outcome], about: Mapping[str, str], json_path: Path, page: Path
) -> None:
    """Write both files; ``about`` is the value of :func:`about` when the checks began."""
    rows: list[dict[str, Any]] = [
        {
            "check": o.check.name,
            "against": o.check.against,
            "result": o.result,
            "reason": o.reason or None,
            "seconds": round(o.seconds, 1),
            "differences": [
                {"what": d.what, "found": _finite(d.found), "bound": d.bound} for d in o.differences
            ],
        }
        for o in outcomes
    ]
    write_json(json_path, {"about": dict(about), "summary": summary(outcomes), "checks": rows})
    write_text(page, _page(outcomes, about))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _page(outcomes: Sequence[Outcome], about: Mapping[str, str]) -> str:
    # The page is committed: it cannot name the commit that it is part of.
    shown = {name: value for name, value in about.items() if name != "commit"}
    versions = ", ".join(f"{name} {value}" for name, value in shown.items())
    lines = [
        "# Fidelity",
        "",
        "Written by `./scripts/verify.sh`, which anyone can run: what this code computes, held",
        "against what it did not write itself. A row shows the quantity that is nearest to its",
        "bound; counts, such as texts that differ, have the bound 0. All quantities are in",
        "`fidelity.json`, which the command writes beside.",
        "",
        f"{summary(outcomes)}. {versions}.",
        "",
        "| check | held against | nearest to its bound | difference | bound | result |",
        "|---|---|---|---:|---:|---|",
    ]
    for o in outcomes:
        worst = o.worst
        cells = [o.check.name, o.check.against]
        cells += (
            [worst.what, number(worst.found), number(worst.bound)] if worst else [o.reason, "", ""]
        )
        lines.append("| " + " | ".join([*cells, o.result]).replace(str(ROOT), "") + " |")
    return "\n".join([*lines, ""])
