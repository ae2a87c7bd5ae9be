from __future__ import annotations

import dataclasses
import statistics

import numpy as np
import pytest

from biomistral.evaluation import metrics, score_rows
from biomistral.evaluation.columns import Cell, CellKey

GROUPS = {"plants": "medical", "rivers": "medical", "songs": "general"}


def cell_of(right: list[list[int]], gold: list[int] | None = None, num_choices: int = 4) -> Cell:
    """A cell whose answers are right where ``right`` (seeds by questions) has a 1."""
    table = np.array(right)
    answers = np.array(gold or [index % num_choices for index in range(table.shape[1])])
    chosen = np.where(table, answers, (answers + 1) % num_choices)
    logprobs = np.where(np.arange(num_choices) == chosen[..., None], np.log(0.73), np.log(0.09))
    names = tuple(f"q{index}" for index in range(table.shape[1]))
    return Cell(names, tuple(range(1, len(right) + 1)), logprobs, answers)


def key_of(task: str, **changes: str) -> CellKey:
    return CellKey(task, "en", "letter", 3)._replace(**changes)


def value_of(rows, metric: str, **wanted: str):
    [row] = [
        row
        for row in rows
        if row.metric == metric and all(getattr(row, key) == v for key, v in wanted.items())
    ]
    return row


@pytest.fixture
def cells():
    return {
        "one": {
            key_of("plants"): cell_of([[1, 1, 0, 0], [1, 1, 1, 0]]),
            key_of("rivers"): cell_of([[1] * 10, [1] * 9 + [0]]),
            key_of("songs"): cell_of([[0, 1], [0, 1]]),
        },
        "pair": {
            key_of("plants"): cell_of([[1, 1, 1, 1], [1, 1, 1, 1]]),
            key_of("rivers"): cell_of([[0] * 10, [0] * 10]),
            key_of("songs"): cell_of([[0, 0], [0, 0]]),
        },
    }


@pytest.fixture
def rows(cells):
    return score_rows.scores(cells, GROUPS, seed=42, ensembles={"pair"})


def test_accuracy_and_its_deviation_by_hand(rows):
    plants = value_of(rows, "accuracy", model="one", task="plants")
    assert plants.value == pytest.approx((2 / 4 + 3 / 4) / 2)
    assert (plants.num_questions, plants.num_seeds, plants.shots) == (4, 2, 3)
    deviation = value_of(rows, "accuracy_deviation", model="one", task="plants")
    assert deviation.value == pytest.approx(1 / 8)
    assert deviation.low is deviation.high is None


def test_an_average_counts_each_task_of_its_group_once(rows):
    average = value_of(rows, "accuracy", model="one", task="average", group="medical")
    assert average.value == pytest.approx((5 / 8 + 19 / 20) / 2)
    assert average.num_questions == 14
    other = value_of(rows, "accuracy", model="one", task="average", group="general")
    assert other.value == pytest.approx(1 / 2)


def test_the_deviation_of_an_average_is_that_of_the_averages(rows):
    found = value_of(rows, "accuracy_deviation", model="one", task="average", group="medical")
    averages = [(2 / 4 + 1.0) / 2, (3 / 4 + 9 / 10) / 2]
    assert found.value == pytest.approx(statistics.pstdev(averages))


def test_an_average_is_resampled_task_by_task(cells, rows):
    average = value_of(rows, "accuracy", model="one", task="average", group="medical")
    total = np.zeros(metrics.NUM_RESAMPLES)
    for task in ("plants", "rivers"):
        cell = cells["one"][key_of(task)]
        right = metrics.correct(cell.logprobs, cell.gold)
        counts = metrics.resample_counts(len(cell.gold), 42, task)
        weights = metrics.seed_weights(2, 42, task)
        total += np.einsum("rq,rs,sq->r", counts, weights, right) / len(cell.gold)
    assert (average.low, average.high) == pytest.approx(np.quantile(total / 2, [0.025, 0.975]))


def test_intervals_hold_their_value(rows):
    with_interval = [row for row in rows if row.low is not None]
    names = {"accuracy", "accuracy_micro", "brier", "negative_log_likelihood"}
    assert {row.metric for row in with_interval} == names
    for row in with_interval:
        assert row.low - 1e-12 <= row.value <= row.high + 1e-12


def test_a_model_scores_the_same_in_other_company(cells, rows):
    alone = score_rows.scores(
        {"one": {key_of("rivers"): cells["one"][key_of("rivers")]}}, GROUPS, seed=42, ensembles=()
    )
    wanted = {"model": "one", "task": "rivers"}
    for metric in ("accuracy", "ece", "brier", "negative_log_likelihood", "ece_published"):
        one, other = value_of(alone, metric, **wanted), value_of(rows, metric, **wanted)
        assert one.value == pytest.approx(other.value, abs=1e-12)
        assert one.low == pytest.approx(other.low, abs=1e-12)


def test_kinds_are_told_apart(rows):
    kinds = {row.model: row.model_kind for row in rows}
    assert kinds == {
        "one": "model",
        "pair": "ensemble",
        "random choice": "baseline",
        "majority choice": "baseline",
    }


def test_guessing_is_right_once_in_the_number_of_choices():
    logprobs = np.log(np.full((1, 2, 4), 0.1))
    logprobs[0, 1, 2:] = -np.inf
    cell = Cell(("a", "b"), (1,), logprobs, np.array([0, 0]))
    rows = score_rows.scores({"one": {key_of("plants"): cell}}, GROUPS, seed=1, ensembles=())
    guess = value_of(rows, "accuracy", model="random choice", task="plants")
    assert guess.value == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert guess.low is None


def test_majority_names_the_commonest_right_answer():
    cell = cell_of([[1, 1, 1, 1, 1]], gold=[2, 0, 2, 1, 0])  # 0 and 2 tie: the first counts
    rows = score_rows.scores({"one": {key_of("plants"): cell}}, GROUPS, seed=1, ensembles=())
    majority = value_of(rows, "accuracy", model="majority choice", task="plants")
    assert majority.value == pytest.approx(2 / 5)
    assert majority.low < 2 / 5 < majority.high


def test_calibration_is_the_mean_over_the_seeds(cells, rows):
    cell = cells["one"][key_of("plants")]
    for metric, function in (
        ("ece", metrics.standard_ece),
        ("ece_published", lambda *both: metrics.published_ece(*both, letters=True)),
    ):
        expected = statistics.fmean(function(of_seed, cell.gold) for of_seed in cell.logprobs)
        found = value_of(rows, metric, model="one", task="plants").value
        assert found == pytest.approx(expected)


def test_languages_and_scorings_are_never_mixed(cells):
    other = {key_of("plants", language="fr"): cell_of([[0, 0]])}
    cloze = {key_of("plants", scoring="cloze"): cell_of([[0, 0]])}
    merged = {"one": {**cells["one"], **other, **cloze}}
    rows = score_rows.scores(merged, GROUPS, seed=42, ensembles=())
    for wanted in ({"language": "fr"}, {"scoring": "cloze"}):
        average = value_of(rows, "accuracy", model="one", task="average", group="medical", **wanted)
        assert average.value == 0


def test_bars_hold_every_answer_once(cells):
    bars = score_rows.reliability_bins(cells, GROUPS)
    by_task = {}
    for bar in bars:
        by_task.setdefault((bar.model, bar.task, bar.group), []).append(bar)
    assert sum(bar.num_answers for bar in by_task["one", "plants", "medical"]) == 8
    pooled = by_task["one", "average", "medical"]
    assert sum(bar.num_answers for bar in pooled) == 8 + 20
    [only] = pooled
    assert only.mean_confidence == pytest.approx(0.73)
    assert only.accuracy == pytest.approx((5 + 19) / 28)


# --- calibration and abstaining -------------------------------------------------------------------


@pytest.fixture
def many():
    """One model, two tasks of 300 and 200 questions, too sure of itself."""
    generator = np.random.default_rng(0)
    cells = {}
    for task, count in (("plants", 300), ("rivers", 200)):
        gold = generator.integers(4, size=count)
        values = generator.normal(size=(2, count, 4)) + 0.8 * (np.arange(4) == gold[:, None])
        logprobs = np.log(metrics.renormalised(4 * values))
        names = tuple(f"{task}-{index}" for index in range(count))
        cells[key_of(task)] = Cell(names, (1, 2), logprobs, gold)
    return cells


def test_a_group_is_calibrated_as_one_and_gets_surer_numbers(many):
    calibrators, [saved] = score_rows.fit_calibrators(many, GROUPS)
    assert (saved.group, saved.language, saved.fitted_on) == ("medical", "en", "test")
    assert saved.num_answers == 1000
    assert saved.temperature > 2
    assert len({calibrator.whole for calibrator in calibrators.values()}) == 1
    rows = score_rows.scores(
        {"one": many}, GROUPS, seed=1, ensembles=(), calibrators={"one": calibrators}
    )
    wanted = {"model": "one", "task": "average"}
    before = value_of(rows, "ece", **wanted).value
    for method in ("temperature", "platt"):
        assert value_of(rows, f"ece_{method}", **wanted).value < before / 3
    assert value_of(rows, "temperature", **wanted).value == pytest.approx(saved.temperature)


def test_validation_questions_are_used_where_they_are_given(many):
    validation = {key_of("plants"): many[key_of("plants")]}
    test = {key_of("plants"): many[key_of("rivers")]}
    calibrators, [saved] = score_rows.fit_calibrators(test, GROUPS, validation)
    assert (saved.fitted_on, saved.num_answers) == ("validation", 600)
    assert set(calibrators[key_of("plants")].parts) == {calibrators[key_of("plants")].whole}
    others = {key_of("songs"): many[key_of("plants")]}
    _, [elsewhere] = score_rows.fit_calibrators(test, GROUPS, others)
    assert elsewhere.fitted_on == "test"  # validation questions of another group are no help
    few = dataclasses.replace(
        many[key_of("plants")],
        question_ids=many[key_of("plants")].question_ids[:99],
        logprobs=many[key_of("plants")].logprobs[:, :99],
        gold=many[key_of("plants")].gold[:99],
    )
    _, [crossed] = score_rows.fit_calibrators(test, GROUPS, {key_of("plants"): few})
    assert crossed.fitted_on == "test"


def test_bars_after_calibrating_hold_every_answer_and_lie_nearer_the_line(many):
    calibrators, _ = score_rows.fit_calibrators(many, GROUPS)
    bars = score_rows.reliability_bins({"one": many}, GROUPS, {"one": calibrators})
    errors = {}
    for method in ("", "temperature", "platt"):
        own = [bar for bar in bars if bar.calibration == method and bar.task == "average"]
        assert sum(bar.num_answers for bar in own) == 1000
        errors[method] = metrics.calibration_error(own, 1000)
    assert errors["temperature"] < errors[""] / 3
    assert errors["platt"] < errors[""] / 3


def test_coverage_goes_from_few_to_all(many):
    points = score_rows.coverage_points({"one": many}, GROUPS)
    assert [point.coverage for point in points] == pytest.approx(np.arange(1, 21) / 20)
    right = np.concatenate([metrics.correct(c.logprobs, c.gold).ravel() for c in many.values()])
    assert points[-1].accuracy == pytest.approx(right.mean())
    assert points[0].accuracy > points[-1].accuracy
    assert {(p.task, p.group, p.shots) for p in points} == {("average", "medical", 3)}


def test_tasks_with_fewer_choices_are_pooled_with_others(many):
    two = cell_of([[1, 0, 1, 1]], num_choices=2)
    calibrators, [saved] = score_rows.fit_calibrators({**many, key_of("plants"): two}, GROUPS)
    assert saved.num_answers == 4 + 400
    assert calibrators[key_of("plants")].fold.shape == (4,)


def test_a_model_that_lacks_a_task_is_measured_on_what_it_has(cells):
    del cells["pair"][key_of("rivers")]
    rows = score_rows.scores(cells, GROUPS, seed=42, ensembles=())
    assert not [r for r in rows if r.model == "pair" and r.task == "rivers"]
    assert value_of(rows, "accuracy", model="random choice", task="rivers").value == 0.25
