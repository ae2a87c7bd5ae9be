"""Entries of sft and dpo: published defaults, and options that would have no effect."""

from __future__ import annotations

import pytest

from biomistral.errors import RecipeError
from biomistral.recipe.tuning import PROJECTIONS, DpoSettings, SftSettings

START = "name: x\nmodels: {base: {path: o/m}}\n"


def test_the_published_adapter_is_the_default() -> None:
    settings = SftSettings(name="a", model="base", questions="all")
    assert (settings.method, settings.rank, settings.alpha, settings.dropout) == (
        "lora",
        16,
        16,
        0.05,
    )
    assert settings.target_names == PROJECTIONS
    assert len(PROJECTIONS) == 7
    assert (settings.learning_rate, settings.schedule, settings.rows_per_step) == (
        2e-5,
        "cosine",
        4,
    )
    assert SftSettings(name="a", model="base", questions="all", method="qlora").bits == 8


def test_what_was_written_out_can_be_read_again() -> None:
    for settings in (
        SftSettings(name="a", model="base", questions="all", method="full"),
        DpoSettings(name="a", model="base", pairs=["x.jsonl"]),
    ):
        assert type(settings).model_validate_json(settings.model_dump_json()) == settings


def test_dpo_starts_from_the_numbers_of_its_paper() -> None:
    settings = DpoSettings(name="a", model="base", questions=["medqa"])
    assert (settings.beta, settings.loss, settings.rejections) == (0.1, "sigmoid", 1)


def test_one_file_needs_no_list() -> None:
    assert SftSettings.model_validate({"name": "a", "model": "b", "data": "x"}).data == ["x"]
    assert DpoSettings.model_validate({"name": "a", "model": "b", "pairs": "x"}).pairs == ["x"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("questions: all, rank: 0", "sft[0].rank: must be greater than or equal to 1, not 0"),
        ("questions: all, method: full, rank: 8", "rank has no effect with method: full"),
        ("questions: all, method: full, bits: 4", "bits has no effect with method: full (qlora"),
        ("questions: all, bits: 4", "bits has no effect with method: lora (qlora has bits)"),
        ("questions: all, method: full, dropout: 0.1", "dropout has no effect with method: full"),
        ("rank: 8", "says nothing to learn from; give questions, or data, or both"),
        ("data: x.jsonl, answer: text", "answer has no effect with data of your own"),
        (
            "questions: all, answer: text, template: chat",
            "template has no effect with answer: text",
        ),
        ("questions: all, targets: []", "targets names no layer"),
        ("questions: [a, a]", "'a' is given twice"),
        ("questions: all, precision: bfloat16", "'bfloat16' is not 'mixed' or 'float32'"),
        ("questions: all, answer_smoothing: 1", "must be less than 1"),
        ("questions: all, jefreys_weight: 1", 'did you mean "jeffreys_weight"?'),
    ],
)
def test_a_wrong_entry_says_what_is_wrong(parse, entry: str, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse(START + f"sft: [{{name: a, model: base, {entry}}}]")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("beta: 0.1", "give questions, or pairs, or both"),
        ("pairs: x.jsonl, rejections: 2", "rejections has no effect without questions"),
        ("pairs: x.jsonl, dropout: 0.1", "unknown key"),
        ("pairs: x.jsonl, targets: [lm_head]", "an adapter of lm_head cannot be trained"),
        ("pairs: x.jsonl, loss: dpo", "'dpo' is not 'sigmoid'"),
    ],
)
def test_a_wrong_preference_entry_says_what_is_wrong(parse, entry: str, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse(START + f"dpo: [{{name: a, model: base, {entry}}}]")
    assert said in str(error.value)


def test_an_adapter_alone_is_no_model_to_others(parse) -> None:
    alone = START + "sft: [{name: a, model: base, questions: all, merge_adapter: false}]\n"
    assert [entry.name for entry in parse(alone).sft] == ["a"]
    used = alone + "dpo: [{name: b, model: a, questions: all}]\nevaluate: {models: [base, a]}"
    with pytest.raises(RecipeError) as error:
        parse(used)
    assert "dpo[0]: 'a' is an adapter alone (merge_adapter: false)" in str(error.value)
    assert "evaluate.models: 'a' is an adapter alone" in str(error.value)


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_quantized_model_is_no_start(parse, method: str) -> None:
    text = (
        START + "quantize: [{name: small, method: bitsandbytes, bits: 4, model: base}]\n"
        f"sft: [{{name: a, model: small, questions: all, method: {method}}}]"
    )
    with pytest.raises(RecipeError) as error:
        parse(text)
    assert "sft[0].model: 'small' is quantized" in str(error.value)
    assert "start from 'base', which method: qlora holds in 8 or 4 bits" in str(error.value)


def test_an_unknown_model_and_a_circle_are_found_as_elsewhere(parse) -> None:
    with pytest.raises(RecipeError, match="there is no model 'bas'; did you mean \"base\""):
        parse(START + "sft: [{name: a, model: bas, questions: all}]")
    with pytest.raises(RecipeError, match="in a circle"):
        parse(
            START + "sft: [{name: a, model: b, questions: all}]\n"
            "dpo: [{name: b, model: a, questions: all}]"
        )
