"""What a card shows of a configuration: all of it, but no path."""

from __future__ import annotations

from biomistral.merging.card_text import shown_configuration
from biomistral.merging.config import parse_config
from biomistral.recipe.yaml_text import read_yaml


def test_models_are_named_and_nothing_else_is_changed(tmp_path):
    """Not even a word that happens to be the name of a model."""
    (tmp_path / "slerp").mkdir()
    (tmp_path / "t").mkdir()
    text = f"""
merge_method: slerp  # see {tmp_path}
base_model: {tmp_path}/slerp
models:
  - model: {tmp_path}/slerp/
  - model: {{model: {{path: {tmp_path}/t}}}}
parameters: {{t: [{{filter: t, value: [0, 2e-5]}}, {{value: 0.5}}]}}
tokenizer: {{source: "model:{tmp_path}/t"}}
"""
    shown = shown_configuration(text, parse_config(text).references)
    assert str(tmp_path) not in shown
    assert read_yaml(shown, "") == {
        "merge_method": "slerp",
        "base_model": "slerp",
        "models": [{"model": "slerp"}, {"model": "t"}],
        "parameters": {"t": [{"filter": "t", "value": [0, 2e-5]}, {"value": 0.5}]},
        "tokenizer": {"source": "model:t"},
    }


def test_models_of_one_folder_name_are_told_apart(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "model").mkdir(parents=True)
    entries = "".join(f"  - {{model: {tmp_path}/{name}/model}}\n" for name in "ab")
    text = f"merge_method: karcher\nmodels:\n{entries}"
    shown = read_yaml(shown_configuration(text, parse_config(text).references), "")
    assert shown["models"] == [{"model": "model (a)"}, {"model": "model (b)"}]
