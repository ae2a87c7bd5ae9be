from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest, chi2, norm

from biomistral.evaluation import comparison, metrics
from biomistral.evaluation.columns import Cell, CellKey

GROUPS = {"plants": "medical", "rivers": "medical"}


def cell_of(right, num_choices: int = 4) -> Cell:
    table = np.atleast_2d(np.array(right))
    gold = np.arange(table.shape[1]) % num_choices
    chosen = np.where(table, gold, (gold + 1) % num_choices)
    logprobs = np.where(np.arange(num_choices) == chosen[..., None], np.log(0.7), np.log(0.1))
    names = tuple(f"q{index}" for index in range(table.shape[1]))
    return Cell(names, tuple(range(1, len(table) + 1)), logprobs, gold)


def key_of(task: str, **changes: str) -> CellKey:
    return CellKey(task, "en", "letter", 3)._replace(**changes)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (3, 9), (7, 7), (40, 12), (300, 260)])
def test_mcnemar_is_the_exact_binomial_test_of_scipy(first, second):
    expected = binomtest(first, first + second).pvalue
    assert comparison.mcnemar(first, second).p_value == pytest.approx(expected)


def test_mcnemar_of_many_is_the_corrected_chi_square():
    statistic = (abs(900 - 800) - 1) ** 2 / 1700
    found = comparison.mcnemar(900, 800)
    assert found.p_value == pytest.approx(chi2.sf(statistic, 1))
    assert found.p_value == pytest.approx(binomtest(900, 1700).pvalue, rel=0.02)


def test_effect_sizes_by_hand():
    found = comparison.mcnemar(30, 10)
    assert found.odds_ratio == 3
    assert found.cohens_g == pytest.approx(0.25)
    assert comparison.mcnemar(5, 0)[1:] == (None, 0.5)
    assert comparison.mcnemar(0, 0) == (1.0, None, None)


def test_holm_by_hand():
    assert comparison.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert comparison.holm([0.9, 0.8]) == [1.0, 1.0]
    assert comparison.holm([]) == []


def test_the_bootstrap_p_value_is_near_the_normal_one():
    generator = np.random.default_rng(0)
    for mean in (0.0, 1.5, -2.0):
        drawn = generator.normal(mean, 1, size=20_000)
        expected = 2 * norm.sf(abs(mean))
        assert comparison.bootstrap_p_value(drawn, 500) == pytest.approx(expected, abs=0.02)
    assert comparison.bootstrap_p_value(np.zeros(99), 500) == 1


def test_a_p_value_that_counting_cannot_tell_is_the_normal_tail():
    generator = np.random.default_rng(0)
    drawn = generator.normal(6.0, 1, size=2_000)
    expected = 2 * norm.sf(6)
    assert comparison.bootstrap_p_value(drawn, 500) == pytest.approx(expected, rel=2)
    assert comparison.bootstrap_p_value(-drawn, 500) == comparison.bootstrap_p_value(drawn, 500)
    # Never smaller than a sign test of as many questions can be, never larger than what is counted.
    assert comparison.bootstrap_p_value(drawn, 12) == 2**-11
    assert comparison.bootstrap_p_value(np.ones(99), 500) == 2.0**-499
    assert comparison.bootstrap_p_value(np.ones(99), 1) == pytest.approx(2 / 100)


def test_a_large_difference_is_found_among_hundreds_of_tests():
    generator = np.random.default_rng(1)
    good = [1.0] * 60
    cells = {f"m{i}": {key_of("plants"): cell_of(generator.integers(0, 2, 60))} for i in range(30)}
    cells["good"] = {key_of("plants"): cell_of(good)}
    rows = [r for r in comparison.compare(cells, GROUPS) if r.second == "good"]
    assert len(rows) == 30
    assert max(row.p_bootstrap_holm for row in rows) < 0.01


def test_a_pair_by_hand():
    cells = {
        "a": {key_of("plants"): cell_of([1, 1, 1, 0])},
        "b": {key_of("plants"): cell_of([1, 0, 0, 1])},
    }
    [row] = comparison.compare(cells, GROUPS, num_resamples=500)
    assert (row.first, row.second, row.task, row.group) == ("a", "b", "plants", "medical")
    assert row.difference == 0.25
    assert (row.first_only, row.second_only, row.odds_ratio) == (2, 1, 2.0)
    assert row.p_mcnemar == row.p_mcnemar_holm == 1
    assert row.low < 0.25 < row.high
    assert (row.num_questions, row.num_seeds) == (4, 1)


def test_the_interval_is_that_of_a_plain_paired_bootstrap():
    generator = np.random.default_rng(5)
    one, two = generator.random((2, 1, 300)) < np.array([0.6, 0.5])[:, None, None]
    cells = {"a": {key_of("plants"): cell_of(one)}, "b": {key_of("plants"): cell_of(two)}}
    [row] = comparison.compare(cells, GROUPS, num_resamples=3000)
    difference = one[0].astype(float) - two[0]
    drawn = [generator.choice(difference, 300).mean() for _ in range(3000)]
    assert (row.low, row.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.012)
    spread = difference.std() / math.sqrt(300)
    assert row.p_bootstrap == pytest.approx(2 * norm.sf(abs(row.difference) / spread), abs=0.02)


def test_with_several_seeds_a_question_counts_for_the_model_that_is_right_more_often():
    one = cell_of([[1, 1, 0, 0], [1, 0, 0, 1], [1, 1, 0, 0]])
    two = cell_of([[0, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 0]])
    cells = {"a": {key_of("plants"): one}, "b": {key_of("plants"): two}}
    [row] = comparison.compare(cells, GROUPS, num_resamples=50)
    assert (row.first_only, row.second_only) == (1, 1)  # the second and the fourth are even
    assert row.num_seeds == 3


def test_a_model_against_its_twin_shows_nothing():
    cells = {name: {key_of("plants"): cell_of([1, 0, 1])} for name in "ab"}
    [row] = comparison.compare(cells, GROUPS, num_resamples=50)
    assert (row.difference, row.low, row.high) == (0, 0, 0)
    assert row.p_bootstrap == row.p_mcnemar == 1


def random_cells(names="abc"):
    generator = np.random.default_rng(2)
    return {
        name: {
            key_of(task, language=language): cell_of(generator.random((2, count)) < 0.5 + shift / 8)
            for task, count in (("plants", 60), ("rivers", 30))
            for language in ("en", "fr")
        }
        for shift, name in enumerate(names)
    }


def test_every_pair_is_compared_on_each_task_and_average():
    rows = comparison.compare(random_cells(), GROUPS, num_resamples=50)
    pairs = {(row.first, row.second) for row in rows}
    assert pairs == set(itertools.combinations("abc", 2))
    assert len(rows) == 3 * (4 + 2)
    for row in rows:
        assert (row.p_mcnemar is None) == (row.task == "average")


def test_the_average_of_a_pair_is_that_of_its_tasks():
    rows = comparison.compare(random_cells("ab"), GROUPS, num_resamples=400)
    english = [row for row in rows if row.language == "en"]
    tasks = [row.difference for row in english if row.task != "average"]
    [average] = [row for row in english if row.task == "average"]
    assert average.difference == pytest.approx(sum(tasks) / 2)
    assert average.low < average.difference < average.high


def test_p_values_are_corrected_over_tasks_and_over_averages_apart():
    rows = comparison.compare(random_cells(), GROUPS, num_resamples=200)
    for is_average in (False, True):
        family = [row for row in rows if (row.task == "average") == is_average]
        corrected = comparison.holm([row.p_bootstrap for row in family])
        assert [row.p_bootstrap_holm for row in family] == corrected
    tasks = [row for row in rows if row.task != "average"]
    assert [r.p_mcnemar_holm for r in tasks] == comparison.holm([r.p_mcnemar for r in tasks])


def test_a_cell_that_one_lacks_is_not_compared_and_leaves_no_average():
    cells = random_cells("ab")
    del cells["b"][key_of("rivers")]
    rows = comparison.compare(cells, GROUPS, num_resamples=50)
    assert {(r.task, r.language) for r in rows} == {
        ("plants", "en"),
        ("plants", "fr"),
        ("rivers", "fr"),
        ("average", "fr"),
    }


def test_a_pair_is_compared_alike_in_other_company():
    def of_pair(rows):
        return [
            (r.task, r.difference, r.low, r.high, r.p_bootstrap) for r in rows if r.second == "b"
        ]

    alone = comparison.compare(random_cells("ab"), GROUPS, num_resamples=300)
    others = comparison.compare(random_cells("abcd"), GROUPS, num_resamples=300)
    assert of_pair(alone) == of_pair(others)


def test_draws_in_chunks_are_draws_of_the_task():
    ones = np.eye(5)
    found = comparison._resampled_means(ones, 5, 42, "plants", 1300)
    assert found.shape == (1300, 5)
    assert np.allclose(found[:1000], metrics.resample_counts(5, 42, "plants", 1000) / 5)
    assert not (found[:300] == found[1000:]).all()


# --- languages ---


def named_cell(ids, right, choices=4, seeds=(1,)):
    logprobs = np.full((len(seeds), len(ids), choices), -3.0)
    for place, is_right in enumerate(right):
        logprobs[:, place, 0 if is_right else 1] = -0.1
    return Cell(tuple(ids), tuple(seeds), logprobs, np.zeros(len(ids), dtype=np.int64))


def test_a_language_is_compared_with_english_on_shared_questions_only() -> None:
    english = CellKey("t", "en", "letter", 0)
    french = CellKey("t", "fr", "letter", 0)
    alone = CellKey("other", "fr", "letter", 0)
    cells = {
        "m": {
            english: named_cell(["a", "b", "c", "d"], [1, 1, 1, 0]),
            french: named_cell(["b", "c", "d", "x"], [0, 1, 0, 1]),
            alone: named_cell(["a"], [1]),
        }
    }
    (gap,) = comparison.compare_languages(cells, {"t": "g", "other": "g"}, num_resamples=500)
    assert (gap.model, gap.task, gap.language, gap.num_questions) == ("m", "t", "fr", 3)
    assert gap.difference == pytest.approx(1 / 3 - 2 / 3)
    assert gap.low <= gap.difference <= gap.high


def test_the_same_answers_in_both_languages_leave_no_gap() -> None:
    ids = [str(i) for i in range(50)]
    right = [i % 3 == 0 for i in range(50)]
    keys = [CellKey(task, code, "letter", 0) for task in "st" for code in ("en", "de", "fr")]
    cells = {"m": {key: named_cell(ids, right, seeds=(1, 2)) for key in keys}}
    gaps = comparison.compare_languages(cells, {"s": "g", "t": "g"}, num_resamples=500)
    assert len(gaps) == 2 * 2 + 2  # tasks and the average, in two languages
    assert all((gap.difference, gap.low, gap.high) == (0, 0, 0) for gap in gaps)
    assert all(gap.p_bootstrap_holm == 1 for gap in gaps)


def test_a_gap_is_that_of_the_plain_paired_bootstrap() -> None:
    ids = [str(i) for i in range(200)]
    generator = np.random.default_rng(0)
    first, second = generator.random(200) < 0.7, generator.random(200) < 0.5
    cells = {
        "m": {
            CellKey("t", "en", "letter", 0): named_cell(ids, first),
            CellKey("t", "fr", "letter", 0): named_cell(ids, second),
        }
    }
    (gap,) = comparison.compare_languages(cells, {"t": "g"}, num_resamples=4000)
    draws = generator.integers(0, 200, (4000, 200))
    plain = (second[draws].astype(float) - first[draws]).mean(axis=1)
    assert (gap.low, gap.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.015)
