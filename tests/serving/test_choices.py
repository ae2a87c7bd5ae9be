"""``/v1/choices`` over HTTP: the numbers of an evaluation, and what calibration makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from biomistral.advisory import ADVISORY
from biomistral.benchmark import build_requests
from biomistral.models.calibrations import SavedFit
from biomistral.models.continuations import TextEncoder
from biomistral.models.loading import load_model
from biomistral.models.scoring import score_requests
from biomistral.recipe.settings import EvaluateSettings
from biomistral.records import Question
from biomistral.serving.calibrating import Calibration

QUESTION = Question(
    "q", "herbs", "en", "test", "What treats the fever?", ("bark", "water", "salt"), 0
)
FIT = SavedFit("medical", ("herbs",), "en", "letter", 0, 2.5, 0.7, 0.2, 50, "test")


@pytest.fixture(scope="module")
def calibrated(start_server, opened):
    with start_server(opened, Calibration(Path("c.json"), (FIT,))) as found:
        yield found


@pytest.mark.parametrize("scoring", ["letter", "cloze"])
def test_options_have_the_log_probabilities_of_an_evaluation(
    client, trained_model, tokenizer, scoring
) -> None:
    settings = EvaluateSettings(models=["m"], shots=0, seeds=[1], scoring=[scoring])
    (request,) = build_requests([QUESTION], settings)
    model = load_model(trained_model, precision="float32")
    expected = score_requests(model, TextEncoder(tokenizer), [request]).logprobs[0]
    bodies = [
        {"question": QUESTION.stem, "options": list(QUESTION.choices), "scoring": scoring},
        {"prompt": request.prompt, "options": list(request.continuations), "scoring": scoring},
    ]
    for body in bodies:
        status, reply = client.post("/v1/choices", body)
        assert status == 200
        assert reply["prompt"] == request.prompt
        assert tuple(choice["logprob"] for choice in reply["choices"]) == expected
        assert sum(choice["probability"] for choice in reply["choices"]) == pytest.approx(1)
        assert reply["answer"] == max(range(3), key=expected.__getitem__)
        assert reply["calibration"] is None
        assert "--calibration" in reply["note"]
        assert reply["advisory"] == ADVISORY


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_calibrated_probabilities_are_those_of_the_fit(calibrated, method) -> None:
    body = {"question": QUESTION.stem, "options": list(QUESTION.choices), "calibration": method}
    reply = calibrated.post("/v1/choices", body)[1]
    logprobs = [choice["logprob"] for choice in reply["choices"]]
    found = [choice["calibrated_probability"] for choice in reply["choices"]]
    assert found == pytest.approx(FIT.probabilities(logprobs, method))
    assert reply["confidence"] == found[reply["answer"]]
    assert reply["calibration"]["method"] == method
    assert reply["calibration"]["num_answers"] == 50


def test_temperature_is_taken_where_none_is_named_and_none_where_none_is_wanted(calibrated) -> None:
    body = {"question": QUESTION.stem, "options": list(QUESTION.choices)}
    assert calibrated.post("/v1/choices", body)[1]["calibration"]["temperature"] == 2.5
    reply = calibrated.post("/v1/choices", {**body, "calibration": "none"})[1]
    assert reply["calibration"] is reply["note"] is None


@pytest.mark.parametrize(
    "change", [{"language": "fr"}, {"scoring": "cloze"}, {"task": "other"}, {"group": "general"}]
)
def test_no_fit_is_used_for_what_it_was_not_fitted_on(calibrated, change) -> None:
    body = {"question": QUESTION.stem, "options": list(QUESTION.choices), **change}
    reply = calibrated.post("/v1/choices", body)[1]
    assert reply["calibration"] is None
    assert "there are fits for medical letter in en" in reply["note"]
    status, error = calibrated.refused("/v1/choices", {**body, "calibration": "platt"})
    assert (status, error["code"]) == (400, "no_calibration")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"prompt": "Answer:(", "options": ["A", "bark and rest"]}, "letter scoring needs one"),
        ({"prompt": "fever " * 600, "options": ["A", "B"]}, "the model's context is 512"),
        ({"question": "x", "options": ["a", "b"], "language": "xx"}, "language 'xx'"),
        ({"question": " ", "options": ["a", "b"]}, "the stem is empty"),
    ],
)
def test_what_cannot_be_scored_is_said(client, body, words) -> None:
    status, error = client.refused("/v1/choices", body)
    assert status == 400
    assert words in error["message"]
