from __future__ import annotations

import numpy as np
import pytest

from biomistral.evaluation import calibration, measures, metrics
from biomistral.evaluation.calibration import Fit
from biomistral.evaluation.columns import Cell
from biomistral.evaluation.measures import Calibrator, Draws


@pytest.fixture
def cell() -> Cell:
    generator = np.random.default_rng(1)
    logprobs = np.log(generator.dirichlet(np.full(5, 0.6), size=(2, 200))[..., :4])
    names = tuple(f"q{index}" for index in range(200))
    return Cell(names, (1, 2), logprobs, generator.integers(4, size=200))


@pytest.fixture
def draws() -> Draws:
    return Draws(metrics.resample_counts(200, 42, "plants"), metrics.seed_weights(2, 42, "plants"))


def measured(cell, draws, scoring="letter", calibrator=None):
    return measures.measure(cell, scoring, draws, calibrator)


def with_changes(cell, **changes):
    return Cell(**{**{name: getattr(cell, name) for name in Cell.__dataclass_fields__}, **changes})


def test_resampling_goes_over_questions_and_seeds():
    values = np.arange(6.0).reshape(1, 2, 3)
    draws = Draws(np.array([[3.0, 0, 0], [0, 1, 2]]), np.array([[1.0, 0.0], [0.5, 0.5]]))
    expected = [[0.0], [(1 + 2 + 2 + 4 + 5 + 5) / 6]]
    assert measures.resampled(values, draws) == pytest.approx(np.array(expected))


def test_seeds_that_differ_widen_the_interval(cell, draws):
    apart = cell.logprobs.copy()
    apart[1] = np.where(np.arange(4) == cell.gold[:, None], -0.1, -3.0)
    one_seed = Draws(draws.questions, np.full((metrics.NUM_RESAMPLES, 2), 0.5))
    both = with_changes(cell, logprobs=apart)
    widths = [
        np.subtract(*metrics.interval(measured(both, of).resampled["accuracy"]))
        for of in (draws, one_seed)
    ]
    assert abs(widths[0]) > 3 * abs(widths[1])


def test_the_other_accuracy_of_the_paper_counts_only_letters_that_are_on_top(cell, draws):
    tops = np.where(np.arange(200) < 150, cell.gold, -1) * np.ones((2, 1), dtype=int)
    tops[1, :50] = (cell.gold[:50] + 1) % 4
    found = measured(with_changes(cell, tops=tops), draws, "published").values
    assert found["accuracy_top"] == pytest.approx((150 + 100) / 400)
    assert found["accuracy"] == measured(cell, draws).values["accuracy"]
    assert "accuracy_top" not in measured(cell, draws, "published").values


def test_calibrating_by_the_identity_changes_nothing(cell, draws):
    same = Calibrator(Fit(), np.zeros(200, dtype=int), [Fit()])
    values = measured(cell, draws, calibrator=same).values
    for metric in ("ece", "brier", "negative_log_likelihood"):
        for method in calibration.METHODS:
            assert values[f"{metric}_{method}"] == pytest.approx(values[metric])


def test_each_question_is_calibrated_by_its_own_fold(cell):
    parts = [Fit(temperature=2.0, slope=0.5), Fit(temperature=4.0, intercept=-1.0)]
    fold = np.arange(200) % 2
    calibrator = Calibrator(Fit(), fold, parts)
    for number, part in enumerate(parts):
        mine = fold == number
        tempered = calibrator.at_temperature(cell.logprobs)[:, mine]
        assert np.allclose(tempered, cell.logprobs[:, mine] / part.temperature)
        scaled = calibrator.by_platt(cell.logprobs)[:, mine]
        alone = calibration.by_platt(cell.logprobs[:, mine], part.slope, part.intercept)
        assert np.allclose(scaled, alone)


def test_abstaining_of_a_model_that_knows_when_it_is_right(draws):
    gold = np.zeros(200, dtype=int)
    sure, unsure = np.log([0.9, 0.1]), np.log([0.45, 0.55])
    logprobs = np.where(np.arange(200)[:, None] < 100, sure, unsure)[None].repeat(2, axis=0)
    cell = Cell(tuple(map(str, range(200))), (1, 2), logprobs, gold)
    values = measured(cell, draws).values
    assert values["auroc"] == 1
    assert values["accuracy_at_50"] == 1
    assert values["accuracy_at_80"] == pytest.approx(100 / 160)
    errors = [max(n - 100, 0) / n for n in range(1, 201)]
    assert values["risk_coverage_area"] == pytest.approx(np.mean(errors))


def test_a_model_that_is_always_right_has_no_auroc(cell, draws):
    right = np.where(np.arange(4) == cell.gold[:, None], -0.1, -3.0)[None].repeat(2, axis=0)
    assert "auroc" not in measured(with_changes(cell, logprobs=right), draws).values


def test_a_model_that_names_one_letter_is_biased(cell, draws):
    always = np.broadcast_to(np.log([0.7, 0.1, 0.1, 0.1]), (2, 200, 4))
    values = measured(with_changes(cell, logprobs=always), draws).values
    right = np.bincount(cell.gold) / 200
    assert [values[f"right_{letter}"] for letter in "ABCD"] == pytest.approx(right)
    assert [values[f"chosen_{letter}"] for letter in "ABCD"] == [1, 0, 0, 0]
    chosen = np.array([1.0, 0, 0, 0])
    assert values["position_bias"] == pytest.approx(
        ((chosen - right) ** 2 / (chosen + right)).sum() / 2
    )


def test_positions_are_those_that_were_shown(draws):
    # The model names the first place; the right choice 0 is shown first with seed 1, last with 2.
    logprobs = np.log([[[0.7, 0.2, 0.1]] * 200, [[0.2, 0.1, 0.7]] * 200])
    places = np.array([[[0, 1, 2]] * 200, [[2, 1, 0]] * 200])
    gold = np.zeros(200, dtype=int)
    cell = Cell(tuple(map(str, range(200))), (1, 2), logprobs, gold, places)
    values = measured(cell, draws).values
    assert (values["chosen_A"], values["chosen_C"]) == (1, 0)
    assert (values["right_A"], values["right_C"]) == (0.5, 0.5)
    assert values["accuracy"] == 0.5
    assert measures.shown_at(cell, gold).tolist() == [[0] * 200, [2] * 200]


def test_text_scoring_has_no_positions(cell, draws):
    assert not [m for m in measured(cell, draws, "cloze").values if "position" in m or "_A" in m]


def test_macro_counts_tasks_and_micro_counts_questions(cell, draws):
    small = Cell(("a", "b"), (1, 2), cell.logprobs[:, :2], cell.logprobs[0, :2].argmax(axis=-1))
    few = Draws(metrics.resample_counts(2, 42, "few"), metrics.seed_weights(2, 42, "few"))
    tasks = [measured(cell, draws), measured(small, few)]
    found = measures.average(tasks)
    values = [task.values["accuracy"] for task in tasks]
    assert found.values["accuracy"] == pytest.approx(sum(values) / 2)
    assert found.values["accuracy_micro"] == pytest.approx((200 * values[0] + 2 * values[1]) / 202)
    assert found.resampled["accuracy_micro"].std() < found.resampled["accuracy"].std()


def test_a_metric_that_one_task_lacks_has_no_average_but_letters_count_as_never_chosen():
    def of(values):
        return measures.Measures({"accuracy": 0.5, **values}, {}, (), 10, 1)

    found = measures.average(
        [
            of({"auroc": 0.7, "position_bias": 0.1, "chosen_A": 1.0}),
            of({"position_bias": 0.3, "chosen_A": 0.5, "chosen_B": 0.5}),
        ]
    ).values
    assert "auroc" not in found
    assert found["position_bias"] == pytest.approx(0.2)
    assert (found["chosen_A"], found["chosen_B"]) == (0.75, 0.25)
