"""Command lines made of dataclasses, and the checks that their values share.

A field made with :func:`flag` is declared once: its type, default, help and choices. Metadata of
fields are keywords of ``argparse``, which transformers' ``HfArgumentParser`` reads as well. Only
the standard library is imported, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import sys
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from harness import ranges
from harness.ranges import Range
from prefix_tuning.errors import UserError

T = TypeVar("T")
HIDDEN = argparse.SUPPRESS
"""As help: accepted, but not shown."""
YES_NO = ("yes", "no")


def flag(default: Any, help: str, **more: Any) -> Any:
    """A field with a default.

    Args:
        more: keywords of ``add_argument``, such as ``choices``; ``aliases``, further names;
            ``positional=True``, an argument without dashes; ``within``, the numbers it takes
            (a :class:`~harness.ranges.Range`).
    """
    return dataclasses.field(default=default, metadata={"help": help, **more})


def required(help: str, **more: Any) -> Any:
    """A field that has to be given."""
    return dataclasses.field(metadata={"help": help, **more})


WITHIN = "within"
"""Metadata of a field: the range of its numbers."""


def ranges_of(cls: type) -> dict[str, Range]:
    """The ranges of a dataclass's fields that have one, by name."""
    return {f.name: f.metadata[WITHIN] for f in dataclasses.fields(cls) if WITHIN in f.metadata}


def yes_no(default: str | None, help: str) -> Any:
    """A field of the originals' kind: ``yes`` or ``no``."""
    return flag(default, help, choices=YES_NO)


def like(owner: type, name: str, default: Any = dataclasses.MISSING, **changes: Any) -> Any:
    """The flag of another dataclass, perhaps with another default: a launcher's for its trainer."""
    field = {field.name: field for field in dataclasses.fields(owner)}[name]
    default = field.default if default is dataclasses.MISSING else default
    return dataclasses.field(default=default, metadata={**field.metadata, **changes})


class ShowDefaults(argparse.HelpFormatter):
    """Shows a default where there is one and the text does not say it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        untold = action.default is False or action.default in (None, "", (), argparse.SUPPRESS)
        if untold or "default" in text:
            return text
        return f"{text} (default: %(default)s)"


class _Help(ShowDefaults):
    """Lists flags once, so that the usage is what has to be given."""

    def _format_usage(
        self, usage: str | None, actions: Iterable[argparse.Action], groups: Any, prefix: str | None
    ) -> str:
        needed = [action for action in actions if action.required or not action.option_strings]
        return f"{super()._format_usage(usage, needed, [], prefix).rstrip()} [flags]\n\n"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Paragraphs, of which those that are indented (commands) keep their lines."""
        return "\n\n".join(
            part if part.startswith(" ") else super(_Help, self)._fill_text(part, width, indent)
            for part in text.strip("\n").split("\n\n")
        )


class Parser(argparse.ArgumentParser):
    """Reads a command line into instances of dataclasses.

    Args:
        classes: each makes a group of the help, titled by its docstring; so does every base class
            with fields of its own. What several have is one flag: that of the first.
        description: the first paragraphs of the help; one that is indented is an example.
        defaults: instead of those of the fields, by name, read as their texts would be; a field
            that is required is not where it has one.
        given: values that a command line may replace, by name; None is not given, and what no
            class has is unknown, as an argument would be.

    Raises:
        UserError: a value is not what its flag takes.
    """

    def __init__(
        self,
        *classes: type,
        description: str | None = None,
        defaults: Mapping[str, Any] | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(description=description, formatter_class=_Help, allow_abbrev=False)
        self.classes = classes
        given = {name: value for name, value in (given or {}).items() if value is not None}
        for cls in classes:
            _add_fields(self, cls, {**(defaults or {}), **given})
        fields = {action.dest for action in self._actions}
        self.others = command({k: v for k, v in given.items() if k not in fields})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")

    def read_known(self, argv: Sequence[str] | None) -> tuple[tuple[Any, ...], list[str]]:
        """An instance of each class, and the arguments that belong to none.

        Raises:
            UserError: a number is outside the range of its flag, a path is empty (of a variable of
                the shell that is not set), or an argument is not UTF-8.
        """
        argv = [*self.others, *(sys.argv[1:] if argv is None else argv)]
        _check_utf8(argv)
        values, rest = self.parse_known_args(argv)
        made = []
        for cls in self.classes:
            names = [field.name for field in dataclasses.fields(cls) if field.init]
            given = {name: getattr(values, name) for name in names}
            made.append(
                cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
            )
            ranges.check_all(ranges_of(cls), vars(made[-1]))
            for name in names:
                if given[name] == "" and name.endswith(("_dir", "_file", "_path")):
                    raise UserError(f"--{name} is empty: give a path, or leave the flag out")
        return tuple(made), rest

    def read(self, argv: Sequence[str] | None) -> tuple[Any, ...]:
        """An instance of each class.

        Raises:
            UserError: there is an argument that no class has; it names the likeliest meant.
        """
        made, rest = self.read_known(argv)
        if rest:
            self.refuse_unknown(rest)
        return made

    def known(self) -> list[str]:
        """All flags."""
        return [text for action in self._actions for text in action.option_strings]

    def refuse_unknown(self, rest: Sequence[str]) -> NoReturn:
        """Name the first unknown argument and the flag that it resembles."""
        name = rest[0].split("=")[0]
        close = difflib.get_close_matches(name, self.known(), n=1)
        advice = f"did you mean {close[0]}?" if close else "--help lists all"
        raise UserError(f"{name}: there is no such flag; {advice}")


def _check_utf8(argv: Sequence[str]) -> None:
    """Refuse half a surrogate pair, which Python makes of other bytes and no tokenizer takes."""
    for argument in argv:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"the argument {argument!a} is not UTF-8 text: type it again"
            ) from error


def parse(cls: type[T], argv: Sequence[str] | None, description: str | None = None) -> T:
    """The command line as an instance of one dataclass.

    Raises:
        UserError: there is a flag that it does not have.
    """
    return typing.cast(T, Parser(cls, description=description).read(argv)[0])


def _add_fields(parser: Parser, cls: type, defaults: Mapping[str, Any]) -> None:
    hints = typing.get_type_hints(cls)
    owners: dict[str, type] = {}
    for base in reversed(cls.__mro__):
        for name in inspect.get_annotations(base):
            owners.setdefault(name, base)
    groups: dict[type, Any] = {}
    for field in dataclasses.fields(cls):
        if not field.init or f"--{field.name}" in parser._option_string_actions:
            continue
        owner = owners[field.name]
        if owner not in groups:
            title = (owner.__doc__ or owner.__name__).split("\n")[0].rstrip(".")
            groups[owner] = parser.add_argument_group(title[:1].lower() + title[1:])
        _add_field(groups[owner], field, hints[field.name], defaults)


def _add_field(
    group: Any, field: dataclasses.Field[Any], hint: Any, defaults: Mapping[str, Any]
) -> None:
    more = {k: v for k, v in field.metadata.items() if k != WITHIN}
    names = [f"--{field.name}", *more.pop("aliases", ())]
    more |= _of_type(hint, more)
    default = field.default
    if field.name in defaults:
        default = _read_default(field.name, defaults[field.name], more)
    is_required = default is dataclasses.MISSING
    if more.pop("positional", False):
        names = [field.name]
        if not is_required:
            more |= {"nargs": "?", "default": default}
    elif is_required:
        more["required"] = True
    else:
        more["default"] = default
    if not names[0].startswith("-"):
        group.add_argument(*names, **more)
        return
    group.add_argument(*names, dest=field.name, **more)
    if hint is bool and default is True:
        off = {"dest": field.name, "action": "store_false", "default": True}
        group.add_argument(f"--no_{field.name}", help=HIDDEN, **off)


def _of_type(hint: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    """How ``argparse`` reads a value of this type."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
    if hint is bool:
        return {"nargs": "?", "const": True, "type": _boolean, "metavar": "yes|no"}
    if typing.get_origin(hint) is typing.Literal:
        return {"choices": typing.get_args(hint)}
    if typing.get_origin(hint) is tuple:
        return {"nargs": more.get("nargs", "+"), "type": typing.get_args(hint)[0]}
    return {} if hint is str else {"type": hint}


def _read_default(name: str, value: Any, more: Mapping[str, Any]) -> Any:
    """A value as its flag reads it."""
    if value is None:
        return None
    if isinstance(value, list | tuple):
        return tuple(_read_default(name, part, more) for part in value)
    try:
        read = more.get("type", str)(str(value))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UserError(f"--{name} {value}: {error}") from error
    one_of(more.get("choices") or [read], **{name: read})
    return read


def _boolean(text: str) -> bool:
    if text.lower() in ("yes", "true", "1", "y", "t"):
        return True
    if text.lower() in ("no", "false", "0", "n", "f"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither yes nor no")


def command(values: Mapping[str, object]) -> list[str]:
    """Arguments that give these values; None is left out, and True is the flag alone."""
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in values.items()
        if value is not None and value is not False
    ]


def one_of(known: Collection[object] | Iterable[object], **flags: object) -> None:
    """Raise :class:`UserError` for a value that is not among those known."""
    known = list(known)
    for name, value in flags.items():
        if value is not None and value not in known:
            raise UserError(f"--{name} {value}: use one of {', '.join(map(str, known))}")


def exclude(**flags: object) -> None:
    """Raise :class:`UserError` where more than one flag is given (not None, False or empty)."""
    given = [f"--{name}" for name, value in flags.items() if value]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other")
