from __future__ import annotations

import pytest

from biomistral.translation.sentences import join_sentences, split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two? Three! Four", ["One.", "Two?", "Three!", "Four"]),
        ("A temperature of 38.5 C. It fell.", ["A temperature of 38.5 C. It fell."]),
        ("He took 5 mg. 3 days later", ["He took 5 mg.", "3 days later"]),
        ("Dr. Who saw E. coli vs. S. aureus", ["Dr. Who saw E. coli vs. S. aureus"]),
        ("first line\n\nsecond line", ["first line", "second line"]),
        ("第一句。第二句？第三", ["第一句。", "第二句？", "第三"]),
        ("ما هو؟ هذا هو.", ["ما هو؟", "هذا هو."]),
        ("i.e. this. and so on", ["i.e. this. and so on"]),
        ("", [""]),
    ],
)
def test_sentences_end_where_another_begins(text, sentences) -> None:
    assert split_sentences(text)[0] == sentences


@pytest.mark.parametrize(
    ("text", "language", "joined"),
    [
        ("One. Two.\nThree.\n\n\nFour.", "fr", "One. Two.\nThree.\n\nFour."),
        ("One.  Two.", "fr", "One. Two."),
        ("第一句。第二句。", "zh", "第一句。第二句。"),
        ("One. Two.", "zh", "One.Two."),
    ],
)
def test_sentences_are_put_together_as_the_language_writes_them(text, language, joined) -> None:
    assert join_sentences(*split_sentences(text), language) == joined
