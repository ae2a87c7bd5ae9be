"""The table of methods agrees with itself and with the functions of the methods."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from biomistral.merging.catalogue import METHODS, OTHER_METHODS, Parameter
from biomistral.merging.methods import METHODS as FUNCTIONS
from biomistral.merging.methods import Share


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_fields_are_those_of_the_function(name):
    keywords = {
        parameter.name
        for parameter in inspect.signature(FUNCTIONS[name]).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert {parameter.field for parameter in METHODS[name].per_merge} == keywords
    of_a_share = {field.name for field in fields(Share)}
    assert {parameter.field for parameter in METHODS[name].per_model} <= of_a_share


@pytest.mark.parametrize("name", METHODS)
def test_keys_are_unique_and_defaults_allowed(name):
    method = METHODS[name]
    keys = [parameter.key for parameter in method.parameters]
    keys += [*method.without_effect, *method.only]
    assert len(keys) == len(set(keys))
    for parameter in method.parameters:
        if parameter.kind in {"number", "whole"} and parameter.default is not None:
            assert parameter.allows(float(parameter.default))


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("(0, 1]", [1e-9, 1], [0, 1.1, -1, float("nan")]),
        ("[0, 1)", [0, 0.9], [1]),
        ("(-inf, inf)", [-1e30, 0], [float("inf"), float("nan")]),
        ("[0, inf)", [0, 1e30], [-1e-9, float("inf")]),
    ],
)
def test_an_interval_says_what_is_allowed(interval, inside, outside):
    parameter = Parameter("x", "", interval=interval)
    assert all(parameter.allows(number) for number in inside)
    assert not any(parameter.allows(number) for number in outside)


def test_what_is_not_here_is_not_here():
    assert not METHODS.keys() & OTHER_METHODS.keys()


def described(parameter):
    """Say key, interval and default of a parameter as docs/merging.md does."""
    if parameter.kind == "flag":
        allowed = "switch"
    elif parameter.kind == "rescale":
        allowed = "switch or `l1_norm`"
    else:
        allowed = "any" if parameter.interval == "(-inf, inf)" else parameter.interval
    default = "" if parameter.default is None else f"; {parameter.default}"
    default = {"; True": "; true", "; False": "; false", "; density": "; true"}.get(
        default, default
    )
    return f"`{parameter.key}` ({allowed}{default})"


@pytest.mark.parametrize("name", METHODS)
def test_the_page_for_users_has_every_method_and_parameter(name):
    method = METHODS[name]
    least, most = method.models
    count = f"{least}" if least == most else f"{least} or more"
    row = " | ".join(
        [
            f"| `{name}`",
            method.base,
            count,
            ", ".join(map(described, method.per_model)) or "-",
            ", ".join(map(described, method.per_merge)) or "-",
            f"{method.paper} |",
        ]
    )
    page = Path(__file__).resolve().parents[2] / "docs" / "merging.md"
    assert row in page.read_text(encoding="utf-8").splitlines()
