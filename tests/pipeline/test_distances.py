from __future__ import annotations

from biomistral.pipeline import plan


def _steps(small, tmp_path, *changes):
    return {step.key: step for step in plan(small(*changes), tmp_path / "run")}


def test_each_trained_or_merged_model_is_measured_against_what_it_was_made_from(small, tmp_path):
    steps = _steps(small, tmp_path)
    found = {step.name: step.needs for step in steps.values() if step.kind == "distances"}
    assert found == {
        "base": ("model/base", "model/blank"),
        "medical": ("model/medical", "model/base"),
        "slerp": ("model/slerp", "model/base", "model/medical"),
        "dare": ("model/dare", "model/base", "model/medical"),
    }  # no quantized models
    assert {f"distances/{name}" for name in found} <= set(steps["report/report"].needs)


def test_nothing_but_the_report_changes_where_distances_are_left_out(small, tmp_path):
    steps = _steps(small, tmp_path)
    without = _steps(small, tmp_path, "evaluate.distances=false")
    assert not [key for key in without if key.startswith("distances/")]
    changed = {key for key in without if without[key].origin != steps[key].origin}
    assert changed == {"report/report"}
