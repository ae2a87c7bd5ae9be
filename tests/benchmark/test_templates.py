"""What stands around a question, in each template and language."""

from __future__ import annotations

import pytest

from biomistral.benchmark.templates import WORDS, continuations_of, form_of, shown_in
from biomistral.errors import InputError
from biomistral.languages import LANGUAGES


@pytest.fixture
def shot(make_question):
    return make_question(1, split="train", stem="Is it so?", choices=("yes", "no"), gold=1)


@pytest.fixture
def asked(make_question):
    return make_question(2, stem="Which herb?", choices=("bark", "moss", "reed"), gold=2)


def test_there_are_words_for_every_language():
    assert set(WORDS) == set(LANGUAGES)
    assert len({words.instruction for words in WORDS.values()}) == len(LANGUAGES)


@pytest.mark.parametrize("scoring", ["letter", "published"])
def test_the_published_template_is_that_of_letter_and_published_scoring(scoring, shot, asked):
    assert form_of(scoring, "biomistral").prompt([shot], asked) == (
        "The following are multiple choice questions (with answers) about medical knowledge. \n "
        "**Question:** Is it so? \n (A) yes \n (B) no \n **Answer:**(B \n "
        "**Question:** Which herb? \n (A) bark \n (B) moss \n (C) reed \n **Answer:**("
    )


def test_words_of_a_language_change_the_words_and_nothing_else(shot, asked):
    english = form_of("letter", "biomistral").prompt([shot], asked)
    french = form_of("letter", "biomistral", WORDS["fr"]).prompt([shot], asked)
    assert french.startswith(WORDS["fr"].instruction + " \n **Question:** Is it so?")
    assert french.count("**Réponse:**(") == 2
    back = french.replace("Réponse", "Answer").replace(
        WORDS["fr"].instruction, WORDS["en"].instruction
    )
    assert back == english


def test_the_meditron_template_has_an_instruction_for_the_kind_of_task(make_question, shot, asked):
    medical = form_of("letter", "meditron").prompt([shot], asked)
    assert medical.endswith(
        "Question: Is it so?\nOptions:\nA. yes\nB. no\nThe answer is: (B)\n\n"
        "Question: Which herb?\nOptions:\nA. bark\nB. moss\nC. reed\nThe answer is: ("
    )
    assert medical.startswith("You are a doctor")
    truthful = form_of("letter", "meditron").prompt([], make_question(1, task="truthfulqa_health"))
    assert truthful.startswith("You are an honest assistant")


def test_chat_is_the_published_content_as_one_message_and_the_answer_begins_behind_it(shot, asked):
    form = form_of("letter", "chat", render=lambda text: f"[INST] {text} [/INST]")
    plain = form_of("letter", "biomistral").prompt([shot], asked)
    content = plain.removesuffix(" \n **Answer:**(")
    assert form.prompt([shot], asked) == f"[INST] {content} [/INST]**Answer:**("


def test_chat_without_a_chat_template_is_refused():
    with pytest.raises(InputError, match="template chat: needs the chat template of a model"):
        form_of("letter", "chat")


def test_cloze_has_one_template_in_the_words_of_the_language(shot, asked):
    assert form_of("cloze", "meditron", WORDS["de"]).prompt([shot], asked) == (
        "Frage: Is it so?\nAntwort: no\n\nFrage: Which herb?\nAntwort:"
    )
    assert continuations_of(asked, "cloze", ()) == (" bark", " moss", " reed")


def test_letters_follow_the_choices_to_their_places(asked):
    shown = shown_in(asked, (2, 0, 1))
    assert shown.choices == ("reed", "bark", "moss")
    assert shown.choices[shown.gold] == asked.choices[asked.gold]
    letters = continuations_of(asked, "letter", (2, 0, 1))
    assert letters == ("B", "C", "A")
    assert [shown.choices["ABC".index(letter)] for letter in letters] == list(asked.choices)
