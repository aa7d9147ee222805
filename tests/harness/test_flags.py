"""Command lines made of dataclasses."""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import sys
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Literal

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from harness import flags, ranges
from prefix_tuning.errors import UserError


@dataclass
class Model:
    """The model."""

    name: str = flags.required("folder of the model")
    length: int | None = flags.flag(None, "prefix length", aliases=("--slots",))
    deep: str = flags.yes_no("no", "one more hidden layer")


@dataclass
class Request(Model):
    """The run."""

    seed: int = flags.flag(42, "random seed")
    fp16: bool = flags.flag(False, "half precision")
    pad: bool = flags.flag(True, "pad")
    files: tuple[str, ...] = flags.flag((), "files")
    kind: Literal["a", "b"] = flags.flag("a", "kind")
    old: str | None = flags.flag(None, flags.HIDDEN)


def test_values_have_the_types_of_their_fields() -> None:
    plain = flags.parse(Request, ["--name", "m"])
    assert plain == Request("m", None, "no", 42, False, True, (), "a")
    given_all = "--name=m --slots 3 --deep yes --seed 7 --fp16 --no_pad --files a b --kind b"
    assert flags.parse(Request, given_all.split()) == Request(
        "m", 3, "yes", 7, True, False, ("a", "b"), "b"
    )
    assert flags.parse(Request, "--name m --fp16 false --pad yes".split()).fp16 is False


def test_a_command_gives_the_values_it_was_made_of() -> None:
    values = {"name": "a b", "length": 0, "fp16": True, "seed": 3, "old": None, "deep": "yes"}
    read = vars(flags.parse(Request, flags.command(values)))
    assert {name: read[name] for name in values} == values
    assert flags.command({"fp16": False, "old": None}) == []


def test_a_flag_is_declared_once_for_two_commands() -> None:
    @dataclass
    class Launcher:
        """Launch."""

        seed: int = flags.like(Request, "seed", 101)
        deep: str | None = flags.like(Request, "deep", None)
        slots: int | None = flags.like(Request, "length")

    parser = flags.Parser(Launcher)
    help_of = {action.dest: action.help for action in parser._actions}
    assert help_of["seed"] == "random seed"
    assert help_of["deep"] == "one more hidden layer"
    (read,), rest = parser.read_known("--name m --seed 3".split())
    assert (read.seed, read.deep, read.slots, rest) == (3, None, None, ["--name", "m"])
    with pytest.raises(SystemExit):
        parser.read(["--deep", "maybe"])


def test_defaults_can_come_from_elsewhere() -> None:
    parser = flags.Parser(Request, defaults={"name": "m", "seed": 3, "fp16": True})
    (read,) = parser.read([])
    assert (read.name, read.seed, read.fp16) == ("m", 3, True)


@pytest.mark.parametrize(
    ("argument", "advice"),
    [
        ("--lenght=3", "--lenght: there is no such flag; did you mean --length?"),
        ("--len", "--len: there is no such flag"),  # no abbreviations
        ("--zzz", "--help lists all"),
        ("folder", "folder: there is no such flag"),
    ],
)
def test_an_unknown_flag_is_named_with_what_was_meant(argument: str, advice: str) -> None:
    with pytest.raises(UserError) as error:
        flags.parse(Request, ["--name", "m", argument, "3"])
    assert advice in str(error.value)


def test_help_shows_groups_and_true_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flags.parse(Request, ["--help"], "Do it.")
    shown = capsys.readouterr().out
    for text in ("Do it.", "the model:", "the run:", "random seed (default: 42)"):
        assert text in shown
    assert "half precision\n" in shown
    assert "--old" not in shown
    assert "--no_pad" not in shown


def test_wrong_values_end_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--name", "m", "--seed", "x"], [], ["--name", "m", "--fp16", "perhaps"]):
        with pytest.raises(SystemExit) as stop:
            flags.parse(Request, argv)
        assert stop.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


@given(st.floats() | st.integers(-(2**33), 2**33) | st.none())
def test_checks_accept_their_interval(value: float | None) -> None:
    def passes(allowed: ranges.Range) -> bool:
        message = ""
        try:
            allowed.check("some_flag", value)
        except UserError as error:
            message = str(error)
        assert not message or message.startswith(f"--some_flag {value}: ")
        return not message

    number = math.nan if value is None else value
    given_one = value is not None
    assert passes(ranges.COUNT) == (not given_one or 1 <= number < 2**31)
    assert passes(ranges.POSITIVE) == (not given_one or 0 < number < math.inf)
    assert passes(ranges.NOT_NEGATIVE) == (not given_one or 0 <= number < math.inf)
    assert passes(ranges.FINITE) == (not given_one or math.isfinite(number))
    assert passes(ranges.PROBABILITY) == (not given_one or 0 < number <= 1)
    assert passes(ranges.FRACTION) == (not given_one or 0 <= number < 1)
    assert passes(ranges.SEED) == (not given_one or 0 <= number <= 4294967295)


def test_a_range_stands_beside_its_flag() -> None:
    @dataclass
    class Sizes:
        """Sizes."""

        size: int | None = flags.flag(None, "size", within=ranges.COUNT)
        rate: float = flags.flag(0.5, "rate", within=ranges.POSITIVE)

    assert flags.parse(Sizes, ["--size", "3"]) == Sizes(3, 0.5)
    for given_one, says in (
        (f"--size={10**400}", "must be at most 2147483647"),
        ("--size=0", "--size 0: must be at least 1"),
        ("--rate=nan", "--rate nan: must be positive, and a finite number"),
        ("--rate=inf", "--rate inf"),
    ):
        with pytest.raises(UserError, match=says):
            flags.parse(Sizes, [given_one])
    assert flags.ranges_of(Sizes)["rate"] is ranges.POSITIVE


@dataclass(frozen=True)
class Kept:
    """What is kept."""

    kind: str = flags.flag("a", "a kind", choices=("a", "b"), aliases=("--ways",))
    whole: bool = flags.flag(True, "all of it")
    size: str = flags.flag("all", "a size, or all")
    rate: float = flags.flag(0.5, "a rate")
    keep: bool = flags.flag(False, "keep it")
    files: tuple[str, ...] = flags.flag((), "files")


def test_values_by_name_are_read_as_a_command_line_is() -> None:
    values = {"kind": "b", "size": 5, "rate": 1, "keep": True, "files": ["x", Path("y")]}

    def made(**values: object) -> Kept:
        (kept,) = flags.Parser(Kept, given=values).read([])
        return kept

    read = made(**values)
    assert read == Kept("b", True, "5", 1.0, True, ("x", "y"))
    assert isinstance(read.rate, float)
    assert read == flags.parse(Kept, "--kind b --size 5 --rate 1 --keep --files x y".split())
    assert made(rate=None) == made()
    assert made(ways="a") == made(kind="a")
    assert not made(no_whole=True).whole
    assert not made(whole=False).whole
    for wrong, message in (
        ({"kind": "c"}, "--kind c: use one of a, b"),
        ({"rate": "fast"}, "--rate fast: could not convert"),
        ({"keep": "perhaps"}, "--keep perhaps: 'perhaps' is neither yes nor no"),
        ({"sice": 3}, "--sice: there is no such flag; did you mean --size?"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            made(**wrong)


def test_choices_and_exclusions() -> None:
    flags.one_of(["a", "b"], mode="a")
    with pytest.raises(UserError, match="--mode c: use one of a, b"):
        flags.one_of(["a", "b"], mode="c")
    flags.exclude(fp16=True, bf16=False, folder=None)
    with pytest.raises(UserError, match="--fp16 and --folder exclude each other"):
        flags.exclude(fp16=True, bf16=False, folder="f")


def test_flags_need_neither_torch_nor_transformers() -> None:
    code = "import sys, harness.flags, harness.folder, harness.launch; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "harness.flags" in loaded
    assert not {"torch", "transformers", "numpy"} & set(loaded)


def test_arguments_are_utf8() -> None:
    @dataclass(frozen=True)
    class Flags:
        """Flags."""

        text: str = flags.flag("", "some text")

    for text in ("caf\udce9", "\ud83d"):  # as Python reads the bytes of another encoding
        with pytest.raises(UserError, match=r"the argument .*\\ud.* is not UTF-8 text"):
            flags.parse(Flags, ["--text", text])
    assert flags.parse(Flags, ["--text", "\U0001f600"]).text == "\U0001f600"


@pytest.mark.parametrize("name", ["data_dir", "train_file", "model_name_or_path"])
def test_a_path_of_a_variable_that_is_not_set(name: str) -> None:
    """An empty path would be the folder where one is, or as if the flag were not given."""
    kind = make_dataclass("Flags", [(name, str | None, flags.flag(None, "a path"))])
    with pytest.raises(UserError, match=f"--{name} is empty: give a path"):
        flags.parse(kind, [f"--{name}", ""])
    assert getattr(flags.parse(kind, []), name) is None


@pytest.mark.parametrize("text", ["yes true 1 y t", "no false 0 n f"])
def test_every_word_for_yes_and_no_in_any_case(text: str) -> None:
    for word in text.split():
        for written in (word, word.upper(), word.title()):
            assert flags._boolean(written) is text.startswith("yes")
    with pytest.raises(argparse.ArgumentTypeError, match="neither yes nor no"):
        flags._boolean("maybe")
