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
        f"<think>{{the options}} of {{A}}</think>{json.dumps(GOOD)}",
        f"I keep {{A}} and {{B}}. {json.dumps(GOOD)}",
        json.dumps({"translation": GOOD}),
    ],
)
def test_an_answer_is_found_in_what_surrounds_it(text: str) -> None:
    assert read_answer(text, SOURCE).parts == Parts("Lequel ?", ("Écorce", "Eau"))


def test_a_text_may_have_lines_and_commas_of_its_own() -> None:
    source = Parts("Which?\nOr none?", ("[1,]", "Water"))
    text = '{"question": "Lequel ?\nOu rien ?", "options": {"A": "[1,]", "B": "Eau"}}'
    assert read_answer(text, source).parts == Parts("Lequel ?\nOu rien ?", ("[1,]", "Eau"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("I cannot do that.", "no JSON object"),
        ('{"question": "Lequel ?", "options": {"A": "Écorce"}}', "lacks the options B"),
        ('{"question": "Lequel ?", "options": {"A": "Éc', "no JSON object"),
        ("{" * 20_000 + "}" * 20_000, "not of the form"),
        ('{"question": {"a": 1}}', "no object 'options'"),
        ('{"a": {"b": 1}}', "no object with a question"),
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


@pytest.mark.parametrize(
    "said",
    [
        "The response was filtered due to the prompt triggering our content management policy",
        "This model's maximum context length is 2048 tokens",
        '{"code": "content_filter"}',
    ],
)
def test_a_question_that_a_server_refuses_is_a_failed_one_and_no_end(serve, tmp_path, said):
    def answer(path, body):
        if "fever" in body["messages"][1]["content"]:
            return 400, {}, {"error": {"message": said}}
        return 200, {}, {"choices": [{"message": {"content": json.dumps(GOOD)}}]}

    server = serve(answer)
    translator = EndpointTranslator(server.settings(), tmp_path / "answers.jsonl")
    wanted = [Wanted(SOURCE, "fr"), Wanted(Parts("Which?", ("Bark", "Water")), "fr")]
    refused, good = translator.translate(wanted)
    assert refused.parts is None
    assert "the server refuses this question" in refused.faults[0]
    assert good.parts == Parts("Lequel ?", ("Écorce", "Eau"))
    again = EndpointTranslator(server.settings(), tmp_path / "answers.jsonl")
    list(again.translate(wanted))
    assert len(server.seen) == 3  # what was refused is asked once more, for servers change


def test_any_other_refusal_ends_the_work(serve, tmp_path) -> None:
    server = serve(lambda path, body: (400, {}, {"error": {"message": "no such model"}}))
    translator = EndpointTranslator(server.settings(), tmp_path / "answers.jsonl")
    with pytest.raises(ModelError, match="no such model"):
        list(translator.translate([Wanted(SOURCE, "fr")]))


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": None}, "finish_reason": "content_filter"},
        {"message": {"content": None}, "finish_reason": "length"},
        {"message": {"content": None, "refusal": "I cannot help with that."}},
    ],
)
def test_an_answer_without_a_text_is_a_failed_one(serve, tmp_path, choice) -> None:
    server = serve(lambda path, body: (200, {}, {"choices": [choice]}))
    translator = EndpointTranslator(server.settings(), tmp_path / "answers.jsonl")
    (candidate,) = translator.translate([Wanted(SOURCE, "fr")])
    assert candidate.faults == ["the answer holds no JSON object"]
    assert len(server.seen) == 1


def test_without_an_answer_there_is_nothing_to_mend(serve, completions) -> None:
    wanted = Wanted(SOURCE, "fr", attempt=1, faults=("refused",), before="")
    assert len(body_for(wanted, serve(completions).settings())["messages"]) == 2
