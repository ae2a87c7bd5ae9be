"""``biomistral bench``: models side by side, as a table and as numbers."""

from __future__ import annotations

import json

import pytest

from biomistral.cli import benching
from biomistral.models.costs import Cost

COST = Cost(
    *("base", "CPU", 2, 1_100_000, 4_400_000, 2_200_000, 3_000_000, 5_000_000),
    *(1.5, 512, 8, 100.0, 10.0, 40.0),
)


@pytest.fixture
def measured(monkeypatch):
    """Stand in for the processes that measure; remember what they were asked."""
    asked = []

    def measure(name, folder, settings):
        asked.append((name, str(folder), settings))
        speed = 10.0 * len(asked)
        return Cost(**{**cost_fields(), "model": name, "writing_tokens_per_second": speed})

    monkeypatch.setattr("biomistral.models.costs.measure_apart", measure)
    return asked


def cost_fields():
    return {name: getattr(COST, name) for name in COST.__slots__}


def test_models_are_shown_side_by_side_and_written(command, measured, tiny_model, tmp_path):
    out = tmp_path / "costs.json"
    done = command("bench", f"a={tiny_model}", f"b={tiny_model}", "--batch", "8", "--json", out)
    assert done.status == 0
    assert "Reading 512 tokens" in done.out
    assert "20.0/s (0.50)" in done.out
    assert [row["model"] for row in json.loads(out.read_text())] == ["a", "b"]
    assert [(name, settings.batch) for name, _, settings in measured] == [("a", 8), ("b", 8)]


def test_models_of_a_run_go_by_their_names(command, measured, tmp_path):
    (tmp_path / "run/model/small").mkdir(parents=True)
    assert command("bench", "small", "--run", tmp_path / "run").status == 0
    assert measured[0][1] == str(tmp_path / "run/model/small")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["m", "--batch", "0"], "batch is 0; wanted is 1 or more"),
        (["https://host/v1#m"], "is served elsewhere"),
        (["m", "--json", "/nowhere/x.json"], "/nowhere: there is no such folder"),
        (["a", "a"], "another model is called 'a'"),
    ],
)
def test_what_cannot_be_measured_is_refused(command, measured, words, message):
    done = command("bench", *words)
    assert (done.status, message in done.err) == (2, True), done.err
    assert not measured


@pytest.mark.parametrize(
    ("number", "text"), [(1_230_000_000, "1.23 GB"), (45_400_000, "45 MB"), (0, "0 MB")]
)
def test_sizes_are_written_as_people_do(number, text):
    assert benching.size(number) == text
