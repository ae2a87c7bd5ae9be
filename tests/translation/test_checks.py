from __future__ import annotations

import pytest

from biomistral.translation.checks import faults
from biomistral.translation.parts import Parts

SOURCE = Parts(
    "Which of the following drugs lowers blood pressure of 160 mmHg in the valley people?",
    ("Lisinopril", "Bark tea", "Rest for 3 days"),
)
FRENCH = Parts(
    "Lequel des médicaments suivants abaisse une pression de 160 mmHg chez les gens de la vallée ?",
    ("Lisinopril", "Thé d'écorce", "Repos pendant 3 jours"),
)


def changed(**parts: object) -> Parts:
    values = {"stem": FRENCH.stem, "choices": FRENCH.choices, **parts}
    return Parts(**values)  # type: ignore[arg-type]


def test_a_good_translation_has_no_faults() -> None:
    assert faults(SOURCE, FRENCH, "fr") == []


@pytest.mark.parametrize(
    ("translated", "fault"),
    [
        (changed(choices=("Lisinopril", "Repos 3", "repos  3")), "options B and C read the same"),
        (
            changed(choices=("A) Lisinopril", *FRENCH.choices[1:])),
            "option A begins with its letter",
        ),
        (changed(stem=SOURCE.stem), "question is still in English"),
        (SOURCE, "it reads as English"),
        (changed(stem="Lequel abaisse 160 mmHg ?"), "question is much shorter"),
        (changed(stem=FRENCH.stem * 3), "question is much longer"),
        (changed(stem=FRENCH.stem.replace("160", "16")), "question lacks .* number 160"),
        (changed(choices=("Aspirine", *FRENCH.choices[1:])), "A lacks .* drug Lisinopril"),
    ],
)
def test_each_fault_is_told(translated: Parts, fault: str) -> None:
    import re

    found = faults(SOURCE, translated, "fr")
    assert any(re.search(fault, each) for each in found), found


@pytest.mark.parametrize("language", ["ru", "zh", "ar"])
def test_another_script_is_seen(language: str) -> None:
    assert any("of the letters are" in each for each in faults(SOURCE, FRENCH, language))


def test_options_that_are_equal_in_english_may_be_equal() -> None:
    source = Parts("Which is it, here?", ("None", "none"))
    assert faults(source, Parts("Lequel est-ce, ici ?", ("Aucun", "aucun")), "fr") == []


def test_short_names_may_stay_as_they_are() -> None:
    source = Parts("Which gene?", ("TP53", "BRCA1"))
    assert faults(source, Parts("Quel gène ?", ("TP53", "BRCA1")), "fr") == []
