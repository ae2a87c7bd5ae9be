from __future__ import annotations

import json

import pytest

from biomistral.errors import ModelError
from biomistral.translation.asking import EndpointTranslator, body_for, read_answer
from biomistral.translation.parts import Parts
from biomistral.translation.wanted import Wanted

SOURCE = Parts("Which of these lowers a fever of 39 °C?", ("Bark", "Water"))
GOOD = {"question": "Lequel ?", "options": {"A": "Écorce", "B": "Eau"}}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        f"```json\n{json.dumps(GOOD)}\n```",
        f"Here it is: {json.dumps(GOOD)} I hope it helps.",
        '{"question": "Lequel ?", "options": {"A": "Écorce", "B": "Eau",},}',
    ],
)
def test_an_answer_is_found_in_what_surrounds_it(text: str) -> None:
    assert read_answer(text, SOURCE).parts == Parts("Lequel ?", ("Écorce", "Eau"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("I cannot do that.", "no JSON object"),
        ('{"question": "Lequel ?", "options": {"A": "Écorce"}}', "lacks the options B"),
        ('{"question": "Lequel ?", "options": {"A": "Éc', "no JSON object"),
        ("{" * 20_000 + "}" * 20_000, "not of the form"),
    ],
)
def test_an_answer_that_cannot_be_read_says_why(text: str, fault: str) -> None:
    candidate = read_answer(text, SOURCE)
    assert candidate.parts is None
    assert fault in candidate.faults[0]


def test_a_request_holds_all_parts_and_what_must_stay(serve, completions) -> None:
    settings = serve(completions).settings()
    body = body_for(Wanted(SOURCE, "fr"), settings)
    shown = json.loads(body["messages"][1]["content"])
    assert shown["question"] == SOURCE.stem
    assert shown["options"] == {"A": "Bark", "B": "Water"}
    assert shown["keep"] == ["39", "°C"]
    assert "from English to French" in body["messages"][0]["content"]
    assert body["temperature"] == 0
    assert "seed" not in body


def test_a_further_attempt_is_told_the_faults(serve, completions) -> None:
    settings = serve(completions).settings(parameters={"seed": None})
    wanted = Wanted(SOURCE, "fr", attempt=1, faults=("A lacks number 39",), before="{...}")
    body = body_for(wanted, settings)
    assert [message["role"] for message in body["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert "A lacks number 39" in body["messages"][-1]["content"]
    assert body["temperature"] > 0
    assert "seed" not in body  # taken away by the settings


def test_answers_are_kept_and_free_the_next_time(interpreter, tmp_path) -> None:
    server = interpreter()
    source = Parts("Which of these lowers a fever of 39 °C?", ("Bark", "Water", "Rest"))
    translator = EndpointTranslator(server.settings(), tmp_path / "answers.jsonl")
    wanted = [Wanted(source, "fr")]
    assert translator.estimate(wanted).startswith("1 requests")
    (candidate,) = translator.translate(wanted)
    assert candidate.parts is not None
    assert candidate.parts.choices == ("Écorce", "Eau", "Repos")
    again = EndpointTranslator(server.settings(), tmp_path / "answers.jsonl")
    assert again.estimate(wanted).startswith("0 requests")
    assert list(again.translate(wanted)) == [candidate]
    assert len(server.seen) == 1


def test_an_estimate_above_the_bound_is_refused(interpreter, tmp_path) -> None:
    settings = interpreter().settings(input_price=1e6, output_price=1e6, max_cost=0.01)
    translator = EndpointTranslator(settings, tmp_path / "answers.jsonl")
    with pytest.raises(ModelError, match="above max_cost"):
        translator.estimate([Wanted(SOURCE, "fr")])
