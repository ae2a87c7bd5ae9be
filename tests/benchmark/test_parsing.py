"""Records of JSON files and checked values."""

from __future__ import annotations

import pytest

from biomistral.benchmark.parsing import (
    Place,
    Spot,
    decoded,
    index_of_letter,
    json_by_key,
    json_lines,
    json_list,
    key_of,
    question_of,
    text_of,
    texts_by_letter,
)
from biomistral.errors import InputError

PLACE = Place("herbs.json", "herbs", "en", "test")
SPOT = Spot(PLACE, 7)


def test_a_byte_order_mark_is_not_part_of_the_text():
    assert decoded("\ufeffécorce".encode(), PLACE) == "écorce"


def test_bytes_that_are_not_utf8_are_named_by_place():
    with pytest.raises(InputError, match=r"herbs\.json: is not UTF-8 at byte 3"):
        decoded(b"abc\xe9", PLACE)


def test_empty_lines_are_passed_over_and_line_separators_inside_texts_do_not_break_lines():
    records = list(json_lines('{"a": "x\u2028y"}\r\n\n{"a": "z"}\n', PLACE))
    assert [(spot.number, record["a"]) for spot, record in records] == [(1, "x\u2028y"), (3, "z")]


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (json_lines, '{"a": 1}\n{"a": ', "record 2: is no valid JSON"),
        (json_lines, "[1]", "record 1: is no JSON object"),
        (json_list, "{}", "is no JSON list"),
        (json_list, "[{}, 3]", "record 2: is no JSON object"),
        (json_list, "[" * 100_000, "is no valid JSON"),
        (json_by_key, "[]", "is no JSON object of records"),
        (json_by_key, '{"a": []}', "record 1: is no JSON object"),
    ],
)
def test_files_of_another_shape_are_refused(read, text, message):
    with pytest.raises(InputError, match=message):
        list(read(text, PLACE))


def test_a_number_is_an_id_and_nothing_else():
    assert text_of({"id": 12}, "id", SPOT) == "12"
    with pytest.raises(InputError, match="record 7: stem is 12; a text is due"):
        text_of({"stem": 12}, "stem", SPOT)
    with pytest.raises(InputError, match="record 7: has no stem"):
        text_of({}, "stem", SPOT)
    with pytest.raises(InputError, match="id is True"):
        text_of({"id": True}, "id", SPOT)


def test_texts_are_ordered_by_letter_and_not_by_the_file():
    assert texts_by_letter({"b": "2", "a": "1"}, "answers", "abcde", SPOT) == ["1", "2"]
    with pytest.raises(InputError, match=r"has the letters \['a', 'c'\]"):
        texts_by_letter({"c": "3", "a": "1"}, "answers", "abcde", SPOT)


@pytest.mark.parametrize("letter", ["E", "", "a", "AB", " A"])
def test_a_letter_outside_the_choices_is_refused(letter):
    assert index_of_letter("D", 4, SPOT) == 3
    with pytest.raises(InputError, match="allowed are the letters A, B, C, D"):
        index_of_letter(letter, 4, SPOT)


def test_exactly_one_of_two_keys_is_due():
    assert key_of({"stem": ""}, ("stem", "question"), SPOT) == "stem"
    with pytest.raises(InputError, match="has none of stem and question"):
        key_of({}, ("stem", "question"), SPOT)
    with pytest.raises(InputError, match="has stem and question of stem and question"):
        key_of({"stem": "", "question": ""}, ("stem", "question"), SPOT)


def test_outer_blanks_are_cut_and_inner_ones_kept():
    question = question_of(SPOT, "1", " why\n\nnow ? ", ["a ", "\tb"], 1, " c ")
    assert (question.stem, question.choices, question.context) == ("why\n\nnow ?", ("a", "b"), "c")


@pytest.mark.parametrize(
    ("stem", "choices", "gold", "message"),
    [
        ("q", ["a", " "], 0, "record 7: choice 2 is empty"),
        (" ", ["a", "b"], 0, "record 7: .*the stem is empty"),
        ("q", ["a"], 0, "record 7: .*has 1 choices"),
        ("q", ["a", "b"], 2, "record 7: .*gold index 2"),
        ("q\ud83d", ["a", "b"], 1, "half a character"),
    ],
)
def test_an_invalid_question_names_file_and_record(stem, choices, gold, message):
    with pytest.raises(InputError, match=message) as error:
        question_of(SPOT, "1", stem, choices, gold)
    assert str(error.value).startswith("herbs.json")
