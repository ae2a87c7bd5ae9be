from __future__ import annotations

from dataclasses import replace

import pytest
import sacrebleu

from biomistral.records import Translation, TranslationQuality, read_records, write_records
from biomistral.translation import measure_quality, translate_questions
from biomistral.translation.parts import Parts
from biomistral.translation.quality import QUALITY, measured, read_totals, totals_of
from biomistral.translation.step import TRANSLATIONS
from biomistral.translation.wanted import Candidate

ONE = Translation(
    question_id="q1",
    task="valley",
    language="fr",
    split="test",
    gold=0,
    state="translated",
    attempts=1,
    faults=(),
    source_stem="Give 5 mg of heparin",
    source_choices=("Bark", "Water"),
    source_context="",
    stem="Donner 5 mg d'héparine",
    choices=("Écorce", "Eau"),
    context="",
)


class Back:
    """Translates back what the interpreter of the tests translated; one question badly."""

    name = "back"

    def estimate(self, wanted):
        return f"{len(wanted)} questions"

    def translate(self, wanted, done=lambda _: None):
        for item in wanted:
            assert (item.source_language, item.language) == ("fr", "en")
            bad = "39" in item.source.stem
            stem = "Something else" if bad else "Which tea do the people of the valley drink?"
            walk = "A walk along the river." if item.source.context else ""
            yield Candidate(Parts(stem, ("Bark", "Water", "Rest"), walk), "")


def test_one_question_is_measured_by_lengths_and_terms() -> None:
    row = measured(ONE, "")
    assert (row.num_terms, row.num_kept, row.chrf) == (3, 3, None)
    source = "Give 5 mg of heparin\nBark\nWater"
    assert row.length_ratio == len("Donner 5 mg d'héparine\nÉcorce\nEau") / len(source)
    assert measured(replace(ONE, stem="Donner 5 g d'héparine"), "").num_kept == 2


def test_a_back_translation_is_scored_as_sacrebleu_scores_it() -> None:
    source = "Give 5 mg of heparin\nBark\nWater"
    row = measured(ONE, "Give 5 mg of the heparin\nBark\nWater")
    expected = sacrebleu.sentence_chrf("Give 5 mg of the heparin\nBark\nWater", [source]).score
    assert row.chrf == pytest.approx(expected)
    assert measured(ONE, source).chrf == pytest.approx(100)


def test_totals_come_from_all_questions(
    interpreter, settings_for, task, questions, tmp_path
) -> None:
    made = translate_questions(settings_for(interpreter()), {task: questions}, tmp_path / "fr")
    out = measure_quality(made, tmp_path / "quality", back=Back())
    rows = list(read_records(out / QUALITY, TranslationQuality))
    (total,) = read_totals(out)["rows"]
    assert (total["questions"], total["translated"], total["failed"]) == (3, 3, 0)
    assert total["terms_kept"] == 1.0
    assert 0 < total["chrf"] < 100
    assert 0 < total["bleu"] < 100
    assert min(rows, key=lambda row: row.chrf or 0).question_id == "q1"
    assert "version:" in read_totals(out)["signatures"]["chrf"]


def test_totals_are_of_the_questions_of_one_task_and_language() -> None:
    lengths = ("Donner 5 mg d'héparine", "Donnez-leur 5 mg d'héparine, donc", "Donner 5 g")
    every = [
        replace(ONE, question_id=f"q{n}", stem=stem, attempts=n)
        for n, stem in enumerate(lengths, 1)
    ]
    rows = [measured(each, f"Give {n} mg") for n, each in enumerate(every)]
    other = replace(ONE, language="de")
    first, second = totals_of([*every, other], [*rows, measured(other, "")])
    assert first["length_ratio"] == sorted(row.length_ratio for row in rows)[1]
    assert first["tried_again"] == 2
    assert (first["terms"], first["terms_kept"]) == (9, pytest.approx(7 / 9))
    assert first["chrf"] == pytest.approx(sum(row.chrf or 0 for row in rows) / 3)
    assert (second["language"], second["questions"], second["chrf"]) == ("de", 1, None)


def test_options_that_collide_are_counted(tmp_path) -> None:
    collided = replace(ONE, question_id="q2", choices=("Eau", "Eau"), state="failed")
    (tmp_path / "made").mkdir()
    write_records(tmp_path / "made" / TRANSLATIONS, [ONE, collided], Translation)
    (total,) = read_totals(measure_quality(tmp_path / "made", tmp_path / "quality"))["rows"]
    assert (total["questions"], total["failed"], total["collisions"]) == (2, 1, 1)


def test_without_a_way_back_lengths_and_terms_are_measured(
    interpreter, settings_for, task, questions, tmp_path
) -> None:
    made = translate_questions(settings_for(interpreter()), {task: questions}, tmp_path / "fr")
    (total,) = read_totals(measure_quality(made, tmp_path / "quality"))["rows"]
    assert (total["chrf"], total["bleu"]) == (None, None)
    assert total["length_ratio"] > 0
