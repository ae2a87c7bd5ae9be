from __future__ import annotations

import pytest

from biomistral.errors import ModelError
from biomistral.evaluation.endpoints.engine import EndpointEngine, score_endpoint
from biomistral.records import UNSAID, Request


def _request(name: str, scoring="letter", continuations=("A", "B")):
    return Request(name, "plants", "en", 0, 1, scoring, f"{name} Answer:", continuations, 0)


REQUESTS = [_request(f"q{i}") for i in range(5)]


def test_completions_with_logprobs_are_taken_where_they_are_given(serve, completions, tmp_path):
    server = serve(completions)
    scored = score_endpoint(server.settings(), REQUESTS, tmp_path)
    assert scored.logprobs == [pytest.approx((-0.421, -1.5), abs=1e-3)] * 5
    assert scored.num_prompt_tokens == sum(len(r.prompt) for r in REQUESTS)
    assert len(server.seen) == 6  # one more to try it out
    assert {path for path, _, _ in server.seen} == {"/v1/completions"}


def test_published_scoring_tells_the_most_probable_token(serve, completions, tmp_path) -> None:
    server = serve(completions)
    scored = score_endpoint(server.settings(), [_request("q", "published")], tmp_path)
    assert scored.logprobs == [(-0.5, -1.5)]
    assert scored.tops == ["A"]


def test_a_chat_only_server_with_logprobs_is_found(serve, chat, tmp_path) -> None:
    server = serve(chat("B", [("B", {"B": -0.1, "A": -2.5})]))
    assert score_endpoint(server.settings(), REQUESTS, tmp_path).logprobs == [(-2.5, -0.1)] * 5


def test_a_server_without_logprobs_is_read_in_words(serve, chat, tmp_path) -> None:
    server = serve(chat("The answer is (B)."))
    assert score_endpoint(server.settings(), REQUESTS, tmp_path).logprobs == [(UNSAID, 0.0)] * 5


def test_words_without_a_letter_are_no_answer(serve, chat, tmp_path) -> None:
    server = serve(chat("I cannot tell."))
    assert score_endpoint(server.settings(), REQUESTS, tmp_path).logprobs == [(UNSAID,) * 2] * 5


def test_a_question_that_the_rules_of_a_server_forbid_is_no_answer(serve, chat, tmp_path) -> None:
    answered = chat("B", [("B", {"B": -0.1, "A": -2.5})])

    def answer(path, body):
        forbidden = "q3" in body["messages"][0]["content"]
        return (400, {}, '{"code": "content_filter"}') if forbidden else answered(path, body)

    server = serve(answer)
    found = score_endpoint(server.settings(api="chat", system=""), REQUESTS, tmp_path).logprobs
    assert found == [*[(-2.5, -0.1)] * 3, (UNSAID, UNSAID), (-2.5, -0.1)]


def test_a_server_that_lists_five_tokens_at_most_is_asked_for_five(serve, completions, tmp_path):
    def answer(path, body):
        refused = body.get("logprobs", 0) > 5
        return (400, {}, "logprobs: at most 5") if refused else completions(path, body)

    server = serve(answer)
    score_endpoint(server.settings(), REQUESTS, tmp_path)
    assert server.seen[-1][1]["logprobs"] == 5


def test_a_server_that_refuses_all_is_an_error_with_its_words(serve, tmp_path) -> None:
    server = serve(lambda path, body: (404, {}, "no model called served"))
    with pytest.raises(ModelError, match=r"refused in every way.*no model called served"):
        score_endpoint(server.settings(), REQUESTS, tmp_path)


def test_a_wrong_key_is_no_reason_to_try_other_ways(serve, tmp_path) -> None:
    server = serve(lambda path, body: (401, {}, "who are you"))
    with pytest.raises(ModelError, match="OPENAI_API_KEY is not set"):
        score_endpoint(server.settings(), REQUESTS, tmp_path)
    assert len(server.seen) == 1


def test_cloze_is_read_from_the_echo(serve, completions, tmp_path) -> None:
    server = serve(completions)
    request = _request("q", "cloze", (" cold water", " bark"))
    found = score_endpoint(server.settings(), [request], tmp_path)
    # The server gives each token minus its length.
    assert found.logprobs == [pytest.approx((-11 / 11, -5 / 5))]


def test_cloze_without_echo_is_a_clear_error(serve, completions, chat, tmp_path) -> None:
    request = _request("q", "cloze", (" cold water", " bark"))

    def no_echo(path, body):
        return completions(path, {key: value for key, value in body.items() if key != "echo"})

    server = serve(no_echo)
    with pytest.raises(ModelError, match=r"does not read prompts back.*use scoring: letter"):
        score_endpoint(server.settings(), [request], tmp_path)
    server = serve(chat("B"))
    with pytest.raises(ModelError, match="cloze scoring needs"):
        score_endpoint(server.settings(), [request], tmp_path)


def test_nothing_is_asked_twice_not_even_the_first_try(serve, completions, tmp_path) -> None:
    server = serve(completions)
    first = score_endpoint(server.settings(), REQUESTS[:3], tmp_path)
    seen = len(server.seen)
    again = score_endpoint(server.settings(concurrency=1), REQUESTS[:3], tmp_path)
    assert again.logprobs == first.logprobs
    assert len(server.seen) == seen
    score_endpoint(server.settings(), REQUESTS, tmp_path)
    assert server.prompts[seen:] == [request.prompt for request in REQUESTS[3:]] or sorted(
        server.prompts[seen:]
    ) == sorted(request.prompt for request in REQUESTS[3:])


def test_an_interrupted_run_goes_on_where_it_was(serve, completions, tmp_path) -> None:
    calls = 0

    def dies(path, body):
        nonlocal calls
        calls += 1
        return (400, {}, "gone") if calls > 3 else completions(path, body)

    server = serve(dies)
    with pytest.raises(ModelError, match="gone"):
        score_endpoint(server.settings(concurrency=1), REQUESTS, tmp_path)
    server.answer = completions
    server.seen.clear()
    scored = score_endpoint(server.settings(), REQUESTS, tmp_path)
    assert len(scored.logprobs) == 5
    assert len(server.seen) == 3


def test_equal_prompts_are_asked_once_and_answer_all(serve, completions, tmp_path) -> None:
    server = serve(completions)
    scored = score_endpoint(server.settings(), [REQUESTS[0]] * 4, tmp_path)
    assert len(set(scored.logprobs)) == 1
    assert server.prompts.count(REQUESTS[0].prompt) == 1


def test_the_estimate_is_told_before_the_questions_and_of_what_is_left(
    serve, completions, tmp_path
):
    server = serve(completions)
    prices = {"input_price": 1.0, "output_price": 1.0}
    told = []

    def tell(words):
        told.append((words, len(server.seen)))

    score_endpoint(server.settings(**prices), REQUESTS, tmp_path, tell=tell)
    assert told[0][0].startswith("5 requests")
    assert told[0][1] == 1
    score_endpoint(server.settings(**prices), REQUESTS, tmp_path, tell=tell)
    assert told[1][0].startswith("0 requests")


def test_above_max_cost_no_question_is_asked(serve, completions, tmp_path) -> None:
    server = serve(completions)
    bound = {"input_price": 1e6, "output_price": 1e6, "max_cost": 1.0}
    with pytest.raises(ModelError, match="above max_cost"):
        score_endpoint(server.settings(**bound), REQUESTS, tmp_path)
    assert len(server.seen) == 1


def test_the_key_is_in_no_file(serve, completions, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-123")
    server = serve(completions)
    score_endpoint(server.settings(), REQUESTS, tmp_path)
    assert server.seen[0][2]["Authorization"] == "Bearer secret-123"
    assert all(b"secret-123" not in path.read_bytes() for path in tmp_path.rglob("*"))


def test_facts_have_what_decides_answers_and_not_the_speed(serve, completions, tmp_path) -> None:
    server = serve(completions)
    plain = EndpointEngine(server.settings(), tmp_path).facts()
    assert plain == EndpointEngine(server.settings(concurrency=1, retries=0), tmp_path).facts()
    assert plain != EndpointEngine(server.settings(parameters={"seed": 3}), tmp_path).facts()


def test_prompts_too_long_by_the_settings_are_named(serve, completions, tmp_path) -> None:
    server = serve(completions)
    engine = EndpointEngine(server.settings(context_tokens=16), tmp_path)
    long = Request("q", "plants", "en", 0, 1, "letter", "word " * 40, ("A", "B"), 0)
    assert engine.too_long([REQUESTS[0], long]) == {1: 51}
    assert EndpointEngine(server.settings(), tmp_path).too_long([long]) == {}
