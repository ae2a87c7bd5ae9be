"""Files of conversations and pairs: what is wrong is told with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from biomistral.errors import InputError
from biomistral.training.conversations import find_data_files, read_conversations, read_pairs


def said(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


GOOD = [said("user", "What helps?"), said("assistant", "Bark.")]


@pytest.fixture
def write(tmp_path: Path):
    """Return a function: records -> file of JSON lines."""

    def write(*records: object, name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
        return path

    return write


def test_conversations_are_read_with_their_places(write):
    system = said("system", "You are a healer.")
    path = write({"messages": GOOD}, {"messages": [system, *GOOD, *GOOD], "source": "invented"})
    [(first, one), (second, two)] = read_conversations([path])
    assert (first.line, second.line) == (1, 2)
    assert one == GOOD
    assert [message["role"] for message in two] == ["system", *["user", "assistant"] * 2]


def test_blank_lines_count_but_hold_nothing(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(f"\n{json.dumps({'messages': GOOD})}\n\n", "utf-8")
    [(spot, _)] = read_conversations([path])
    assert spot.line == 2


@pytest.mark.parametrize(
    ("messages", "wrong"),
    [
        (
            [said("human", "x"), said("assistant", "y")],
            "message 1 of messages has the role 'human'",
        ),
        ([said("user", "x"), said("assistant", " ")], "message 2 of messages (assistant) is empty"),
        ([said("user", "x"), said("assistant", None)], "is empty or no text: None"),
        ([said("user", "x")], "the roles are user;"),
        ([said("assistant", "x")], "the roles are assistant;"),
        ([*GOOD, said("assistant", "z")], "the roles are user, assistant, assistant;"),
        ([*GOOD, said("system", "z")], "the roles are user, assistant, system;"),
        ([said("system", "x")], "the roles are system;"),
        ([], "a list of messages is due"),
        ("What helps?", "a list of messages is due"),
        ([["user", "x"]], "has the role None; allowed are system, user, assistant"),
    ],
)
def test_wrong_messages_are_refused_by_file_and_line(write, messages, wrong):
    path = write({"messages": GOOD}, {"messages": messages})
    with pytest.raises(InputError) as error:
        read_conversations([path])
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert wrong in str(error.value)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "is empty; one JSON object a line is due"),
        ("{", "line 1: is not JSON"),
        ("[1]", "line 1: holds a list; an object is due"),
        ('{"text": "x"}', "line 1: has no messages (keys: text)"),
    ],
)
def test_files_that_are_something_else_are_refused(tmp_path, text, wrong):
    path = tmp_path / "data.jsonl"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError) as error:
        read_conversations([path])
    assert wrong in str(error.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as text in UTF-8"):
        read_conversations([path])


def test_pairs_are_texts_or_messages(write):
    texts = {"prompt": "Q", "chosen": "a", "rejected": "b"}
    ask = [said("user", "Q")]
    messages = {"prompt": ask, "chosen": [GOOD[1]], "rejected": [said("assistant", "Moss.")]}
    [(_, one), (_, two)] = read_pairs([write(texts, messages)])
    assert (one.prompt, one.chosen, one.rejected) == ("Q", "a", "b")
    assert (two.prompt, two.chosen) == (ask, [GOOD[1]])


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"rejected": "a"}, "chosen and rejected are the same; one has to be better"),
        ({"chosen": " "}, "chosen is empty or no text"),
        ({"rejected": None}, "rejected is empty or no text: None"),
        ({"chosen": [said("assistant", "a")]}, "mixes texts and messages"),
    ],
)
def test_wrong_pairs_are_refused_by_file_and_line(write, change, wrong):
    path = write({"prompt": "Q", "chosen": "a", "rejected": "b", **change})
    with pytest.raises(InputError) as error:
        read_pairs([path])
    assert str(error.value).startswith(f"{path}, line 1: ")
    assert wrong in str(error.value)


def test_a_pair_lacks_nothing(write):
    with pytest.raises(InputError, match=r"has no rejected; prompt, chosen and rejected are due"):
        read_pairs([write({"prompt": "Q", "chosen": "a"})])


def test_messages_of_a_pair_take_turns_too(write):
    pair = {"prompt": GOOD, "chosen": [GOOD[1]], "rejected": [said("assistant", "Moss.")]}
    with pytest.raises(InputError, match="the roles are user, assistant, assistant"):
        read_pairs([write(pair)])


def test_patterns_find_files_in_order_and_each_finds_one(write, tmp_path):
    for name in ("b.jsonl", "a.jsonl"):
        write({}, name=name)
    found = find_data_files([f"{tmp_path}/*.jsonl"])
    assert [path.name for _, path in found] == ["a.jsonl", "b.jsonl"]
    with pytest.raises(InputError, match=r"nothing\.jsonl: there is no such file"):
        find_data_files([f"{tmp_path}/a.jsonl", f"{tmp_path}/nothing.jsonl"])
