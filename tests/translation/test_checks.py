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


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        ("le feu et la tea of the hills and with bark", True),
        ("le feu et la tea of the hills with bark", False),
    ],
)
def test_a_text_with_more_english_than_own_words_reads_as_english(words, seen) -> None:
    source = Parts("Fire and tea made of hills, with bark", ("Bark", "Rest"))
    found = faults(source, Parts(words, ("Écorce", "Repos")), "fr")
    assert any("it reads as English" in each for each in found) is seen


@pytest.mark.parametrize("language", ["ru", "zh", "ar"])
def test_another_script_is_seen(language: str) -> None:
    assert any("of the letters are" in each for each in faults(SOURCE, FRENCH, language))


def test_options_that_are_equal_in_english_may_be_equal() -> None:
    source = Parts("Which is it, here?", ("None", "none"))
    assert faults(source, Parts("Lequel est-ce, ici ?", ("Aucun", "aucun")), "fr") == []


def test_short_names_may_stay_as_they_are() -> None:
    source = Parts("Which gene?", ("TP53", "BRCA1"))
    assert faults(source, Parts("Quel gène ?", ("TP53", "BRCA1")), "fr") == []


def test_options_that_differ_in_case_only_must_still_differ() -> None:
    source = Parts("Which genotype is it?", ("AA", "Aa", "aa"))
    stem = "Quel génotype est-ce ?"
    assert faults(source, Parts(stem, ("AA", "Aa", "aa")), "fr") == []
    (fault,) = faults(source, Parts(stem, ("AA", "AA", "aa")), "fr")
    assert "options A and B read the same" in fault


@pytest.mark.parametrize("written", ["A) Anémie", "(A) Anémie", "A. Anémie", "A：Anémie"])
def test_a_letter_before_an_option_that_begins_with_it_is_seen(written) -> None:
    source = Parts("What is it?", ("Anemia", "Fever"))
    (fault,) = faults(source, Parts("Qu'est-ce ?", (written, "Fièvre")), "fr")
    assert fault.startswith("option A begins with its letter")
    assert faults(source, Parts("Qu'est-ce ?", ("Anémie", "Fièvre")), "fr") == []


@pytest.mark.parametrize(
    ("option", "translated", "wrong"),
    [
        ("Both A and C", "А и С", True),
        ("Both A and C", "A и C", False),
        ("b, a, d", "b, a, d", False),
        ("b, a, d", "б, а, д", True),
        ("Vitamin A or vitamin C", "Витамин А или витамин С", False),
        ("Both A and C", "Tanto A e C", False),
        ("'B' & 'C'", "« B » et « C »", False),
        ("B>A>D", "B>A>D", False),
        ("B>A>D", "B>D>A", True),
        ("Cord", "Канатик", False),
        ("C1-C2", "С1-С2", False),
        ("A b", "А б", False),
        ("A or AB", "А или АВ", False),
    ],
)
def test_the_letters_of_other_options_stay(option, translated, wrong) -> None:
    source = Parts("What is it?", (option, "39"))
    found = faults(source, Parts("Что это такое?", (translated, "39")), "ru")
    assert any("names other options" in each for each in found) is wrong


@pytest.mark.parametrize(
    ("language", "stem", "option", "seen"),
    [
        ("fr", "Qu'est-ce qui est juste ici ?", "Rise of the pressure", True),
        ("ru", "Что здесь верно?", "High blood pressure", True),
        ("zh", "以下哪项正确？", "Weakness and pain", True),
        ("ar", "أي مما يلي صحيح؟", "high fever", True),
        ("fr", "Qu'est-ce qui est juste ici ?", "Flexor digitorum superficialis", False),
        ("ru", "Что здесь верно?", "Escherichia coli", False),
        ("zh", "以下哪项正确？", "TP53", False),
    ],
)
def test_an_option_left_in_english_is_seen(language, stem, option, seen) -> None:
    source = Parts("What is right here?", (option, "39"))
    found = faults(source, Parts(stem, (option, "39")), language)
    assert any("A is still in English" in each for each in found) is seen
