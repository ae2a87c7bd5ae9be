"""Examples as tokens: what is learned is what evaluation scores, and rows keep examples apart."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from biomistral.errors import ModelError
from biomistral.models.continuations import TextEncoder, encode_requests
from biomistral.records import Request
from biomistral.training.answer_head import Answers, states_at_answers
from biomistral.training.lessons import (
    Lesson,
    collate_lessons,
    lessons_of,
    pack,
    preferences_of,
)


def asked(number: int = 0, scoring: str = "letter", **changes: object) -> Request:
    cloze = scoring == "cloze"
    values = {
        "question_id": str(number),
        "task": "fevers",
        "language": "en",
        "shots": 0,
        "seed": 0,
        "scoring": scoring,
        "prompt": f"The fever {number} (A) bark (B) cold water (C) rest Answer:("
        if not cloze
        else f"The fever {number}\nAnswer:",
        "continuations": (" bark", " cold water", " rest") if cloze else ("A", "B", "C"),
        "gold": 1,
    }
    return Request(**{**values, **changes})


@pytest.mark.parametrize("scoring", ["letter", "cloze"])
def test_the_answer_is_learned_in_the_tokens_that_are_scored(tokenizer, scoring):
    request = asked(scoring=scoring)
    [lesson] = lessons_of(tokenizer, [request])
    [encoded] = encode_requests(TextEncoder(tokenizer), [request])
    answer = encoded.tails[1]
    assert list(lesson.ids) == [*encoded.trunk, *answer, tokenizer.eos_token_id]
    learned = [i for i, is_answer in zip(lesson.ids, lesson.is_answer, strict=True) if is_answer]
    assert learned == [*answer, tokenizer.eos_token_id]
    assert not lesson.is_answer[0]


def test_letters_are_those_of_all_choices_and_stand_where_one_is_due(tokenizer):
    [lesson] = lessons_of(tokenizer, [asked()])
    assert len(set(lesson.letters)) == 3
    assert lesson.ids[lesson.letter_place] == lesson.letters[1]
    assert tokenizer.decode([lesson.letters[1]]).strip() == "B"
    [cloze] = lessons_of(tokenizer, [asked(scoring="cloze")])
    assert cloze.letters == ()


def test_a_tokenizer_without_end_of_text_is_refused(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    bare = AutoTokenizer.from_pretrained(tmp_path)
    bare.eos_token = None
    with pytest.raises(ModelError, match="no end-of-text token"):
        lessons_of(bare, [asked()])


def test_pairs_hold_the_right_answer_against_drawn_others(tokenizer):
    requests = [asked(number) for number in range(30)]
    pairs = preferences_of(tokenizer, requests, rejections=1, seed=3)
    assert len(pairs) == 30
    assert all(tokenizer.decode(pair.chosen[:1]).strip() == "B" for pair in pairs)
    rejected = {tokenizer.decode(pair.rejected[:1]).strip() for pair in pairs}
    assert rejected == {"A", "C"}
    assert all(pair.chosen[-1] == pair.rejected[-1] == tokenizer.eos_token_id for pair in pairs)
    assert preferences_of(tokenizer, requests, rejections=1, seed=3) == pairs
    assert preferences_of(tokenizer, requests, rejections=1, seed=4) != pairs


def test_a_question_draws_the_same_whatever_others_there_are(tokenizer):
    alone = preferences_of(tokenizer, [asked(7)], rejections=1, seed=3)
    among = preferences_of(tokenizer, [asked(n) for n in range(9)], rejections=1, seed=3)
    assert among[7] == alone[0]


def test_more_rejections_than_wrong_choices_are_all_of_them(tokenizer):
    pairs = preferences_of(tokenizer, [asked()], rejections=5, seed=0)
    assert len({pair.rejected for pair in pairs}) == len(pairs) == 2


def lesson_of(*ids: int, answer: int = 1) -> Lesson:
    return Lesson(ids, (False,) * (len(ids) - answer) + (True,) * answer)


def test_packing_cuts_nothing_and_loses_nothing():
    lessons = [lesson_of(*range(1, size + 1)) for size in (5, 3, 9, 2, 2, 7, 10, 1, 1)]
    rows = pack(lessons, 10)
    assert sorted(len(lesson.ids) for row in rows for lesson in row) == [1, 1, 2, 2, 3, 5, 7, 9, 10]
    assert all(sum(len(lesson.ids) for lesson in row) <= 10 for row in rows)
    assert len(rows) == 4  # 40 tokens: no row has room left


def test_a_batch_is_filled_up_to_its_longest_row():
    rows = [[lesson_of(4, 5, 6), lesson_of(7, 8)], [lesson_of(1, 2, 3, answer=2)]]
    batch = collate_lessons(rows)
    assert batch["input_ids"].tolist() == [[4, 5, 6, 7, 8], [1, 2, 3, 0, 0]]
    ignored = -100
    assert batch["labels"].tolist() == [
        [ignored, ignored, 6, ignored, 8],
        [ignored, 2, 3, ignored, ignored],
    ]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 0, 1]]


def test_letters_stand_in_the_order_of_what_is_learned(tokenizer):
    with_letters = lessons_of(tokenizer, [asked()])[0]
    without = lesson_of(1, 2, 3, answer=2)
    batch = collate_lessons([[without, with_letters], [with_letters]])
    nothing = [-1, -1, -1]
    letters = list(with_letters.letters)
    assert batch["letters"].tolist() == [nothing, nothing, letters, nothing, letters, nothing]
    targets = batch["labels"][:, 1:]
    assert len(batch["letters"]) == int((targets != -100).sum())


def test_examples_of_one_row_do_not_see_each_other(tiny_model, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    lessons = lessons_of(tokenizer, [asked(n, gold=n % 3) for n in range(5)])

    def states_of(*rows: list[Lesson]) -> torch.Tensor:
        batch = collate_lessons(rows)
        read = {name: batch[name] for name in ("input_ids", "position_ids", "documents")}
        return states_at_answers(model, {**read, "use_cache": False}, Answers(batch["labels"]).due)

    with torch.no_grad():
        together = states_of(lessons[:3], lessons[3:])
        alone = torch.cat([states_of([one]) for one in lessons])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
