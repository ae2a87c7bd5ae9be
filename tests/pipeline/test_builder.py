from __future__ import annotations

import inspect
from dataclasses import fields

from biomistral.pipeline import plan as planning
from biomistral.pipeline.builder import Builder


def test_the_plan_in_the_making_has_all_that_its_parts_use():
    made = planning.__globals__["_Builder"]
    assert set(Builder.__annotations__) <= {field.name for field in fields(made)}
    used = {name: f for name, f in vars(Builder).items() if inspect.isfunction(f)}
    for name in ("add", "files", "corpus_files", "model", "model_inputs", "tokens"):
        assert list(inspect.signature(used[name]).parameters) == list(
            inspect.signature(getattr(made, name)).parameters
        )
