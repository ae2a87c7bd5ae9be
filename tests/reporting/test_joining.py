from __future__ import annotations

from dataclasses import fields

import pytest

from biomistral.records import Comparison, Question, Task
from biomistral.reporting.document import Material, compose
from biomistral.reporting.joining import contradiction, join, runs_table, shown_names
from biomistral.reporting.results import RANDOM_CHOICE, Setting, average_of, index_results
from biomistral.reporting.run_tables import Artefact, makings_of, parents_of
from biomistral.reporting.samples import Answer, Sample

LETTER = Setting("en", "letter", 3)
TASKS = [Task(name, name.title(), "medical", "invented", "MIT") for name in ("anatomy", "heart")]


@pytest.fixture
def material(make_score):
    """Return a function: accuracies by model and task -> the material of a run."""

    def make(found: dict[str, dict[str, float]], **others: object) -> Material:
        scores = [
            make_score(model, task, value)
            for model, values in found.items()
            for task, value in {**values, "average": sum(values.values()) / len(values)}.items()
        ]
        tasks = [task for task in TASKS if any(task.name in values for values in found.values())]
        return Material(results=index_results(scores, tasks, list(found)), **others)  # type: ignore[arg-type]

    return make


def made(name: str, role: str = "model", **settings: object) -> Artefact:
    return Artefact(role, name, {"fingerprint": name, "settings": settings}, 1)


def test_a_name_that_stands_for_different_things_gets_the_run() -> None:
    names = shown_names({
        "one": {"base": {"model": "a", "predictions": "b"}, "tuned": {"model": "c"}, "x": {}},
        "two": {"base": {"model": "a"}, "tuned": {"model": "d"}, "y": {"model": "e"}},
    })  # fmt: skip
    assert names == {
        "one": {"base": "base", "tuned": "tuned (one)", "x": "x"},
        "two": {"base": "base", "tuned": "tuned (two)", "y": "y"},
    }


def test_one_run_is_left_as_it_is(material) -> None:
    only = material({"base": {"heart": 0.5}})
    assert join({"": only}, {"": {"base": "base"}}) is only


def test_every_part_of_the_material_is_joined(material) -> None:
    given = {
        "results",
        "translations",
        "translation_pages",
        "runs",
    }  # others' tests, or one run's only
    lists = {
        "models": [made("a")],
        "corpora": [made("c", "corpus")],
        "others": [made("o", "scores")],
    }
    names = {field.name for field in fields(Material)} - given - set(lists)
    maps = ("logs", "overlaps", "distances", "throughputs")
    assert names == {*maps, "reliability", "coverage", "comparisons", "gaps", "costs", "samples"}
    one = material({}, **lists, **{name: {"a": []} for name in maps}, costs=[{"model": "a"}])
    found = join({"one": one, "two": material({})}, {"one": {"a": "a (one)"}, "two": {}})
    assert [found.models[0].name, found.corpora[0].name] == ["a (one)", "c (one)"]
    assert [list(getattr(found, name)) for name in maps] == [["a (one)"]] * len(maps)
    assert found.costs == [{"model": "a (one)"}]


def test_models_of_two_runs_stand_side_by_side_in_order(material) -> None:
    one = material(
        {"base": {"anatomy": 0.5, "heart": 0.6}, "tuned": {"anatomy": 0.7, "heart": 0.8}}
    )
    two = material(
        {"base": {"anatomy": 0.5, "heart": 0.6}, "tuned": {"anatomy": 0.1, "heart": 0.2}}
    )
    names = {
        "one": {"base": "base", "tuned": "tuned (one)"},
        "two": {"base": "base", "tuned": "tuned (two)"},
    }
    results = join({"one": one, "two": two}, names).results
    assert results.models == ("base", "tuned (one)", "tuned (two)")
    assert len(results.measured) == 3 * 3  # what both have is there once
    score = results.find(LETTER, "tuned (two)", TASKS[1], "accuracy")
    assert score is not None
    assert score.value == 0.2


def test_a_task_that_a_run_lacks_is_absent_and_takes_its_average_away(material) -> None:
    one = material(
        {"base": {"anatomy": 0.5, "heart": 0.7}, RANDOM_CHOICE: {"anatomy": 0.2, "heart": 0.4}}
    )
    two = material({"late": {"heart": 0.6}, RANDOM_CHOICE: {"heart": 0.4}})
    results = join({"two": two, "one": one}, {"one": {}, "two": {}}).results
    assert results.find(LETTER, "late", TASKS[0], "accuracy") is None
    assert results.find(LETTER, "late", average_of("medical"), "accuracy") is None
    # The line of chance is that of all tasks, whichever run came first.
    chance = results.find(LETTER, RANDOM_CHOICE, average_of("medical"), "accuracy")
    assert chance is not None
    assert chance.value == pytest.approx(0.3)


def test_what_was_made_of_what_follows_the_names(material) -> None:
    one = material({}, models=[made("base"), made("tuned", model="base")])
    two = material(
        {},
        models=[
            made("base"),
            made("tuned", base="base", models=[{"model": "other"}]),
            made("other"),
        ],
    )
    names = {
        "one": {"base": "base (one)", "tuned": "tuned (one)"},
        "two": {"base": "base (two)", "tuned": "tuned (two)", "other": "other"},
    }
    models = join({"one": one, "two": two}, names).models
    assert parents_of(models) == {"tuned (one)": "base (one)", "tuned (two)": "base (two)"}
    assert makings_of(models)["tuned (two)"] == ("base (two)", "other")


def test_tests_between_models_follow_the_names_and_are_shown_once(material) -> None:
    def test(holm: float) -> Comparison:
        return Comparison(
            "base", "tuned", "heart", "medical", "en", "letter", 3,
            0.1, 0.0, 0.2, 0.01, holm, 3, 4, None, None, None, None, 100, 3,
        )  # fmt: skip

    parts = {run: material({}, comparisons=[test(p)]) for run, p in (("one", 0.1), ("two", 0.2))}
    names = {run: {"base": "base", "tuned": "tuned"} for run in parts}
    assert [c.p_bootstrap_holm for c in join(parts, names).comparisons] == [0.1]
    names["two"] = {"base": "base", "tuned": "tuned (two)"}
    assert [c.second for c in join(parts, names).comparisons] == ["tuned", "tuned (two)"]


def test_a_sample_has_the_answers_of_both_runs_each_once(material) -> None:
    question = Question("q1", "heart", "en", "test", "Which?", ("a", "b"), 0)
    parts = {
        run: material({}, samples=[Sample(question, "Heart", "English", "ltr", tuple(
            Answer(model, (0.5, 0.5), 0) for model in models))])
        for run, models in (("one", ["base", "a"]), ("two", ["base", "b"]))
    }  # fmt: skip
    names = {"one": {"base": "base", "a": "a"}, "two": {"base": "base", "b": "b"}}
    (sample,) = join(parts, names).samples
    assert [answer.model for answer in sample.answers] == ["base", "a", "b"]


def test_the_table_of_runs_shows_a_dash_for_what_is_not_there_and_how_runs_differ(material) -> None:
    asked = {"template": "biomistral", "seeds": [1, 2], "precision": "float32"}
    one = material({"base": {"heart": 0.5}}, others=[made("base", "predictions", **asked)])
    chat = {**asked, "template": "chat"}
    two = material({"base": {"heart": 0.5}}, others=[made("base", "predictions", **chat)])
    table = runs_table({"one": one, "two": two, "cut": material({})})
    assert [column.title for column in table.columns] == [
        *("Models", "Tasks", "Languages", "Questions", "Template"),
    ]
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["1", "1", "1", "100", "biomistral"],
        ["1", "1", "1", "100", "chat"],
        ["–", "–", "–", "–", "–"],
    ]


def test_a_report_of_nothing_measured_shows_no_zero(material) -> None:
    document = compose("cut", material({}, models=[made("base")]))
    assert document.facts == {}
    assert [section.id for section in document.sections] == ["provenance"]


def test_questions_that_contradict_each_other_are_told_apart() -> None:
    assert contradiction({"q1": ("a", 0)}, {"q1": ("a", 0)}) == ""
    assert contradiction({"q1": ("a", 0)}, {"q1": ("a", 1)}) == "question 'q1' differs"
    assert contradiction({"q1": 1, "q2": 2}, {"q1": 1}) == "question 'q2' is in one of them only"
