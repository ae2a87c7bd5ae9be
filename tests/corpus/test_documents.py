from __future__ import annotations

import pytest

from biomistral.corpus.documents import Document, count_words, language_code, one_line


def test_one_line_is_nfc_without_invisible_marks() -> None:
    assert one_line(" e\u0301tude\u00a0\n du\u00ad foie\u200b ") == "étude du foie"


def test_joiners_stay_where_a_script_needs_them() -> None:
    assert "\u200c" in one_line("می\u200cشود")


@pytest.mark.parametrize(
    ("text", "words"), [("", 0), ("one two  three", 3), ("河谷热用树皮", 3), ("用 CT 检查", 2)]
)
def test_two_chinese_characters_are_a_word(text: str, words: int) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize(
    ("declared", "code"),
    [
        ("EN", "en"),
        ("pt-BR", "pt"),
        ("en_US", "en"),
        ("eng", "en"),
        ("", None),
        (None, None),
        ("tlh", "tlh"),
    ],
)
def test_language_codes_are_two_letters_where_they_can_be(
    declared: str | None, code: str | None
) -> None:
    assert language_code(declared) == code


def test_parts_belong_to_the_family_of_their_article() -> None:
    assert Document(id="PMC1#abstract1", file="", text="").family == "PMC1"
