from __future__ import annotations

import unicodedata

import pytest

from biomistral.errors import InputError
from biomistral.languages import LANGUAGES, language_of

# First word of Unicode's name for the letters of a script (ISO 15924).
LETTERS = {"Latn": "LATIN", "Cyrl": "CYRILLIC", "Hans": "CJK", "Arab": "ARABIC"}


def test_there_are_the_eight_languages_of_the_paper() -> None:
    assert list(LANGUAGES) == ["en", "fr", "es", "pt", "de", "ru", "zh", "ar"]


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_language_is_filed_under_its_code_and_named_in_its_script(code: str) -> None:
    language = LANGUAGES[code]
    assert language.code == code
    letters = [c for c in language.native_name if c.isalpha()]
    assert all(unicodedata.name(c).startswith(LETTERS[language.script]) for c in letters)


@pytest.mark.parametrize("code", LANGUAGES)
def test_direction_is_that_of_the_letters(code: str) -> None:
    language = LANGUAGES[code]
    written_to_the_left = unicodedata.bidirectional(language.native_name[0]) in {"R", "AL"}
    assert (language.direction == "rtl") == written_to_the_left


@pytest.mark.parametrize("code", ["pt", "PT", "pt-BR", "pt_br", " pt "])
def test_case_and_region_do_not_matter(code: str) -> None:
    assert language_of(code).name == "Portuguese"


@pytest.mark.parametrize("code", ["", "eng", "xx", "-"])
def test_another_language_is_refused_with_those_allowed(code: str) -> None:
    with pytest.raises(InputError, match="not one of en, fr, es, pt, de, ru, zh, ar") as caught:
        language_of(code)
    assert repr(code) in str(caught.value)
