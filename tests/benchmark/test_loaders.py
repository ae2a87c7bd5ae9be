"""Every file format, on invented records."""

from __future__ import annotations

import json

import pytest

from biomistral.benchmark.loaders import load
from biomistral.benchmark.parsing import Place
from biomistral.errors import InputError

PLACE = Place("herbs.json", "herbs", "fr", "train")


def read(file_format, data):
    if not isinstance(data, (bytes, str)):
        data = json.dumps(data)
    return load(file_format, data if isinstance(data, bytes) else data.encode(), PLACE)


def lines(*records):
    return "\n".join(json.dumps(record) for record in records)


def test_mmlu_keeps_newlines_in_fields_and_counts_records_not_lines():
    text = 'Plain?,1/64,b,c,d,B\r\n"Over\ntwo ""lines""?","a, x",b,c,d,D\r\n'
    first, second = read("mmlu", text).questions
    assert (first.id, first.stem, first.choices, first.gold) == (
        "1",
        "Plain?",
        ("1/64", "b", "c", "d"),
        1,
    )
    assert (second.id, second.stem, second.choices[0], second.gold) == (
        "2",
        'Over\ntwo "lines"?',
        "a, x",
        3,
    )
    assert (first.task, first.language, first.split) == ("herbs", "fr", "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question,A,B,C,D,answer\n", "record 1: the answer is 'answer'"),
        ("q,a,b,c,d,A\nq,a,b,c,A\n", "record 2: has 5 columns; 6 are due"),
        ("q,a,b,c,d,E\n", "record 1: the answer is 'E'; allowed are the letters A, B, C, D"),
        ("q,a,,c,d,A\n", "record 1: choice 2 is empty"),
        ('q,a,b,c,"d,A\n', "line 1: is no valid CSV"),
        ("", "holds no question"),
    ],
)
def test_mmlu_errors_say_where_and_what_is_due(text, message):
    with pytest.raises(InputError, match=message):
        read("mmlu", text)


@pytest.mark.parametrize("letters", ["ABCD", "ABCDE"])
def test_medqa_has_four_or_five_options_in_the_order_of_their_letters(letters):
    options = {letter: f"text {letter}" for letter in reversed(letters)}
    record = {"question": "Next?", "options": options, "answer_idx": letters[-1], "meta_info": "x"}
    (question,) = read("medqa", lines(record)).questions
    assert question.choices == tuple(f"text {letter}" for letter in letters)
    assert (question.id, question.gold) == ("1", len(letters) - 1)


def test_medqa_without_an_answer_is_refused():
    record = {"question": "Next?", "options": {"A": "x", "B": "y"}}
    with pytest.raises(InputError, match="record 1: has no answer_idx"):
        read("medqa", lines(record))
    with pytest.raises(
        InputError, match="record 1: the answer is 'C'; allowed are the letters A, B"
    ):
        read("medqa", lines({**record, "answer_idx": "C"}))


def medmcqa(cop, **changes):
    record = {"id": "u1", "question": "Not true?", "opa": "w", "opb": "x", "opc": "y", "opd": "z"}
    return {**record, "cop": cop, "choice_type": "multi", **changes}


def test_medmcqa_cop_counts_from_one():
    (question,) = read("medmcqa", lines(medmcqa(1))).questions
    assert (question.id, question.gold, question.choices) == ("u1", 0, ("w", "x", "y", "z"))
    assert read("medmcqa", lines(medmcqa(4))).questions[0].gold == 3


@pytest.mark.parametrize("cop", [0, 5, None, "1", True])
def test_medmcqa_without_a_public_answer_is_refused(cop):
    with pytest.raises(InputError, match=r"record 1: cop is .*; allowed are 1 to 4"):
        read("medmcqa", lines(medmcqa(cop)))


def test_two_equal_choices_are_kept_as_published():
    (question,) = read("medmcqa", lines(medmcqa(2, opc="x"))).questions
    assert question.choices == ("w", "x", "x", "z")


@pytest.mark.parametrize("contexts", [["Aim.", "It's so."], "['Aim.', \"It's so.\"]"])
def test_pubmedqa_contexts_are_a_list_or_a_list_printed_as_text(contexts):
    record = {"QUESTION": "Does it?", "CONTEXTS": contexts, "final_decision": "maybe"}
    (question,) = read("pubmedqa", {"11": record}).questions
    assert (question.id, question.context) == ("11", "Aim. It's so.")
    assert (question.choices, question.gold) == (("yes", "no", "maybe"), 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"final_decision": True}, "final_decision is True; allowed are yes, no, maybe"),
        ({"final_decision": None}, "final_decision is None"),
        ({"CONTEXTS": "__import__('os')"}, "CONTEXTS is .*; a list of texts is due"),
        ({"CONTEXTS": [1]}, "CONTEXTS is .*; a list of texts is due"),
        ({"QUESTION": None}, "QUESTION is None"),
    ],
)
def test_pubmedqa_errors(changes, message):
    record = {"QUESTION": "Does it?", "CONTEXTS": ["Aim."], "final_decision": "no", **changes}
    with pytest.raises(InputError, match=f"record 1: {message}"):
        read("pubmedqa", {"11": record})


def french(question_id, correct, **changes):
    answers = {"a": "saule", "c": "if", "d": "houx", "e": "buis", "b": "orme"}
    record = {"id": question_id, "question": "Quelle écorce ?", "answers": answers}
    return {**record, "correct_answers": correct, **changes}


def test_frenchmedmcqa_keeps_questions_with_one_right_answer_and_counts_the_others():
    loaded = read("frenchmedmcqa", [french("x", ["a", "b"]), french("y", ["b"])])
    (question,) = loaded.questions
    assert (question.id, question.choices[question.gold]) == ("y", "orme")
    assert question.choices == ("saule", "orme", "if", "houx", "buis")
    assert loaded.left_out == {"several right answers": 1}


@pytest.mark.parametrize("correct", [[], None, "a", ["f"]])
def test_frenchmedmcqa_without_a_right_answer_is_refused(correct):
    with pytest.raises(InputError, match="record 1: "):
        read("frenchmedmcqa", [french("x", correct)])


def test_a_record_that_is_there_twice_is_taken_once_and_counted():
    loaded = read("frenchmedmcqa", [french("x", ["a"]), french("y", ["b"]), french("x", ["a"])])
    assert [question.id for question in loaded.questions] == ["x", "y"]
    assert loaded.left_out == {"repeated": 1}


def test_two_different_questions_with_one_id_are_refused():
    with pytest.raises(InputError, match="two different questions have the id 'x'"):
        read("frenchmedmcqa", [french("x", ["a"]), french("x", ["b"])])


def test_xmedbench_options_are_lines_with_letters_in_brackets():
    record = {"question": "¿Cuál?", "options": "(A) a (B) x\n(B) b\nmore..\n(C) c", "answer": "(B)"}
    (question,) = read("xmedbench", [record]).questions
    assert question.choices == ("a (B) x", "b\nmore..", "c")
    assert (question.id, question.gold) == ("1", 1)


@pytest.mark.parametrize(
    ("options", "answer", "message"),
    [
        ("(A) a\n(C) c", "(A)", "options are"),
        ("a\n(A) b", "(A)", "options are"),
        ("none", "(A)", "options are"),
        ("(A) a\n(B) b", "(C)", "the answer is 'C'; allowed are the letters A, B"),
    ],
)
def test_xmedbench_errors(options, answer, message):
    with pytest.raises(InputError, match=f"record 1: {message}"):
        read("xmedbench", [{"question": "q", "options": options, "answer": answer}])


def test_own_lines_take_an_index_or_a_letter_and_a_context():
    loaded = read(
        "jsonl",
        lines(
            {"id": 5, "stem": "s", "choices": ["a", "b"], "gold": 1, "context": "c"},
            {"id": "z", "question": "t", "choices": ["a", "b"], "answer": "A"},
        ),
    )
    first, second = loaded.questions
    assert (first.id, first.stem, first.gold, first.context) == ("5", "s", 1, "c")
    assert (second.id, second.stem, second.gold, second.context) == ("z", "t", 0, "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contxt": "c"}, "unknown key 'contxt'; allowed are .*did you mean \"context\""),
        ({"gold": None}, "gold is None; an index from 0 is due"),
        ({"gold": True}, "gold is True; an index"),
        ({"gold": 2}, "gold index 2"),
        ({"answer": "A"}, "has gold and answer"),
        ({"choices": [True, False]}, r"choices is \[True, False\]; a list of texts is due"),
        ({"id": None}, "id is None"),
        ({"context": ["c"]}, "context is"),
    ],
)
def test_own_lines_errors(changes, message):
    record = {"id": "1", "stem": "s", "choices": ["a", "b"], "gold": 1, **changes}
    with pytest.raises(InputError, match=f"record 1: .*{message}"):
        read("jsonl", lines(record))
