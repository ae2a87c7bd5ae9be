from __future__ import annotations

import pytest

from biomistral.translation.families import steering


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("fra_Latn", ("", "eng_Latn", "fra_Latn")),
        ("fr_XX", ("", "en_XX", "fr_XX")),
        ("__fr__", ("", "en", "__fr__")),
        ("<2fr>", ("<2fr> ", "", "")),
        (">>fra<<", (">>fra<< ", "", "")),
        (">>fr<<", (">>fr<< ", "", "")),
    ],
)
def test_each_family_is_told_the_language_in_its_way(token, expected):
    found = steering({token}.__contains__, "en", "fr")
    assert found is not None
    assert (found.prefix, found.source_code, found.first_token) == expected
    assert steering(set().__contains__, "en", "fr") is None


@pytest.mark.parametrize(
    ("token", "language"),
    [("zho_Hans", "zh"), ("arb_Arab", "ar"), ("zh_CN", "zh"), (">>cmn_Hans<<", "zh")],
)
def test_languages_have_the_codes_of_each_family(token, language):
    assert steering({token}.__contains__, "en", language) is not None
    assert steering({token}.__contains__, "en", "fr") is None
