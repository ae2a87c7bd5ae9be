from __future__ import annotations

import pytest
from pydantic import ValidationError

from biomistral.errors import RecipeError
from biomistral.pipeline import plan
from biomistral.recipe import parse_recipe
from biomistral.recipe.endpoints import EndpointModel

SERVED = "gpt: {endpoint: 'https://host/v1/', model: gpt-3.5-turbo}"


def test_a_model_may_be_an_endpoint() -> None:
    recipe = parse_recipe(f"name: x\nmodels: {{{SERVED}}}\nevaluate: {{models: [gpt]}}")
    model = recipe.models["gpt"]
    assert isinstance(model, EndpointModel)
    assert model.endpoint == "https://host/v1"


@pytest.mark.parametrize(
    ("section", "where"),
    [
        ("merge: [{name: m, method: slerp, base: a, models: [{model: gpt}], t: 0.5}]", "merge"),
        ("quantize: [{name: q, model: gpt, method: bitsandbytes, bits: 4}]", "quantize"),
        (
            "corpus: {texts: x.txt, tokenizer: a}\npretrain: [{name: p, model: gpt}]",
            "pretrain",
        ),
        ("corpus: {texts: x.txt, tokenizer: gpt}", r"corpus\[0\]\.tokenizer"),
    ],
)
def test_an_endpoint_can_be_evaluated_and_no_more(section, where) -> None:
    with pytest.raises(RecipeError, match=f"{where}.*'gpt' is behind an endpoint"):
        parse_recipe(f"name: x\nmodels: {{a: {{path: o/m}}, {SERVED}}}\n{section}")


def test_an_endpoint_is_no_tokenizer_by_default() -> None:
    with pytest.raises(RecipeError, match="nothing says which tokenizer"):
        parse_recipe(f"name: x\nmodels: {{{SERVED}}}\ncorpus: {{texts: x.txt}}")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://user:secret@host/v1", "without name, password or query"),
        ("https://host/v1?api-key=secret", "without name, password or query"),
        ("host/v1", "no address"),
        ("file:///etc/passwd", "no address"),
    ],
)
def test_addresses_are_plain(url, words) -> None:
    with pytest.raises(ValidationError, match=words):
        EndpointModel(endpoint=url, model="m")


def test_a_key_in_place_of_a_variable_is_refused() -> None:
    with pytest.raises(ValidationError, match="key_variable"):
        EndpointModel(endpoint="http://h/v1", model="m", key_variable="sk-123")


def test_a_bound_of_cost_needs_prices() -> None:
    with pytest.raises(ValidationError, match="max_cost needs input_price and output_price"):
        EndpointModel(endpoint="http://h/v1", model="m", max_cost=1.0)


def test_parameters_cannot_change_the_question() -> None:
    with pytest.raises(ValidationError, match="prompt cannot be set here"):
        EndpointModel(endpoint="http://h/v1", model="m", parameters={"prompt": "x"})


def test_a_digest_is_of_what_is_asked_and_not_of_how_fast() -> None:
    def digest(**changes):
        return EndpointModel(endpoint="http://h/v1", model="m", **changes).digest()

    assert digest() == digest(concurrency=1, input_price=3.0, key_variable="OTHER")
    assert digest() != digest(system="")


def test_a_served_model_is_planned_and_has_no_part_in_the_report(tmp_path) -> None:
    text = f"name: x\nmodels: {{{SERVED}}}\nbenchmark: {{data: {tmp_path}}}"
    steps = plan(parse_recipe(f"{text}\nevaluate: {{models: [gpt], tasks: []}}"), tmp_path / "run")
    keys = [step.key for step in steps]
    assert "predictions/gpt" in keys
    assert "model/gpt" not in keys
