from __future__ import annotations

from biomistral.pipeline import expected_costs
from biomistral.recipe import parse_recipe

SERVED = """
name: served
models:
  gpt: {{endpoint: "http://127.0.0.1:9/v1", model: m, input_price: 2, output_price: 4}}
  own: {{path: o/n}}
benchmark: {{data: "{data}"}}
evaluate:
  {{models: [gpt, own], tasks: [gene], languages: [en], shots: 1, seeds: [1, 2], limit: 3,
    scoring: {scoring}, validation: {validation}}}
"""


def recipe(world, scoring="letter", validation=0):
    text = SERVED.format(data=world / "benchmark", scoring=scoring, validation=validation)
    return parse_recipe(text)


def test_every_question_of_a_served_model_is_counted_and_priced(miniature_world, tmp_path):
    [(name, cost)] = expected_costs(recipe(miniature_world), tmp_path).items()
    assert name == "gpt"
    assert cost.num_requests == 3 * 2
    assert cost.num_answer_tokens == 6 * 16
    assert cost.cost == (cost.num_prompt_tokens * 2 + 6 * 16 * 4) / 1e6


def test_cloze_asks_once_for_each_choice_and_validation_adds_its_own(miniature_world, tmp_path):
    def number(**changes):
        return expected_costs(recipe(miniature_world, **changes), tmp_path)["gpt"].num_requests

    assert number(scoring="cloze") == 4 * number()
    assert number(validation=2) == number() + 2 * 2


def test_nothing_is_written_and_other_models_cost_nothing(miniature_world, small, tmp_path):
    expected_costs(recipe(miniature_world), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert expected_costs(small(), tmp_path) == {}
