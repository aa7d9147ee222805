"""Change one place of the code at a time and see whether a test fails: what is not looked at?

    python scripts/mutate.py prefix_tuning harness evaluation --number 200

First every test that may matter runs once, which tells the statements it reaches (kept in
``.cache/mutate`` until the tests or the code change). Then every mutant is run with the tests that
reach its line, the fastest first, in a copy of the working tree. Each run is a fork of this
process, which has imported torch and transformers once. Meant for minutes or hours, not for CI.

Mutants that no test could kill, since they compute the same, stand with their reasons in
``scripts/mutants_equivalent.txt``; they are counted apart.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import pkgutil
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from queue import Queue
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from prefix_tuning.errors import UserError, run_command
from prefix_tuning.files import read_json, write_json
from scripts.mutants import Mutant, is_python, mutants_of
from scripts.reached import Reached, Recorder, recording

TESTS = {
    "prefix_tuning": ("tests/prefix_tuning",),
    "harness": ("tests/harness",),
    "evaluation": ("tests/evaluation",),
    "gpt2": ("tests/gpt2",),
    "seq2seq": ("tests/seq2seq",),
    "ptuning_v2": ("tests/ptuning_v2",),
}
"""Folder of the code -> the tests that may reach it."""
PRELOAD = (
    *("torch", "transformers", "safetensors.torch", "pytest", "hypothesis", "accelerate"),
    *("transformers.trainer", "transformers.models.gpt2.modeling_gpt2", "tokenizers", "datasets"),
    *("transformers.models.bart.modeling_bart", "transformers.generation.utils", "sacrebleu"),
    *("transformers.models.llama.modeling_llama", "nltk", "rouge_score", "sklearn", "scipy.stats"),
)
EQUIVALENT = ROOT / "scripts" / "mutants_equivalent.txt"
CACHE = ROOT / ".cache" / "mutate"


def _in_fork(work: Any, seconds: float) -> int | None:
    """Do something in a child of its own process group; its exit status, None after ``seconds``."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        with open(os.devnull, "w") as nowhere:
            for stream in (1, 2):
                os.dup2(nowhere.fileno(), stream)
            try:
                code = int(work())
            except BaseException:
                code = 70
        os._exit(code)
    end = time.monotonic() + seconds
    status: int | None = None
    while time.monotonic() < end:
        pid, code = os.waitpid(child, os.WNOHANG)
        if pid:
            status = os.waitstatus_to_exitcode(code)
            break
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # and what it started
    if status is None:
        os.waitpid(child, 0)
    return status


def _pytest(copy: Path, args: Sequence[str], plugins: Sequence[Any] = ()) -> int:
    import pytest

    os.chdir(copy)
    sys.path[:] = [str(copy), *(p for p in sys.path if p != str(ROOT))]
    for name in [name for name in sys.modules if name.split(".")[0] in {*TESTS, "scripts"}]:
        del sys.modules[name]
    return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *args], plugins=[*plugins]))


def _record(copy: Path, file: str, result: Path) -> int:
    recorder = Recorder()
    _pytest(copy, [file, "--maxfail=1000"], [recorder])
    write_json(result, recorder.tests)
    return 0


def reached(copy: Path, places: Sequence[str], code: Iterable[Path], seconds: float) -> Reached:
    """What every passing test at some places reaches; ``code`` is what shall be mutated."""
    files = sorted(
        {
            str(file.relative_to(ROOT))
            for place in places
            for file in ([ROOT / place] if place.endswith(".py") else (ROOT / place).glob("*.py"))
            if file.name.startswith("test_")
        }
    )
    tests: Reached = {}
    CACHE.mkdir(parents=True, exist_ok=True)
    sources = [file for folder in TESTS for file in (copy / folder).rglob("*.py")]
    plain = {file: file.read_text(encoding="utf-8") for file in sources}
    for source, text in plain.items():
        source.write_text(recording(str(source.relative_to(copy)), text), encoding="utf-8")
    now = b"".join(path.read_bytes() for path in sorted(code))  # lines move when it is edited
    for file in files:
        digest = hashlib.sha256((ROOT / file).read_bytes() + now).hexdigest()[:12]
        result = CACHE / f"{Path(file).stem}-{digest}.json"
        if not result.is_file():
            print(f"recording {file}", flush=True)
            if _in_fork(lambda f=file, r=result: _record(copy, f, r), seconds) is None:
                print(f"{file} takes more than {seconds:.0f} s: left out", flush=True)
                write_json(result, {})
        tests |= {k: v for k, v in read_json(result).items() if v["passed"]}
    for source, text in plain.items():
        source.write_text(text, encoding="utf-8")
    return tests


def relevant(mutant: Mutant, tests: Reached, seconds: float) -> list[str]:
    """The tests that reach a mutant, the fastest first, as many as fit into ``seconds``."""
    module = {name: test for name, test in tests.items() if mutant.path in test["lines"]}
    lines = set(mutant.lines)
    near = {k: t for k, t in module.items() if lines.intersection(t["lines"][mutant.path])}
    if mutant.at_import or not near:  # run when the module is imported, or by a shared fixture
        near = module
    order: list[str] = []
    total = 0.0
    for name in sorted(near, key=lambda name: near[name]["seconds"]):
        total += near[name]["seconds"]
        if order and total > seconds:
            break
        order.append(name)
    return order


@contextlib.contextmanager
def copies(number: int) -> Iterator[Queue[Path]]:
    """Copies of the working tree, to be changed."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        queue: Queue[Path] = Queue()
        for i in range(number):
            copy = Path(folder, str(i))
            for name in filter(None, names):
                if (ROOT / name).is_file():
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / name, copy / name)
            if (ROOT / ".cache" / "gpt2-bpe").exists():
                (copy / ".cache").mkdir()
                (copy / ".cache" / "gpt2-bpe").symlink_to(ROOT / ".cache" / "gpt2-bpe")
            queue.put(copy)
        yield queue


_CLOCK = iter(range(1_000_000_000, 2_000_000_000))


def survives(mutant: Mutant, copy: Path, tests: Sequence[str], seconds: float) -> bool:
    """Whether all tests pass although the mutant stands in the code."""
    if not tests:
        return True
    path = copy / mutant.path
    for text in (mutant.changed, mutant.source):
        path.write_text(text, encoding="utf-8")
        moment = next(_CLOCK)  # Python takes compiled code of an equal time and size as it is
        os.utime(path, (moment, moment))
        if text is not mutant.source:
            status = _in_fork(lambda: _pytest(copy, tests), seconds)
            if status == 4:  # what the mutant names is the name of a test
                files = sorted({name.split("::")[0] for name in tests})
                status = _in_fork(lambda f=files: _pytest(copy, f), seconds)
    if status not in (0, 1, 2, 3, None):  # passed, failed, not collected, pytest broke, endless
        raise UserError(f"pytest ends with status {status} for {mutant.path}: {' '.join(tests)}")
    return status == 0


def equivalents() -> set[tuple[str, str, str]]:
    """File, old line and new line of mutants that compute the same."""
    rows = EQUIVALENT.read_text(encoding="utf-8").split("\n") if EQUIVALENT.is_file() else []
    found = [row.split("\t") for row in rows if row and not row.startswith("#")]
    return {(path, old, new) for path, old, new, *_ in found}


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("modules", nargs="+", help="files or folders of the code, relative to the project")
    add("--number", type=int, default=100, help="mutants to draw, of all there are")
    add("--seed", type=int, default=0, help="seed of the drawing")
    add("--jobs", type=int, default=2, help="mutants tested at a time")
    add("--seconds", type=float, default=60, help="longest time of tests for a mutant")
    add("--record-seconds", type=float, default=600, help="longest first run of a file of tests")
    add("--tests", nargs="+", help="files or folders of tests, if not all those of the code")
    add("--only", help="change only lines that contain this text")
    return parser.parse_args(args)


def draw(args: argparse.Namespace) -> list[Mutant]:
    """The mutants of a command line."""
    files = []
    for name in args.modules:
        path = ROOT / name
        if not path.exists() or name.split("/")[0] not in TESTS:
            raise UserError(f"{name}: name files or folders within {', '.join(TESTS)}")
        files += [path] if path.is_file() else sorted(path.rglob("*.py"))
    everything = [
        mutant
        for file in dict.fromkeys(files)
        for mutant in mutants_of(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8"))
        if not args.only or args.only in mutant.old
    ]
    print(f"{len(everything)} mutants of {len(files)} files", flush=True)
    random.Random(args.seed).shuffle(everything)
    running = (mutant for mutant in everything if is_python(mutant.changed))
    return sorted(islice(running, args.number), key=lambda mutant: (mutant.path, mutant.start))


def main(argv: Sequence[str] | None = None) -> None:
    """Draw mutants, run them, and print the survivors."""
    args = parse_args(argv)
    os.environ.setdefault("PREFIX_TUNING_SHARED", str(ROOT.parent / "shared"))
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TRANSFORMERS_VERBOSITY="error")
    mutants = draw(args)
    for name in PRELOAD:
        with contextlib.suppress(ImportError):
            pkgutil.resolve_name(name)  # imports it
    same, counts = equivalents(), {"killed": 0, "equivalent": 0, "survived": 0}
    folders = {mutant.path.split("/")[0] for mutant in mutants}
    places = args.tests or sorted({place for folder in folders for place in TESTS[folder]})
    with copies(args.jobs) as queue, ThreadPoolExecutor(args.jobs) as pool:
        first = queue.get()
        code = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
        tests = reached(first, places, code, args.record_seconds)
        chosen = {name for mutant in mutants for name in relevant(mutant, tests, args.seconds)}
        if chosen and _in_fork(lambda: _pytest(first, sorted(chosen)), 3600) != 0:
            raise UserError("the tests fail without a mutant: mend them, or name others by --tests")
        queue.put(first)

        def run(mutant: Mutant) -> tuple[Mutant, str, int]:
            if (mutant.path, mutant.old.strip(), mutant.new.strip()) in same:
                return mutant, "equivalent", 0
            chosen, copy = relevant(mutant, tests, args.seconds), queue.get()
            try:
                alive = survives(mutant, copy, chosen, 5 * args.seconds + 60)
            finally:
                queue.put(copy)
            return mutant, "survived" if alive else "killed", len(chosen)

        for mutant, outcome, n_test in pool.map(run, mutants):
            counts[outcome] += 1
            if outcome == "survived":
                print(f"survived {n_test} tests:\n{mutant.diff()}", flush=True)
    of = counts["killed"] + counts["survived"]
    print(
        f"{counts['killed']} of {of} killed ({counts['killed'] / max(of, 1):.1%}); "
        f"{counts['equivalent']} equivalent ones left out"
    )


if __name__ == "__main__":
    run_command(main)
