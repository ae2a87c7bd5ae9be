"""Read a mapping ``parameters`` of mergekit's YAML: which keys may stand where, with which values.

A value is a scalar, a list of them (a gradient), or ``{filter, value}``, one or a list. Numbers and
switches may be written as text and by the rules of YAML 1.1 (``yes``), as mergekit has it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, Protocol

from biomistral.errors import did_you_mean
from biomistral.merging.catalogue import METHODS, Parameter, Value
from biomistral.merging.parameters import Entry, Setting

_FLAGS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_RESCALES = ("density", "l1_norm", "none")


class Level(enum.Enum):
    """Where parameters stand."""

    ALL = "of the merge"
    SLICE = "of a slice"
    MODEL = "of a model"


class Notes(Protocol):
    """Where to say what is wrong, and what has no effect."""

    problems: list[str]
    warnings: list[str]


def read_settings(
    value: Any, where: str, method_and_level: tuple[str, Level], notes: Notes
) -> dict[str, Setting]:
    """Return what the parameters of a method are set to in one place, by field."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        notes.problems.append(f"{where}: is not a mapping of parameters to values")
        return {}
    method, level = method_and_level
    rules = METHODS[method]
    by_key = {parameter.key: parameter for parameter in rules.parameters}
    settings: dict[str, Setting] = {}
    for key, given in value.items():
        place = f"{where}.{key}"
        parameter = by_key.get(key)
        if key in rules.without_effect:
            notes.warnings.append(f"{place} has no effect: it changes nothing in {method}")
        elif key in rules.only:
            _check_only(given, place, only=rules.only[key], notes=notes)
        elif parameter is None:
            allowed = sorted(by_key)
            hint = did_you_mean(str(key), allowed)
            listed = ", ".join(allowed) or "none"
            notes.problems.append(
                f"{place}: {method} has no such parameter{hint or f'; there are: {listed}'}"
            )
        elif level is Level.MODEL and parameter in rules.per_merge:
            notes.problems.append(
                f"{place}: counts for all models together, and has no effect at one of them; "
                "write it under parameters of the slice or of the whole"
            )
        else:  # kept even if nothing in it could be read, so as not to be missed, too
            settings[parameter.field] = Setting(
                place, tuple(_entries(given, parameter, place, notes))
            )
    return settings


def _check_only(given: Any, place: str, *, only: bool, notes: Notes) -> None:
    """Note a switch of mergekit that is set to what is not implemented."""
    if _flag(given) is not only:
        notes.problems.append(
            f"{place}: {str(given).lower()} is not implemented here; only {str(only).lower()} is, which is "
            "also what counts without it"
        )


def _entries(given: Any, parameter: Parameter, place: str, notes: Notes) -> Iterator[Entry]:
    """Read a value as filters; a plain one is one entry that matches all."""
    items = given if isinstance(given, list) else [given]
    if not any(isinstance(item, dict) for item in items):
        if values := _values(given, parameter, place, notes):
            yield Entry(values)
        return
    for index, item in enumerate(items):
        at = f"{place}[{index}]" if isinstance(given, list) else place
        if not isinstance(item, dict) or "value" not in item or item.keys() - {"value", "filter"}:
            notes.problems.append(f"{at}: is not of the form {{filter: ..., value: ...}}")
            continue
        part = item.get("filter")
        if part is not None and not (isinstance(part, str) and part):
            notes.problems.append(f"{at}.filter: {part!r} is no part of a tensor's name")
        if values := _values(item["value"], parameter, f"{at}.value", notes):
            yield Entry(values, part)


def _values(given: Any, parameter: Parameter, place: str, notes: Notes) -> tuple[Value, ...]:
    """Read a scalar or a gradient."""
    if given == []:
        notes.problems.append(f"{place}: a list is empty; give a value or a list of values")
        return ()
    values: list[Value] = []
    for item in given if isinstance(given, list) else [given]:
        try:
            values.append(_scalar(item, parameter))
        except ValueError as error:
            notes.problems.append(f"{place}: {error}")
    return tuple(values)


def _scalar(given: Any, parameter: Parameter) -> Value:
    """Read one value. Raises ``ValueError`` that says what is wrong with it."""
    flag = _flag(given)
    if parameter.kind == "flag":
        if flag is None:
            raise ValueError(f"{given!r} is neither true nor false")
        return flag
    if parameter.kind == "rescale":
        if flag is not None:
            return "density" if flag else "none"
        if str(given) not in _RESCALES:
            raise ValueError(f"{given!r} is not true, false or one of {', '.join(_RESCALES)}")
        return str(given)
    number = _number(given)
    if not parameter.allows(number):
        raise ValueError(f"{number:g} is outside {parameter.interval}")
    if parameter.kind == "whole" and number != int(number):
        raise ValueError(f"{number:g} is no whole number")
    return int(number) if parameter.kind == "whole" else number


def _flag(given: Any) -> bool | None:
    """Read a switch; None if it is none."""
    if isinstance(given, float) and given in {0.0, 1.0}:  # as mergekit has numbers for switches
        return bool(given)
    if isinstance(given, bool | int | str):
        return _FLAGS.get(str(given).lower())
    return None


def _number(given: Any) -> float:
    try:
        return float("" if isinstance(given, bool) else given)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{given!r} is not a number") from None
