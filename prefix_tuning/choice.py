"""Choosing a parametrisation by its name: its own options, and a class on top of any of them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, get_args, get_type_hints

from transformers import PretrainedConfig

from prefix_tuning import schema
from prefix_tuning.errors import UserError
from prefix_tuning.parametrizations import PARAMETRIZATIONS
from prefix_tuning.prefix import Prefix
from prefix_tuning.shape import PrefixShape

SHARED = ("shape", "length", "dropout", "sites", "values")
"""Arguments of constructors that are no options of one parametrisation."""
_WORDS = {"yes": True, "true": True, "no": False, "false": False}
_EXPECTED = {int: "a whole number", float: "a number", bool: "yes or no", str: "text"}


def parametrization(name: str) -> type[Any]:
    """The class of a name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in PARAMETRIZATIONS:
        raise UserError(f"--parametrization {name}: use one of {', '.join(PARAMETRIZATIONS)}")
    return PARAMETRIZATIONS[name]


def check_independent(name: str, what: str) -> None:
    """Refuse a parametrisation whose keys and values the frozen model computes.

    Args:
        what: has room for keys and values only, for the message.

    Raises:
        UserError: it is one, or there is none of that name.
    """
    if parametrization(name).uses_model:
        raise UserError(
            f"--parametrization {name}: the frozen model takes part in computing its keys and "
            f"values, which is possible with GPT-2 and its kind, not with {what}"
        )


def own_options(name: str) -> dict[str, type]:
    """What can be chosen of a parametrisation besides length, dropout and sites.

    Returns:
        option -> int, float, bool or str, from the annotations of its constructor, or else from
        the defaults.
    """
    constructor = parametrization(name).__init__
    hints = get_type_hints(constructor)
    found = {}
    for option, parameter in [*inspect.signature(constructor).parameters.items()][1:]:
        if option not in SHARED:
            kinds = [*get_args(hints.get(option)), hints.get(option), type(parameter.default)]
            found[option] = next((kind for kind in kinds if kind in _EXPECTED), str)
    return found


def parse_options(name: str, text: str | None, flag: str = "--prefix_options") -> dict[str, Any]:
    """Read the options of a parametrisation from a flag: ``rank=4,scale=0.5``.

    Raises:
        UserError: there is no such option, or its value is of another type, or out of the range
            that metadata have.
    """
    limits = {field.name: field.metadata for field in dataclasses.fields(schema.Options)}
    kinds, found = own_options(name), dict[str, Any]()
    for part in (text or "").split(",") if text else ():
        option, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise UserError(f"{flag} {text}: write option=value, with commas between")
        if option not in kinds:
            known = f"its options are {', '.join(kinds)}" if kinds else "it has no options"
            raise UserError(f"{flag} {option}: not of the parametrisation {name}; {known}")
        if option in found:
            raise UserError(f"{flag} {option}: given twice")
        try:
            found[option] = _convert(value, kinds[option])
        except (ValueError, KeyError) as error:
            expected = _EXPECTED[kinds[option]]
            raise UserError(f"{flag} {option}={value}: write {expected}") from error
        reach = limits.get(option)
        if reach and not reach["low"] <= found[option] <= reach["high"]:
            raise UserError(
                f"{flag} {option}={value}: must be from {reach['low']} to {reach['high']}"
            )
    return found


def _convert(value: str, kind: type) -> int | float | bool | str:
    if kind is bool:
        return _WORDS[value.lower()]
    number = kind(value)
    if kind is float and not math.isfinite(number):
        raise ValueError(value)
    return number


def options_of(name: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a parametrisation's constructor besides the shape.

    Args:
        shared: options that several parametrisations have; this one gets those that it takes.
        own: its own options, which replace those of the same name.

    Raises:
        UserError: it lacks an option, or stands at one attention only.
    """
    parameters = inspect.signature(parametrization(name).__init__).parameters
    sites = tuple(shared.get("sites", ("self",)))
    if "sites" not in parameters and sites != ("self",):
        raise UserError(
            f"--parametrization {name}: its constructor takes no sites, so it cannot stand at "
            f"{', '.join(sites)}"
        )
    options = {option: value for option, value in shared.items() if option in parameters}
    options |= own
    for option in own_options(name):
        if option not in options and parameters[option].default is inspect.Parameter.empty:
            raise UserError(f"--parametrization {name}: add --prefix_options {option}=...")
    return options


def build(
    name: str,
    shape: PrefixShape | PretrainedConfig,
    shared: Mapping[str, Any],
    own: Mapping[str, Any],
) -> Prefix:
    """Make a prefix by name; arguments and errors as of :func:`options_of`."""
    options = options_of(name, shared, own)
    with _naming(name):
        return _not_empty(parametrization(name)(shape, **options))


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Name the parametrisation in what its constructor refuses."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--parametrization {name}: {error}") from error


def _not_empty(prefix: Prefix) -> Prefix:
    """The prefix, unless an option leaves it nothing to train."""
    for name, parameter in prefix.named_parameters():
        if not parameter.numel():
            raise ValueError(f"{name} has shape {[*parameter.shape]}: an option is too small")
    return prefix


class ChosenPrefix(Prefix):
    """A prefix whose parametrisation is chosen when it is made.

    Base of the classes that people know from the originals, which add methods to a prefix of any
    parametrisation.
    """

    def choose(
        self,
        name: str,
        shape: PrefixShape | PretrainedConfig,
        shared: Mapping[str, Any],
        own: Mapping[str, Any],
    ) -> None:
        """Become a new prefix of the parametrisation ``name``; the rest as :func:`build`."""
        options = options_of(name, shared, own)
        # The originals' parameters are this module's own (``wte.weight``), so it cannot hold a
        # prefix: it has to be one. Its class becomes one that has the methods of both, and from
        # here on super() is the parametrisation.
        base: Any = type(self)
        kind: Any = parametrization(name)
        self.__class__ = _on_top(base, kind)
        with _naming(name):
            super().__init__(shape, **options)
            _not_empty(self)

    @classmethod
    def of(cls, prefix: Prefix) -> Self:
        """The same prefix as an object of this class, in eval mode."""
        chosen = cls.__new__(cls)
        chosen.choose(prefix.parametrization, prefix.shape, {}, prefix.options())
        chosen.load_state_dict(prefix.state_dict())
        return chosen.eval()


@functools.cache
def _on_top(base: Any, kind: Any) -> Any:
    """``base`` with ``kind`` behind it in the order of lookup."""
    names = {"__module__": base.__module__, "__qualname__": base.__qualname__}
    return type(base.__name__, (base, kind), {**names, "__doc__": base.__doc__})
