"""Ask every command that is named for its help, each in a process forked off a bare Python.

    python tests/help_of_all.py FILE ...

prints a line of JSON for each: its exit status, how much it printed, the lines of its usage, its
examples, its flags, what it imported.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import sys
from pathlib import Path

import numpy  # noqa: F401  # with tqdm and yaml: what many commands import, here once
import tqdm  # noqa: F401
import yaml  # noqa: F401

HEAVY = (
    "torch",
    "transformers",
    "pytorch_lightning",
    "datasets",
    "matplotlib",
    "scipy",
    "sklearn",
    "nltk",
)


def ask(path: str) -> dict[str, object]:
    """Run a command with ``--help`` in this process."""
    sys.argv = [path, "--help"]
    output, status = io.StringIO(), None
    with contextlib.redirect_stdout(output):
        try:
            is_package = path.endswith("__main__.py")
            # Run as python -m evaluation.NAME.
            if is_package or path.startswith(("evaluation/", "prefix_tuning/")):
                sys.path[0] = str(Path.cwd())
                module = ".".join(Path(path).with_suffix("").parts)
                runpy.run_module(module, run_name="__main__", alter_sys=False)
            else:
                sys.path[0] = str(Path(path).parent)
                runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            status = end.code
    heavy = [name for name in HEAVY if name in sys.modules]
    text = output.getvalue()
    usage = len(text.split("\n\n")[0].splitlines())
    # An argument, and its help behind two spaces or on the next line.
    entries = re.split(r"^  (?=[-{\w])", text, flags=re.M)[1:]
    examples = [part for part in text.split("\n\n") if part.startswith("    python ")]
    return {
        "path": path,
        "status": status,
        "length": len(text),
        "usage": usage,
        "examples": examples,
        "unexplained": [e for e in entries if re.fullmatch(r"\S+( \S+)*\n*", e.split("\n\n")[0])],
        "none": text.count("(default: None)"),
        "flags": re.findall(r"^ +(?:-\w, )?(--\w+)", text, flags=re.M),
        "imported": heavy,
    }


if __name__ == "__main__":
    for path in sys.argv[1:]:
        if os.fork() == 0:
            print(json.dumps(ask(path)), flush=True)
            os._exit(0)
        os.wait()
