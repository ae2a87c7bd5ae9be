from __future__ import annotations

from dataclasses import replace

import pytest

from biomistral.records import Comparison
from biomistral.reporting.quantization import (
    loss_table,
    quantization_section,
    size_table,
    variants_of,
)
from biomistral.reporting.results import Setting, index_results
from biomistral.reporting.run_tables import Artefact

SETTING = Setting("en", "letter", 3)
HELD_OUT = {
    "perplexity_before": 8.0,
    "perplexity_after": 8.25,
    "added_nats_per_token": 0.0308,
    "added_nats_per_token_low": 0.0204,
    "added_nats_per_token_high": 0.0412,
}
# The full model is better by 5 points, 2 to 8.
WORSE = Comparison(
    *("full", "small", "average", "medical", "en", "letter", 3),
    *(0.05, 0.02, 0.08, 0.0004, 0.012, 30, 10, None, None, None, None, 200, 3),
)


def artefact(name: str, model: str | None, **counts: object) -> Artefact:
    settings = {"model": model} if model else {}
    return Artefact("model", name, {"settings": settings, "counts": counts}, 1000)


SMALL = artefact(
    "small",
    "full",
    method="AWQ, 4 bits",
    weight_bytes_before=16_000_000,
    weight_bytes_after=4_250_000,
    parameters=8_000_000,
    mean_relative_weight_error={"q_proj": 0.08, "up_proj": 0.10},
    held_out=HELD_OUT,
)
PLAIN = artefact("tiny", "full", method="GGUF, Q4_0", weight_bytes_after=4_500_000)
MODELS = [artefact("full", None), SMALL, PLAIN, artefact("other", "full", steps=5)]


@pytest.fixture
def results(make_score, tasks):
    scores = [
        make_score(model, task, value, metric=metric)
        for model, value in (("full", 0.6), ("small", 0.55), ("other", 0.5))
        for task in ("anatomy", "heart", "average")
        for metric in ("accuracy", "ece")
    ]
    return index_results(scores, tasks[:2], ["full", "small", "other"])


def test_a_variant_is_what_names_its_method_and_comes_from_a_model_of_the_run():
    assert variants_of(MODELS) == {"full": [SMALL, PLAIN]}
    assert variants_of([SMALL]) == {}


def test_sizes_errors_and_perplexities_stand_below_the_full_model():
    table = size_table(variants_of(MODELS))
    assert [(row.label, [cell.text for cell in row.cells]) for row in table.rows] == [
        ("full", ["as it is", "16.0", "16.00", "–", "8.000", "–", "–"]),
        (
            "small",
            ["AWQ, 4 bits", "4.2", "4.25", "9.00", "8.250", "+0.0308", "+0.0204 to +0.0412"],
        ),
        ("tiny", ["GGUF, Q4_0", "4.5", "–", "–", "–", "–", "–"]),
    ]


@pytest.mark.parametrize("turned", [False, True])
def test_the_loss_has_its_interval_whichever_way_the_pair_was_tested(results, turned):
    test = WORSE
    if turned:
        test = replace(WORSE, first="small", second="full", difference=-0.05, low=-0.08, high=-0.02)
    table = loss_table(results, [test], variants_of(MODELS), SETTING)
    assert table.title.startswith("What variants lose, medical tasks: ")  # not that of all models
    assert [(row.label, [cell.text for cell in row.cells]) for row in table.rows] == [
        ("full", ["60.0", "60.0", "–", "–", "–", "–"]),
        ("small", ["55.0", "55.0", "−5.0", "−8.0 to −2.0", "< 0.001", "0.012"]),
    ]


def test_a_run_without_variants_has_no_section(results):
    assert quantization_section(results, [WORSE], [MODELS[0], MODELS[3]]).is_empty
    section = quantization_section(results, [WORSE], MODELS)
    assert [table.id for table in section.tables] == [
        "quantization",
        "quantization-loss-en-letter-3",
    ]
