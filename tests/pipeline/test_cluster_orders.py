"""A machine makes the step that was meant, or none."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from biomistral import artifacts
from biomistral.errors import InputError
from biomistral.pipeline import cluster_orders, cluster_steps, making, plan
from biomistral.pipeline.cluster import Mark
from biomistral.pipeline.cluster_orders import make_step, wait_for
from biomistral.recipe import Recipe


@pytest.fixture
def order(small, tmp_path):
    """To make the tokens of a corpus; and the recipe."""
    recipe: Recipe = small()
    steps = plan(recipe, tmp_path)
    make = cluster_steps._orders(recipe, steps, tmp_path, Mark("m", "text"))
    return make(next(step for step in steps if step.key == "tokens/general"))


def test_a_machine_with_other_files_is_refused(order) -> None:
    other = dataclasses.replace(order, corpora={**order.corpora, "general": "0" * 64})
    with pytest.raises(InputError, match="sees other files than the one that planned"):
        make_step(other, 1)


def test_no_machine_looks_through_a_corpus_that_was_fingerprinted(order, monkeypatch) -> None:
    assert set(order.corpora) == {"general", "articles"}
    assert all(len(mark) == 64 for mark in order.corpora.values())
    made = []
    monkeypatch.setattr(making, "corpus_files", lambda _: lambda: pytest.fail("looked"))
    monkeypatch.setattr(cluster_orders, "wait_for", lambda *_: None)
    monkeypatch.setattr(cluster_orders, "make", lambda step, *_: made.append(step.key) or 1.0)
    assert make_step(order, 1) == 1.0
    assert made == ["tokens/general"]


def test_what_another_machine_made_must_be_seen_and_not_an_older_one(order, monkeypatch) -> None:
    monkeypatch.setattr(cluster_orders, "_PATIENCE_SECONDS", 0)
    monkeypatch.setattr(cluster_orders, "make", lambda *_: pytest.fail("made of it"))
    older = Path(order.root, "model/blank")
    with artifacts.create(older, artifacts.Origin("model", "blank", {"seed": 1})):
        pass
    with pytest.raises(InputError, match=r"model/blank: was made, and the machine .* not see it"):
        make_step(order, 1)


def test_an_artefact_that_is_seen_late_is_waited_for(small, tmp_path, monkeypatch) -> None:
    step = next(step for step in plan(small(), tmp_path) if step.key == "model/blank")
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        with artifacts.create(tmp_path / step.key, step.origin):
            pass

    monkeypatch.setattr(time, "sleep", sleep)
    wait_for(step, tmp_path)
    assert len(waited) == 1
