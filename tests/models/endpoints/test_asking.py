from __future__ import annotations

from functools import partial

import pytest

from biomistral.errors import ModelError
from biomistral.evaluation.endpoints import replies
from biomistral.evaluation.endpoints.replies import Mode, Reply
from biomistral.models.endpoints import asking
from biomistral.models.endpoints.answers import Answers
from biomistral.models.endpoints.asking import Asker

READ = partial(replies.read_reply, "completions")


def _calls(settings, prompts):
    mode = Mode("completions", 5)
    return [
        asking.call(settings, "/completions", replies.question_body(settings, mode, prompt), READ)
        for prompt in prompts
    ]


def _asker(server, folder, **changes):
    settings = server.settings(**changes)
    return Asker(settings, Answers(folder / "a.jsonl"), len, Reply), settings


def test_each_call_is_sent_once_and_kept(serve, completions, tmp_path) -> None:
    server = serve(completions)
    asker, settings = _asker(server, tmp_path)
    calls = _calls(settings, ["one", "two", "one"])
    assert {call.key for call in asker.ask(calls)} == {call.key for call in calls}
    assert sorted(server.prompts) == ["one", "two"]
    kept = Answers(tmp_path / "a.jsonl")
    assert all(call.key in kept for call in calls)


def test_no_more_are_under_way_than_allowed(serve, completions, slowly, tmp_path) -> None:
    server = serve(slowly(completions, 0.02))
    asker, settings = _asker(server, tmp_path, concurrency=3)
    assert len(list(asker.ask(_calls(settings, [str(i) for i in range(12)])))) == 12
    assert 1 < server.most_at_once <= 3


def test_one_that_fails_for_good_loses_none_of_the_others(serve, completions, slowly, tmp_path):
    def answer(path, body):
        return (400, {}, "too long") if body["prompt"] == "bad" else good(path, body)

    good = slowly(completions, 0.05)
    server = serve(answer)
    asker, settings = _asker(server, tmp_path)
    calls = _calls(settings, ["one", "two", "bad", "three", *(f"later {i}" for i in range(50))])
    with pytest.raises(ModelError, match="too long"):
        list(asker.ask(calls))
    kept = Answers(tmp_path / "a.jsonl")
    assert sum(call.key in kept for call in calls) == len(server.seen) - 1
    assert len(server.seen) < 10


def test_who_stops_listening_loses_none_of_what_was_sent(serve, completions, slowly, tmp_path):
    server = serve(slowly(completions, 0.02))
    asker, settings = _asker(server, tmp_path)
    calls = _calls(settings, [str(i) for i in range(20)])
    listening = asker.ask(calls)
    next(listening)
    listening.close()
    kept = Answers(tmp_path / "a.jsonl")
    assert sum(call.key in kept for call in calls) == len(server.seen) < 20


def test_work_stops_when_the_money_is_spent_by_the_servers_count(serve, completions, tmp_path):
    server = serve(completions)
    prices = {"input_price": 1e5, "output_price": 0.0, "max_cost": 1.0}  # 0.1 a token
    asker, settings = _asker(server, tmp_path, concurrency=1, **prices)
    with pytest.raises(ModelError, match=r"1\.20 is spent .*above max_cost 1"):
        list(asker.ask(_calls(settings, ["abcd", "efgh", "ijkl", "mnop"])))
    assert len(server.seen) == 3


def test_another_model_address_or_parameter_is_another_call() -> None:
    from biomistral.recipe.endpoints import EndpointModel

    def key(url="http://a/v1", model="m", **changes):
        settings = EndpointModel(endpoint=url, model=model, **changes)
        return _calls(settings, ["x"])[0].key

    keys = [key(), key("http://b/v1"), key(model="n"), key(parameters={"seed": 1})]
    assert len(set(keys)) == 4
    assert key() == key(concurrency=1, retries=0, input_price=1.0)
