"""Values of parameters in mergekit's YAML."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from biomistral.merging.setting_values import Level, read_settings


def read(method, given, level=Level.ALL):
    notes = SimpleNamespace(problems=[], warnings=[])
    settings = read_settings(given, "parameters", (method, level), notes)
    return settings, notes


def values(method, key, given):
    settings, notes = read(method, {key: given})
    assert notes.problems == []
    (setting,) = settings.values()
    assert setting.where == f"parameters.{key}"
    return [(entry.filter, entry.values) for entry in setting.entries]


@pytest.mark.parametrize("given", [1, 1.0, "1", "1e0", "+1.0"])
def test_a_number_may_be_written_in_many_ways(given):
    assert values("linear", "weight", given) == [(None, (1.0,))]


@pytest.mark.parametrize(
    ("given", "read_as"),
    [(True, True), ("yes", True), ("On", True), (1, True), ("FALSE", False), ("no", False)],
)
def test_a_switch_may_be_written_as_in_yaml_1_1(given, read_as):
    assert values("linear", "normalize", given) == [(None, (read_as,))]


def test_keys_are_mergekits_and_fields_ours():
    settings, _ = read("task_arithmetic", {"lambda": 2, "weight": 1})
    assert list(settings) == ["scale", "weight"]
    settings, _ = read("passthrough", {"scale": 2})
    assert list(settings) == ["weight"]


def test_a_whole_number_stays_whole():
    ((_, (number,)),) = values("karcher", "max_iter", "20")
    assert (number, type(number)) == (20, int)
    _, notes = read("karcher", {"max_iter": 2.5})
    assert notes.problems == ["parameters.max_iter: 2.5 is no whole number"]


def test_filters_hold_gradients_and_keep_their_order():
    given = [{"filter": "mlp", "value": [0, "1"]}, {"value": 0.5}]
    assert values("slerp", "t", given) == [("mlp", (0.0, 1.0)), (None, (0.5,))]


def test_a_gradient_of_switches_is_read():
    assert values("ties", "normalize", [True, "no"]) == [(None, (True, False))]


@pytest.mark.parametrize("given", [{}, None])
def test_nothing_is_nothing(given):
    settings, notes = read("ties", given)
    assert (settings, notes.problems) == ({}, [])


def test_a_value_that_cannot_be_read_is_not_missed_as_well():
    settings, notes = read("slerp", {"t": "half"})
    assert "t" in settings
    assert notes.problems == ["parameters.t: 'half' is not a number"]


@pytest.mark.parametrize("given", [None, {}, [], [[1]], "1,5", True])
def test_what_is_no_number_is_refused(given):
    _, notes = read("slerp", {"t": given})
    assert len(notes.problems) == 1
    assert notes.problems[0].startswith("parameters.t: ")


def test_what_counts_for_all_has_no_place_at_a_model():
    _, notes = read("ties", {"lambda": 1}, Level.MODEL)
    assert notes.problems[0].startswith("parameters.lambda: counts for all models together")
    assert read("ties", {"lambda": 1}, Level.SLICE)[1].problems == []
