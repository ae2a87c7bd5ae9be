from __future__ import annotations

import pytest

from biomistral.translation.terms import Term, lost_terms, num_checked, protected_terms


def test_terms_are_found_by_kind() -> None:
    text = "Give 1.5 mg/kg of heparin to a BRCA1 carrier with CD4 of 200 and 110 mmHg."
    assert protected_terms(text) == [
        *(Term("number", each) for each in ("1.5", "200", "110")),
        *(Term("unit", each) for each in ("mg/kg", "mmHg")),
        *(Term("gene", each) for each in ("BRCA1", "CD4")),
        Term("drug", "heparin"),
    ]


@pytest.mark.parametrize(
    ("language", "translated"),
    [
        ("fr", "Donner 1,5 mg d'amoxicilline ; TP53 muté."),
        ("es", "Dar 1,5 mg de amoxicilina; TP53 mutado."),
        ("de", "1,5 mg Amoxicillin geben; TP53 mutiert."),
        ("ru", "Дать 1,5 mg амоксициллина; мутация TP53."),
        ("ru", "Дать 1,5 мг амоксициллина; мутация TP53."),
        ("zh", "给予1.5毫克阿莫西林；TP53突变。"),
        ("ar", "إعطاء ١٫٥ ملغ من أموكسيسيلين؛ طفرة TP53."),
        ("ar", "إعطاء ١٫٥ mg من أموكسيسيلين؛ طفرة TP53."),
        ("zh", "给予 1.5 mg 阿莫西林；TP53 突变。"),
    ],
)
def test_a_faithful_translation_loses_nothing(language: str, translated: str) -> None:
    assert lost_terms("Give 1.5 mg of amoxicillin; TP53 mutated.", translated, language) == []


@pytest.mark.parametrize(
    ("translated", "lost"),
    [
        ("Donner 15 mg d'amoxicilline ; TP53 muté.", "1.5"),
        ("Donner 1,5 g d'amoxicilline ; TP53 muté.", "mg"),
        ("Donner 1,5 mg d'aspirine ; TP53 muté.", "amoxicillin"),
        ("Donner 1,5 mg d'amoxicilline ; TP73 muté.", "TP53"),
    ],
)
def test_what_is_lost_is_named(translated: str, lost: str) -> None:
    found = lost_terms("Give 1.5 mg of amoxicillin; TP53 mutated.", translated, "fr")
    assert [term.text for term in found] == [lost]


def test_a_number_that_stands_twice_must_stand_twice() -> None:
    assert lost_terms("2 of 2 and 3", "2 sur 3", "fr") == [Term("number", "2")]


def test_drugs_count_only_where_they_can_be_looked_for() -> None:
    terms = protected_terms("5 mg of heparin")
    assert num_checked(terms, "fr") == 3
    assert num_checked(terms, "zh") == 2


@pytest.mark.parametrize(
    "text", ["a person with poison ivy", "the reservoir", "HIV and AIDS", "A or B"]
)
def test_ordinary_words_are_no_terms(text: str) -> None:
    assert protected_terms(text) == []


@pytest.mark.parametrize(
    ("language", "translated"),
    [
        ("ru", "90 мм рт. ст. и 5 мг/дл"),
        ("zh", "90毫米汞柱和5毫克/分升"),
        ("ar", "٩٠ ملم زئبق و٥ ملغ/دل"),
    ],
)
def test_units_may_take_the_form_of_the_language(language: str, translated: str) -> None:
    assert lost_terms("90 mmHg and 5 mg/dL", translated, language) == []
    assert [term.text for term in lost_terms("90 mmHg and 5 g/dL", translated, language)] == [
        "g/dL"
    ]


@pytest.mark.parametrize(
    ("language", "translated"),
    [
        ("fr", "38,5 °C, IMC de 31 kg/m²"),
        ("de", "38,5 °C, BMI 31 kg/m²"),
        ("ru", "38,5 °С, ИМТ 31 кг/м²"),
        ("zh", "38.5摄氏度，体重指数31公斤/平方米"),
        ("ar", "38.5 درجة مئوية، مؤشر كتلة الجسم 31 كغ/م2"),
    ],
)
def test_temperatures_and_areas_have_forms_of_their_own(language: str, translated: str) -> None:
    assert lost_terms("38.5°C, BMI of 31 kg/m2", translated, language) == []


@pytest.mark.parametrize(
    ("source", "language", "translated", "lost"),
    [
        ("5 g in 10 y", "ru", "5 мг за 10 годов", ["g"]),
        ("5 L in 10 y", "ru", "5 мл за 10 лет", ["L"]),
        ("5 g in 10 y", "ru", "5 г за 10 лет", []),
        ("10 cm2", "fr", "10 cm²", []),
        ("10 cm2", "ru", "10 см²", []),
        ("10 cm2", "zh", "10平方厘米", []),
        ("10 cm2", "fr", "10 cm", ["cm2"]),
        ("ALT of 40 U/L", "ru", "АЛТ 40 Ед/л", []),
        ("ALT of 40 U/L", "de", "ALT 40 U/l", []),
        ("ALT of 40 U/L", "fr", "ALAT 40 g/L", ["U/L"]),
        ("T12 L1", "fr", "T12 L1", []),
    ],
)
def test_a_unit_is_a_whole_word(source, language, translated, lost) -> None:
    assert [term.text for term in lost_terms(source, translated, language)] == lost


@pytest.mark.parametrize(
    ("source", "language", "translated"),
    [
        ("vitamin B12", "ru", "витамин В12"),
        ("CD4 and O2", "fr", "CD4 et O₂"),
        ("O₂", "zh", "O2"),
    ],
)
def test_a_gene_may_be_typed_with_letters_that_look_alike(source, language, translated) -> None:
    assert protected_terms(source)
    assert lost_terms(source, translated, language) == []


def test_the_international_name_of_a_drug_is_the_drug() -> None:
    assert lost_terms("inhaled albuterol", "salbutamol inhalé", "fr") == []
    assert [term.text for term in lost_terms("inhaled albuterol", "budésonide inhalé", "fr")] == [
        "albuterol"
    ]


def test_sterols_are_no_drugs() -> None:
    assert protected_terms("cholesterol, lanosterol and sitosterol") == []
    assert protected_terms("salmeterol") == [Term("drug", "salmeterol")]
