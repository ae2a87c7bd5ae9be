from __future__ import annotations

import pytest

from biomistral.translation.numbers import english_value, lost_numbers, numbers_of, readings


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("5", {"5"}),
        ("1.5", {"1.5"}),
        ("1,5", {"1.5"}),
        ("0,05", {"0.05"}),
        ("0.050", {"0.05"}),
        ("1,500", {"1500", "1.5"}),
        ("1 500", {"1500"}),
        ("1.500", {"1500", "1.5"}),
        ("1,500.50", {"1500.5"}),
        ("1.500,5", {"1500.5"}),
        ("1 500,5", {"1500.5"}),
        ("0.125", {"0.125"}),
        ("1٫5", {"1.5"}),
        ("1٬500", {"1500"}),
        ("-3", {"-3"}),
        ("-0", {"0"}),
        ("1,234,567", {"1234567"}),
        ("1.234,567", {"1234.567"}),
        ("1,2,3", set()),
        ("2010 125", set()),
    ],
)
def test_a_number_has_the_values_that_it_can_have_somewhere(written, values) -> None:
    assert set(readings(written)) == values


@pytest.mark.parametrize(
    ("written", "value"), [("1,500", "1500"), ("1.500", "1.5"), ("7.350", "7.35"), ("12", "12")]
)
def test_english_is_not_ambiguous(written, value) -> None:
    assert english_value(written) == value


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("IL-6 and 5-10 of 20", ["6", "5", "10", "20"]),
        ("at -5 degrees, −7 tomorrow", ["-5", "-7"]),
        ("a 10^6 and a 10⁶", ["10", "6", "10", "6"]),
        ("1,2,3 are right", ["1", "2", "3"]),
        ("10,000 people, 3.5 each, in 2010 125 of them", ["10,000", "3.5", "2010", "125"]),
        ("the 2nd rib and the 5th, vitamin B12", []),
        ("7 days. 3 doses", ["7", "3"]),
    ],
)
def test_numbers_are_found_where_they_stand(text, numbers) -> None:
    assert numbers_of(text) == numbers


@pytest.mark.parametrize(
    ("source", "translated"),
    [
        ("COVID-19 in 3 of 5", "КОВИД-19 у 3 из 5"),
        ("type-2 diabetes", "диабет тип-2"),
        ("interleukin-6", "إنترلوكين-6"),
        ("1,500 cells, 7.35", "1.500 Zellen, 7,35"),
        ("1,500 cells, 7.35", "١٬٥٠٠ خلية، ٧٫٣٥"),
        ("1,500 cells, 7.35", "1 500 клеток, 7,35"),
        ("10^6 copies at -5", "10⁶ 份，−5"),
        ("1,2,3", "1、2、3"),
        ("1,2,3", "1, 2 et 3"),
        ("1.5 and 1,500", "1,500 y 1,5"),
        ("5 mg", "５毫克"),
    ],
)
def test_a_number_is_kept_however_a_language_writes_it(source, translated) -> None:
    assert lost_numbers(source, translated) == []


@pytest.mark.parametrize(
    ("source", "translated", "lost"),
    [
        ("2 of 2 and 3", "2 sur 3", ["2"]),
        ("0.5 mg", "5 mg", ["0.5"]),
        ("7.35", "735", ["7.35"]),
        ("-5", "5", ["-5"]),
        ("10^6", "10", ["6"]),
        ("1,500", "15.00", ["1,500"]),
    ],
)
def test_what_is_lost_is_listed(source, translated, lost) -> None:
    assert lost_numbers(source, translated) == lost
