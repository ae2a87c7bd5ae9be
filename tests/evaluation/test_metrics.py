from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score

from biomistral.evaluation import metrics
from biomistral.records import UNSAID


@pytest.fixture
def answers():
    """Log-probabilities (2 seeds, 300 questions, 4 choices) that leave room for other tokens."""
    generator = np.random.default_rng(0)
    logprobs = np.log(generator.dirichlet(np.full(6, 0.7), size=(2, 300))[..., :4])
    return logprobs, generator.integers(4, size=300)


def test_accuracy_is_that_of_scikit_learn(answers):
    logprobs, gold = answers
    expected = [accuracy_score(gold, of_seed.argmax(axis=1)) for of_seed in logprobs]
    assert metrics.accuracies(logprobs, gold) == pytest.approx(expected)


def test_words_that_name_no_choice_are_wrong_whatever_is_right():
    logprobs = np.array([[[UNSAID] * 3, [UNSAID, 0.0, UNSAID], [UNSAID] * 3]])
    assert metrics.correct(logprobs, np.array([0, 1, 2])).tolist() == [[0, 1, 0]]


def test_brier_score_is_that_of_scikit_learn(answers):
    logprobs, gold = answers
    probabilities = metrics.renormalised(logprobs[0])
    expected = brier_score_loss(gold, probabilities, labels=range(4), scale_by_half=False)
    assert metrics.brier_scores(probabilities, gold).mean() == pytest.approx(expected)


def test_negative_log_likelihood_is_that_of_scikit_learn(answers):
    logprobs, gold = answers
    expected = log_loss(gold, metrics.renormalised(logprobs[0]), labels=range(4))
    assert metrics.negative_log_likelihoods(logprobs[0], gold).mean() == pytest.approx(expected)


def test_choices_that_are_not_there_change_nothing(answers):
    logprobs, gold = answers
    padded = np.concatenate([logprobs, np.full((2, 300, 2), -np.inf)], axis=-1)
    for measure in (metrics.correct, metrics.negative_log_likelihoods):
        assert np.allclose(measure(padded, gold), measure(logprobs, gold))
    brier = metrics.brier_scores(metrics.renormalised(padded), gold)
    assert np.allclose(brier, metrics.brier_scores(metrics.renormalised(logprobs), gold))
    assert metrics.standard_ece(padded[0], gold) == pytest.approx(
        metrics.standard_ece(logprobs[0], gold)
    )


def test_of_equal_choices_the_first_is_the_answer():
    logprobs = np.array([[[-1.0, -1.0], [-2.0, -2.0]]])
    assert metrics.correct(logprobs, np.array([0, 1])).tolist() == [[1.0, 0.0]]


def test_probabilities_too_small_for_a_float_still_compare():
    assert metrics.renormalised(np.array([-2000.0, -2000.0 + math.log(3)])) == pytest.approx(
        [0.25, 0.75]
    )


def test_the_deviation_is_of_the_population():
    assert metrics.deviation([0.5, 0.6, 0.7]) == pytest.approx(math.sqrt(0.02 / 3))


# --- calibration ----------------------------------------------------------------------------------


def test_bins_are_open_below_and_closed_above():
    confidence = np.array([0.0, 0.2, 0.2000001, 0.6, 1.0])
    bins = metrics.reliability(confidence, np.ones(5), 5)
    assert [(b.low, b.high, b.num_answers) for b in bins] == [
        (0.0, 0.2, 1),  # 0 itself is in no bin, 0.2 is in the lower one
        (0.2, 0.4, 1),
        (0.4, 0.6, 1),
        (0.8, 1.0, 1),
    ]


def test_calibration_error_by_hand():
    confidence = np.array([0.15, 0.15, 0.95, 0.95])
    right = np.array([0.0, 0.0, 1.0, 0.0])
    # bins (0, 0.2]: |0 - 0.15| * 2/4;  (0.8, 1]: |0.5 - 0.95| * 2/4
    assert metrics.expected_calibration_error(confidence, right, 5) == pytest.approx(0.3)


def test_published_and_standard_calibration_by_hand():
    # the letters have 0.5 and 0.1 of the vocabulary's probability: 5/6 and 1/6 among themselves
    logprobs = np.log([[0.5, 0.1]] * 4)
    gold = np.array([0, 0, 0, 1])
    assert metrics.published_ece(logprobs, gold, letters=True) == pytest.approx(0.25)
    assert metrics.published_ece(logprobs, gold, letters=False) == pytest.approx(5 / 6 - 0.75)
    assert metrics.standard_ece(logprobs, gold) == pytest.approx(5 / 6 - 0.75)


def slow_calibration_error(confidence, right, num_bins):
    """Edge by edge, answer by answer, as the formula is printed."""
    total = 0.0
    for number in range(num_bins):
        low, high = number / num_bins, (number + 1) / num_bins
        inside = [(c, r) for c, r in zip(confidence, right, strict=True) if low < c <= high]
        if inside:
            mean_confidence = sum(c for c, _ in inside) / len(inside)
            accuracy = sum(r for _, r in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean_confidence)
    return total


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.6, 0.7, 0.123, 1.0]), st.booleans()),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from([5, 10, 15]),
)
def test_calibration_error_equals_the_slow_formula(pairs, num_bins):
    confidence = np.array([c for c, _ in pairs])
    right = np.array([float(r) for _, r in pairs])
    found = metrics.expected_calibration_error(confidence, right, num_bins)
    assert found == pytest.approx(slow_calibration_error(confidence, right, num_bins))


# --- intervals ------------------------------------------------------------------------------------


def test_each_resample_draws_as_many_questions_as_there_are():
    counts = metrics.resample_counts(37, 42, "plants")
    assert counts.shape == (metrics.NUM_RESAMPLES, 37)
    assert (counts.sum(axis=1) == 37).all()
    assert counts.mean() == 1
    assert counts.var() == pytest.approx(36 / 37, rel=0.05)  # of a multinomial


def test_resamples_depend_on_seed_and_label_only():
    first = metrics.resample_counts(20, 42, "plants")
    assert (first == metrics.resample_counts(20, 42, "plants")).all()
    assert (first != metrics.resample_counts(20, 43, "plants")).any()
    assert (first != metrics.resample_counts(20, 42, "rivers")).any()


def test_resampled_means_are_means_of_the_drawn_questions():
    counts = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]])
    values = np.array([[1.0, 10.0], [0.0, 20.0], [0.5, 30.0]])
    assert metrics.resampled_means(counts, values) == pytest.approx(
        np.array([[2.5 / 3, 50 / 3], [0.0, 20.0]])
    )


def test_the_interval_of_a_mean_is_near_the_normal_one():
    right = (np.arange(400) < 240).astype(float)
    counts = metrics.resample_counts(400, 42, "plants")
    low, high = metrics.interval(metrics.resampled_means(counts, right[:, None])[:, 0])
    half = 1.96 * math.sqrt(0.6 * 0.4 / 400)
    assert low == pytest.approx(0.6 - half, abs=0.006)
    assert high == pytest.approx(0.6 + half, abs=0.006)


def test_seeds_are_drawn_apart_from_questions():
    weights = metrics.seed_weights(3, 42, "plants")
    assert weights.shape == (metrics.NUM_RESAMPLES, 3)
    assert weights.sum(axis=1) == pytest.approx(np.ones(metrics.NUM_RESAMPLES))
    questions = metrics.resample_counts(3, 42, "plants")
    assert not np.allclose(weights, questions / 3)


# --- equal mass, abstaining, position -------------------------------------------------------------


@pytest.fixture
def confidence_and_right():
    """400 answers, a third of which share their confidence with others."""
    generator = np.random.default_rng(4)
    confidence = generator.beta(2, 1, size=400)
    confidence[::3] = np.round(confidence[::3], 1)
    return confidence, (generator.random(400) < confidence**2).astype(float)


def test_bins_of_equal_mass_are_those_of_scikit_learn(confidence_and_right):
    confidence, right = confidence_and_right
    bins = metrics.equal_mass(confidence, right, 15)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15, strategy="quantile")
    assert [b.accuracy for b in bins] == pytest.approx(accuracy)
    assert [b.mean_confidence for b in bins] == pytest.approx(mean)
    assert sum(b.num_answers for b in bins) == 400


def test_bins_of_equal_width_are_those_of_scikit_learn(confidence_and_right):
    confidence, right = confidence_and_right
    confidence = 0.001 + 0.998 * confidence  # off 0 and off the edges, where 3/15 has two values
    bins = metrics.reliability(confidence, right, 15)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15, strategy="uniform")
    assert [b.accuracy for b in bins] == pytest.approx(accuracy)
    assert [b.mean_confidence for b in bins] == pytest.approx(mean)


def test_confidences_are_the_highest_renormalised_probabilities(answers):
    logprobs, _ = answers
    expected = metrics.renormalised(logprobs).max(axis=-1)
    assert metrics.confidences(logprobs) == pytest.approx(expected)


def test_auroc_is_that_of_scikit_learn(confidence_and_right):
    confidence, right = confidence_and_right
    assert metrics.auroc(confidence, right) == pytest.approx(roc_auc_score(right, confidence))


def test_auroc_of_answers_that_are_all_right_is_no_number():
    assert math.isnan(metrics.auroc(np.array([0.2, 0.9]), np.ones(2)))


def test_selective_accuracy_by_hand():
    found = metrics.selective_accuracies(np.array([0.5, 0.9, 0.7]), np.array([1.0, 1.0, 0.0]))
    assert found == pytest.approx([1, 1 / 2, 2 / 3])
    assert metrics.accuracy_at(found, 0.5) == pytest.approx(1 / 2)  # two of three
    assert metrics.accuracy_at(found, 1.0) == pytest.approx(2 / 3)
    assert metrics.accuracy_at(found, 0.0) == 1  # never none


def test_among_equally_sure_answers_no_order_decides(confidence_and_right):
    confidence, right = confidence_and_right
    turned = metrics.selective_accuracies(confidence[::-1], right[::-1])
    assert metrics.selective_accuracies(confidence, right) == pytest.approx(turned)
    constant = metrics.selective_accuracies(np.full(4, 0.3), np.array([1.0, 0, 0, 1]))
    assert constant == pytest.approx([0.5] * 4)


def test_position_bias_is_between_equal_and_disjoint():
    even = np.array([0.5, 0.5, 0.0])
    assert metrics.position_bias(even, even) == 0
    assert metrics.position_bias(even, np.array([0.0, 0.0, 1.0])) == 1
    assert metrics.position_bias(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(
        (0.25 / 1.5 + 0.25 / 0.5) / 2
    )


def test_shares_count_places():
    assert metrics.shares(np.array([[0, 2], [2, 2]]), 4).tolist() == [0.25, 0, 0.75, 0]
