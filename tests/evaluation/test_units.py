from __future__ import annotations

import dataclasses
import errno

import pyarrow.parquet as pq
import pytest

from biomistral.errors import InputError
from biomistral.evaluation.units import Store, Unit, cut
from biomistral.records import Request

FACTS = {"model": "abc", "precision": "float32"}
COST = {"prompt_tokens": 7, "forward_tokens": None}


@pytest.fixture
def requests() -> list[Request]:
    return [
        Request(f"q{index}", "plants", "en", 3, seed, "letter", f"p{index}", ("A", "B"), 0)
        for seed in (1, 2)
        for index in range(3)
    ]


@pytest.fixture
def unit(requests) -> Unit:
    return next(cut(requests, FACTS))


def test_requests_are_cut_by_seed(requests):
    assert [[r.seed for r in unit.requests] for unit in cut(requests, FACTS)] == [[1] * 3, [2] * 3]


@pytest.mark.parametrize(
    "change",
    [{"language": "fr"}, {"task": "x"}, {"scoring": "published"}, {"shots": 2}, {"seed": 5}],
)
def test_a_unit_has_one_of_each(requests, change):
    asked = [*requests[:2], dataclasses.replace(requests[2], **change)]
    assert len(list(cut(asked, FACTS))) == 2


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Request)])
def test_every_field_of_a_request_is_in_the_key(requests, unit, field):
    value = getattr(requests[0], field)
    other = (7,) if isinstance(value, tuple) else value + value if value else 5
    asked = [dataclasses.replace(request, **{field: other}) for request in requests[:3]]
    assert next(cut(asked, FACTS)).key != unit.key


@pytest.mark.parametrize("name", FACTS)
def test_every_fact_is_in_the_key(requests, unit, name):
    assert next(cut(requests, {**FACTS, name: "other"})).key != unit.key


def test_the_order_of_the_requests_is_in_the_key(requests, unit):
    assert next(cut(requests[2::-1], FACTS)).key != unit.key


def test_answers_come_back_with_the_name_asked_for(unit, tmp_path):
    store = Store(tmp_path)
    assert store.read(unit, "m") is None
    with store.begin(unit) as unfinished:
        unfinished.keep([2, 0], [(-1.0, -2.0), (-0.1, -0.25)], ["A", " B"])
        unfinished.keep([1], [(-3.0, -4.0)], [""])
        unfinished.finish(COST)
    table, cost = store.read(unit, "m")
    assert cost == COST
    assert table["question_id"].to_pylist() == ["q0", "q1", "q2"]
    assert table["logprobs"].to_pylist() == [[-0.1, -0.25], [-3.0, -4.0], [-1.0, -2.0]]
    assert table["top"].to_pylist() == [" B", "", "A"]
    assert set(table["model"].to_pylist()) == {"m"}


def test_an_interrupted_unit_is_taken_over_to_the_last_bit(unit, tmp_path):
    value = -0.1234567890123456789
    with Store(tmp_path).begin(unit) as unfinished:
        unfinished.keep([1], [(value, -1e-300)], ["é"])
    with Store(tmp_path).begin(unit) as unfinished:
        assert unfinished.resumed
        assert unfinished.missing == [0, 2]
        assert unfinished.answers == {1: ((value, -1e-300), "é")}


@pytest.mark.parametrize("torn", [b"[[0], [[-1.0, -2.", b'[[0], [[-1.0, -2.0]], [""]]', b"\0" * 9])
def test_a_torn_last_line_is_forgotten_and_written_over(unit, tmp_path, torn):
    with Store(tmp_path).begin(unit) as unfinished:
        unfinished.keep([1], [(-1.0, -2.0)], [""])
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() + torn)
    with Store(tmp_path).begin(unit) as unfinished:
        assert unfinished.missing == [0, 2]
        unfinished.keep([0], [(-3.0, -4.0)], [""])
    with Store(tmp_path).begin(unit) as unfinished:
        assert unfinished.missing == [2]


def test_nothing_is_left_of_a_unit_without_answers(unit, tmp_path):
    with Store(tmp_path).begin(unit) as unfinished:
        assert not unfinished.resumed
    assert list(tmp_path.iterdir()) == []


def test_one_unit_is_scored_by_one_process(unit, tmp_path):
    with Store(tmp_path).begin(unit), pytest.raises(InputError, match=r"another process .*seed 1"):
        Store(tmp_path).begin(unit).__enter__()


def test_a_broken_file_is_as_good_as_none(unit, tmp_path):
    with Store(tmp_path).begin(unit) as unfinished:
        unfinished.keep([0, 1, 2], [(-1.0, -2.0)] * 3, [""] * 3)
        unfinished.finish(COST)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    assert Store(tmp_path).read(unit, "m") is None
    assert list(tmp_path.iterdir()) == []


def test_answers_stay_when_it_is_the_system_that_cannot_read_them(unit, tmp_path, monkeypatch):
    _keep(Store(tmp_path), unit)
    [path] = tmp_path.iterdir()

    def too_many_files(_):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(pq, "read_table", too_many_files)
        with pytest.raises(OSError, match="Too many open files"):
            Store(tmp_path).read(unit, "m")
    assert path.is_file()
    assert Store(tmp_path).read(unit, "m") is not None


# --- answers that are kept and not used -----------------------------------------------------------


def _keep(store, unit):
    with store.begin(unit) as unfinished:
        unfinished.keep(range(3), [(-1.0, -2.0)] * 3, [""] * 3)
        unfinished.finish(COST)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"version": 4}, "they are of version 3 of the engine, which is 4 now"),
        ({"precision": "bfloat16"}, "computed in float32, and bfloat16 is asked for now"),
        ({"engine": "vllm 1", "version": 1}, "of the engine own, and vllm 1 is asked now"),
        ({"rounding": "up"}, "something that they depend on is not the same"),
        ({"model": "other"}, None),
    ],
)
def test_it_is_said_why_kept_answers_are_not_used(requests, tmp_path, changed, why):
    facts = {**FACTS, "engine": "own", "version": 3}
    store = Store(tmp_path)
    assert store.outdated(cut(requests, facts)) == {}
    _keep(store, next(cut(requests, facts)))
    assert store.outdated(cut(requests, facts)) == {}
    found = store.outdated(cut(requests, {**facts, **changed}))
    if why is None:
        assert found == {}
        return
    [(said, [unit])] = found.items()
    assert why in said
    assert unit.words == "plants, en, seed 1, letter"


def test_another_prompt_to_the_same_task_is_said(requests, unit, tmp_path):
    store = Store(tmp_path)
    _keep(store, unit)
    other = [dataclasses.replace(request, prompt="other") for request in requests]
    [why] = store.outdated(cut(other, FACTS))
    assert "questions, worked examples or prompt are not the same" in why


def test_of_several_kept_answers_the_nearest_says_why(requests, tmp_path):
    store = Store(tmp_path)
    for facts in ({"version": 1, "precision": "x"}, {"version": 2, "precision": "float32"}):
        _keep(store, next(cut(requests, {"model": "abc", **facts})))
    [why] = store.outdated(cut(requests, {**FACTS, "version": 3}))
    assert "version 2 of the engine, which is 3" in why


def test_files_that_do_not_say_what_they_were_made_from_are_named_as_such(unit, tmp_path):
    _keep(Store(tmp_path), dataclasses.replace(unit, key="0" * 64, made_from={}))
    [why] = Store(tmp_path).outdated([unit])
    assert "do not say what they were made from" in why


def test_a_damaged_file_is_no_reason(unit, tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    assert Store(tmp_path).outdated([unit]) == {}


def test_other_questions_of_the_task_are_new_and_not_asked_again(requests, unit, tmp_path):
    store = Store(tmp_path)
    _keep(store, unit)
    others = [dataclasses.replace(r, question_id=f"validation {r.question_id}") for r in requests]
    assert store.outdated(cut(others, {**FACTS, "version": 9})) == {}
