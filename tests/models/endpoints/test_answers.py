from __future__ import annotations

from biomistral.models.endpoints.answers import Answers


def test_what_is_added_is_there_for_the_next_process(tmp_path) -> None:
    path = tmp_path / "folder/a.jsonl"
    Answers(path).add("one", {"text": "é"})
    again = Answers(path)
    assert "one" in again
    assert again["one"] == {"text": "é"}
    assert "two" not in again


def test_nothing_is_written_before_there_is_an_answer(tmp_path) -> None:
    assert "x" not in Answers(tmp_path / "a.jsonl")
    assert not list(tmp_path.iterdir())


def test_a_line_that_a_kill_has_torn_costs_that_line_only(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    Answers(path).add("one", 1)
    with path.open("ab") as stream:
        stream.write(b'["two", {"te')
    again = Answers(path)
    assert "one" in again
    assert "two" not in again
    again.add("three", 3)
    assert Answers(path)["three"] == 3


def test_a_line_of_nonsense_is_asked_again(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('nonsense\n["one", 1]\n')
    assert Answers(path)["one"] == 1
