from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.calibration import _sigmoid_calibration
from sklearn.linear_model import LogisticRegression

from biomistral.evaluation import calibration, metrics
from biomistral.evaluation.calibration import Fit


@pytest.fixture
def answers():
    """Log-probabilities (2 seeds, 400 questions, 4 choices) of a model that is too sure."""
    generator = np.random.default_rng(3)
    gold = generator.integers(4, size=400)
    values = generator.normal(size=(2, 400, 4)) + 1.2 * (np.arange(4) == gold[:, None])
    return np.log(metrics.renormalised(3 * values)), gold


def loss_at(logprobs, gold, temperature):
    return metrics.negative_log_likelihoods(logprobs / temperature, gold).mean()


@pytest.mark.parametrize("start", [0.1, 1.0, 15.0])
def test_the_temperature_is_that_of_a_plain_search(answers, start):
    logprobs, gold = answers
    found = minimize_scalar(
        lambda t: loss_at(logprobs[0], gold, t), bounds=(0.05, 20), options={"xatol": 1e-9}
    )
    assert calibration.fit_temperature(logprobs[0], gold, start) == pytest.approx(found.x, rel=1e-4)


def test_the_temperature_undoes_one_that_was_laid_on(answers):
    logprobs, gold = answers
    once = calibration.fit_temperature(logprobs[0], gold)
    twice = calibration.fit_temperature(logprobs[0] / 2.5, gold)
    assert twice == pytest.approx(once / 2.5, rel=1e-5)
    assert calibration.fit_temperature(logprobs[0] / once, gold) == pytest.approx(1, rel=1e-5)


def test_choices_that_are_not_there_do_not_change_the_fit(answers):
    logprobs, gold = answers
    padded = np.concatenate([logprobs[0], np.full((400, 2), -np.inf)], axis=-1)
    one, other = calibration.fit(logprobs[0], gold), calibration.fit(padded, gold)
    assert one.temperature == pytest.approx(other.temperature, rel=1e-5)
    assert (one.slope, one.intercept) == pytest.approx((other.slope, other.intercept), rel=1e-5)


@pytest.mark.parametrize("right", [True, False])
def test_temperatures_stay_within_bounds_where_likelihood_has_no_end(right):
    logprobs = np.log([[0.7, 0.3]] * 9)
    found = calibration.fit_temperature(logprobs, np.full(9, 0 if right else 1))
    bound = calibration.LOWEST_TEMPERATURE if right else calibration.HIGHEST_TEMPERATURE
    assert found == pytest.approx(bound, rel=1e-3)


def test_platt_is_that_of_scikit_learn(answers):
    logprobs, gold = answers
    logits = calibration.confidence_logits(logprobs[0])
    right = logprobs[0].argmax(axis=-1) == gold
    a, b = _sigmoid_calibration(logits, right.astype(float))
    assert calibration.fit_platt(logits, right) == pytest.approx((-a, -b), abs=1e-4)


def test_platt_is_near_a_logistic_regression(answers):
    logprobs, gold = answers
    logits = calibration.confidence_logits(logprobs[0])
    right = logprobs[0].argmax(axis=-1) == gold
    plain = LogisticRegression(C=np.inf).fit(logits[:, None], right)
    found = calibration.fit_platt(logits, right)
    assert found == pytest.approx((plain.coef_[0, 0], plain.intercept_[0]), abs=0.05)


def test_platt_stays_finite_where_all_are_right():
    slope, intercept = calibration.fit_platt(np.array([1.0, 2.0, 3.0]), np.ones(3, dtype=bool))
    assert math.isfinite(slope)
    assert math.isfinite(intercept)


def test_without_answers_nothing_is_changed():
    assert calibration.fit(np.zeros((0, 4)), np.zeros(0, dtype=int)) == Fit()


def test_calibrating_lowers_likelihood_loss_and_calibration_error(answers):
    logprobs, gold = answers
    found = calibration.fit(logprobs[0], gold)
    for after in (
        calibration.at_temperature(logprobs[1], found.temperature),
        calibration.by_platt(logprobs[1], found.slope, found.intercept),
    ):
        before = metrics.negative_log_likelihoods(logprobs[1], gold).mean()
        assert metrics.negative_log_likelihoods(after, gold).mean() < before
        assert metrics.standard_ece(after, gold) < metrics.standard_ece(logprobs[1], gold)


def test_identity_changes_no_probability(answers):
    logprobs, _ = answers
    expected = metrics.renormalised(logprobs)
    plain = Fit()
    assert np.allclose(
        np.exp(calibration.by_platt(logprobs, plain.slope, plain.intercept)), expected
    )
    assert np.allclose(metrics.renormalised(calibration.at_temperature(logprobs, 1.0)), expected)


def test_platt_gives_probabilities_and_keeps_the_order_of_the_others(answers):
    logprobs, _ = answers
    logprobs = logprobs.copy()
    logprobs[:, 3, 3] = -np.inf
    after = np.exp(calibration.by_platt(logprobs, 0.3, -0.4))
    assert after.sum(axis=-1) == pytest.approx(np.ones((2, 400)))
    confidence = metrics.confidences(logprobs)
    expected = 1 / (1 + np.exp(-(0.3 * np.log(confidence / (1 - confidence)) - 0.4)))
    top = logprobs.argmax(axis=-1)[..., None]
    assert np.take_along_axis(after, top, axis=-1)[..., 0] == pytest.approx(expected)
    assert after[0, 3, 3] == 0


def test_one_number_for_each_question_is_that_number_for_all(answers):
    logprobs, _ = answers
    many = np.full(400, 2.0)
    assert np.allclose(
        calibration.at_temperature(logprobs, many), calibration.at_temperature(logprobs, 2.0)
    )
    assert np.allclose(
        calibration.by_platt(logprobs, many, many), calibration.by_platt(logprobs, 2.0, 2.0)
    )


def test_folds_depend_on_the_id_alone_and_are_about_equal():
    names = [f"question-{index}" for index in range(2000)]
    fold = calibration.folds(names)
    assert (calibration.folds(names[::-1]) == fold[::-1]).all()
    assert np.bincount(fold, minlength=5) == pytest.approx(np.full(5, 400), rel=0.15)


def test_each_fold_is_fitted_without_itself(answers):
    logprobs, gold = answers
    fold = np.arange(400) % 5
    whole, parts = calibration.cross_fits(logprobs[0], gold, fold)
    assert whole == calibration.fit(logprobs[0], gold)
    alone = calibration.fit(logprobs[0][fold != 2], gold[fold != 2])
    assert parts[2].temperature == pytest.approx(alone.temperature, rel=1e-5)
    assert parts[2].slope == pytest.approx(alone.slope, rel=1e-3)
    assert parts[2] != parts[3]


def test_answers_in_one_fold_only_are_left_as_they_are(answers):
    logprobs, gold = answers
    _, parts = calibration.cross_fits(logprobs[0], gold, np.zeros(400, dtype=int))
    assert parts[0] == Fit()
