from __future__ import annotations

import json

import pytest
import yaml

from biomistral.artifacts import read_manifest
from biomistral.benchmark.own_tasks import find_own_tasks
from biomistral.errors import ModelError
from biomistral.records import Translation, read_records
from biomistral.translation import translate_questions
from biomistral.translation.step import TRANSLATIONS


def rows_of(out):
    return list(read_records(out / TRANSLATIONS, Translation))


def test_questions_become_a_task_that_the_benchmark_reads(
    interpreter, settings_for, task, questions, tmp_path
) -> None:
    told: list[str] = []
    out = translate_questions(
        settings_for(interpreter()), {task: questions}, tmp_path / "out", tell=told.append
    )
    (own,) = find_own_tasks(out)
    assert set(own.files) == {("fr", "test"), ("fr", "train")}
    tests = [json.loads(line) for line in (out / "valley/fr/test.jsonl").read_text().splitlines()]
    assert [row["id"] for row in tests] == ["q1", "q2"]
    (example,) = (out / "valley/fr/train.jsonl").read_text().splitlines()
    assert json.loads(example)["id"] == "q3"
    assert tests[0]["choices"] == ["Écorce", "Eau", "Repos"]
    assert tests[1]["context"] == "Une promenade le long de la rivière."
    assert all(row["gold"] == 1 for row in tests)
    described = yaml.safe_load((out / "valley/task.yaml").read_text())
    assert described["source"] == "own; translated by served"
    assert described["licence"] == "CC0"
    assert "3 requests" in told[0]
    assert all(row.state == "translated" and row.attempts == 1 for row in rows_of(out))


def test_a_fault_is_told_and_tried_again(
    interpreter, settings_for, task, questions, tmp_path
) -> None:
    def once(good, body):
        first_time = len(body["messages"]) == 2 and "fever" in body["messages"][1]["content"]
        return {**good, "question": good["question"].replace("39", "93")} if first_time else good

    server = interpreter(once)
    out = translate_questions(settings_for(server), {task: questions}, tmp_path / "out")
    assert [row.attempts for row in rows_of(out)] == [2, 1, 1]
    assert len(server.seen) == 4
    retried = next(body for _, body, _ in server.seen if len(body["messages"]) == 4)
    assert "number 39" in retried["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (
            lambda good, body: {**good, "options": {"A": "Écorce", "B": "Eau"}},
            "lacks the options C",
        ),
        (lambda good, body: "no", "no JSON object"),
        (lambda good, body: body["messages"][1]["content"], "still in English"),
        (lambda good, body: {**good, "options": dict.fromkeys("ABC", "Eau")}, "read the same"),
    ],
)
def test_what_stays_faulty_is_listed_and_in_no_file(
    interpreter, settings_for, task, questions, tmp_path, spoil, fault
) -> None:
    def first(good, body):
        return spoil(good, body) if "fever" in body["messages"][1]["content"] else good

    out = translate_questions(
        settings_for(interpreter(first), attempts=2), {task: questions}, tmp_path / "out"
    )
    failed, *rest = rows_of(out)
    assert (failed.state, failed.attempts) == ("failed", 2)
    assert any(fault in each for each in failed.faults)
    assert {row.state for row in rest} == {"translated"}
    assert "q1" not in (out / "valley/fr/test.jsonl").read_text()
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest["counts"]["translations"]["valley"]["fr"] == {"failed": 1, "translated": 2}


def test_if_nothing_can_be_translated_there_is_no_artefact(
    interpreter, settings_for, task, questions, tmp_path
) -> None:
    server = interpreter(lambda good, body: "sorry")
    with pytest.raises(ModelError, match="none of 3 questions came back without a fault"):
        translate_questions(settings_for(server, attempts=1), {task: questions}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_was_answered_before_is_not_asked_again(
    interpreter, settings_for, task, questions, tmp_path
) -> None:
    server = interpreter()
    settings = settings_for(server)
    first = {task: questions[:2]}
    translate_questions(settings, first, tmp_path / "out")
    assert len(server.seen) == 2
    translate_questions(settings, {task: questions}, tmp_path / "out")
    assert len(server.seen) == 3


def test_an_endpoint_that_is_down_is_an_error_and_keeps_what_came(
    interpreter, settings_for, task, questions, serve, tmp_path
) -> None:
    server = serve(lambda path, body: (503, {}, "overloaded"))
    with pytest.raises(ModelError, match=r"no answer in 3 attempts.*503"):
        translate_questions(settings_for(server), {task: questions}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_rate_limit_is_waited_for(settings_for, task, questions, interpreter, tmp_path) -> None:
    server = interpreter()
    answer, refused = server.answer, []

    def limited(path, body):
        if len(refused) < 2:
            refused.append(body)
            return 429, {"Retry-After": "0"}, "slow down"
        return answer(path, body)

    server.answer = limited
    out = translate_questions(settings_for(server), {task: questions}, tmp_path / "out")
    assert {row.state for row in rows_of(out)} == {"translated"}
