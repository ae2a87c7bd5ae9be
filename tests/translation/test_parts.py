from __future__ import annotations

import pytest

from biomistral.records import Question
from biomistral.translation.parts import Parts, from_json, to_json

SOURCE = Parts("Which tree helps?", ("Oak", "Ash"), "A walk in the valley.")


def test_parts_of_a_question_come_back_from_json() -> None:
    question = Question("1", "t", "en", "test", "Which tree helps?", ("Oak", "Ash"), 1, "A walk.")
    parts = Parts.of(question)
    assert from_json(to_json(parts), parts) == parts
    bare = Parts("Which?", ("Oak", "Ash"))
    assert "context" not in to_json(bare)
    assert from_json(to_json(bare), bare) == bare


def test_texts_have_names() -> None:
    assert [name for name, _ in SOURCE.texts()] == ["context", "question", "A", "B"]


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ([], "is a list, not an object"),
        ({"question": "Quel ?"}, "has no object 'options'"),
        ({"question": "Quel ?", "context": "c", "options": {"A": "Chêne"}}, "lacks the options B"),
        (
            {"question": "Q", "context": "c", "options": {"A": "a", "B": "b", "C": "c"}},
            "not in the original: C",
        ),
        (
            {"question": " ", "context": "c", "options": {"A": "a", "B": "b"}},
            "no text for question",
        ),
        ({"question": "Q", "options": {"A": "a", "B": "b"}}, "no text for context"),
        ({"question": "Q", "context": "c", "options": {"A": 1, "B": "b"}}, "no text for A"),
    ],
)
def test_a_translation_of_another_structure_is_refused(value: object, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        from_json(value, SOURCE)
