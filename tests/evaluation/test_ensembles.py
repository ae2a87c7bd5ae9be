from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from biomistral.errors import InputError
from biomistral.evaluation import ensemble
from biomistral.evaluation.columns import read_cells, read_validation
from biomistral.evaluation.ensembles import (
    combined,
    cross_weights,
    fitted_weights,
    mean_logprobs,
    weights_of,
)
from biomistral.evaluation.metrics import renormalised
from biomistral.recipe.settings import EnsembleSettings
from biomistral.records import UNSAID, Prediction, read_records, write_records

BOTH = EnsembleSettings(name="both", models=["one", "two"])


def test_letters_get_the_mean_of_their_probabilities():
    one, two = np.log([[[0.5, 0.1]]]), np.log([[[0.1, 0.4]]])
    mean = np.exp(mean_logprobs(np.stack([one, two]), "letter"))
    assert mean == pytest.approx(np.array([[[0.3, 0.25]]]))


def test_texts_get_the_mean_of_their_renormalised_probabilities():
    one, two = np.log([[[0.3, 0.1]]]), np.log([[[0.2, 0.8]]]) - 5
    mean = np.exp(mean_logprobs(np.stack([one, two]), "cloze"))
    assert mean == pytest.approx(np.array([[[(0.75 + 0.2) / 2, (0.25 + 0.8) / 2]]]))


@pytest.mark.parametrize("scoring", ["letter", "cloze"])
def test_the_order_of_models_and_missing_choices_change_nothing(scoring):
    generator = np.random.default_rng(0)
    stacked = np.log(generator.dirichlet(np.ones(4), size=(3, 2, 5)))
    stacked[:, :, 2, 3] = -np.inf
    mean = mean_logprobs(stacked, scoring)
    assert np.allclose(mean, mean_logprobs(stacked[::-1], scoring))
    assert (np.isneginf(mean) == np.isneginf(stacked[0])).all()


def test_a_model_with_its_twin_is_itself(random_predictions, write_predictions, tmp_path):
    folder, twin = (write_predictions(name, random_predictions()) for name in ("one", "twin"))
    settings = EnsembleSettings(name="same", models=["one", "twin"])
    out = ensemble(settings, {"one": folder, "twin": twin}, tmp_path / "same")
    before, after = read_cells(folder, "one"), read_cells(out, "same")
    for key, cell in before.items():
        assert (after[key].logprobs == cell.logprobs).all()


def test_a_model_with_its_twin_ranks_texts_as_itself(
    random_predictions, write_predictions, tmp_path
):
    folder, twin = (
        write_predictions(name, random_predictions(scoring="cloze")) for name in ("one", "twin")
    )
    settings = EnsembleSettings(name="same", models=["one", "twin"])
    out = ensemble(settings, {"one": folder, "twin": twin}, tmp_path / "same")
    after = read_cells(out, "same")
    for key, cell in read_cells(folder, "one").items():
        assert np.allclose(renormalised(after[key].logprobs), renormalised(cell.logprobs))


def test_models_are_aligned_by_question_not_by_row(random_predictions, write_predictions, tmp_path):
    one = write_predictions("one", random_predictions(1))
    two = write_predictions("two", random_predictions(2))
    turned = write_predictions("turned", random_predictions(2)[::-1])
    straight = ensemble(BOTH, {"one": one, "two": two}, tmp_path / "a")
    crossed = ensemble(BOTH, {"one": one, "two": turned}, tmp_path / "b")
    files = [folder / "predictions.parquet" for folder in (straight, crossed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    records = list(read_records(files[0], Prediction))
    assert {record.model for record in records} == {"both"}
    assert len(records) == len(random_predictions(1))


def test_a_question_that_one_model_lacks_is_named(random_predictions, write_predictions, tmp_path):
    one = write_predictions("one", random_predictions(1))
    lacking = [p for p in random_predictions(2) if p.question_id != "rivers-7"]
    two = write_predictions("two", lacking)
    with pytest.raises(InputError, match="'two' lacks question 'rivers-7' of rivers"):
        ensemble(BOTH, {"one": one, "two": two}, tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_a_model_without_predictions_is_named(random_predictions, write_predictions, tmp_path):
    one = write_predictions("one", random_predictions())
    with pytest.raises(InputError, match=r"'both': there are no predictions of 'two'; evaluate"):
        ensemble(BOTH, {"one": one}, tmp_path / "both")


# --- other methods --------------------------------------------------------------------------------

METHODS = ["mean", "logits", "accuracy", "fitted", "majority"]


@pytest.fixture
def answers():
    """Log-probabilities of 3 models (2 seeds, 200 questions, 4 choices), the first the best."""
    generator = np.random.default_rng(7)
    gold = generator.integers(4, size=200)
    values = generator.normal(size=(3, 2, 200, 4))
    values += np.array([2.0, 0.5, 0.2])[:, None, None, None] * (np.arange(4) == gold[:, None])
    return np.log(renormalised(values)), gold


@pytest.mark.parametrize("scoring", ["letter", "cloze"])
@pytest.mark.parametrize("method", METHODS)
def test_an_ensemble_of_one_is_itself(answers, scoring, method):
    alone = answers[0][:1] - 0.5
    assert (combined(alone, scoring, method) == alone[0]).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_model_with_its_twins_answers_as_itself(answers, method):
    logprobs, _ = answers
    twins = np.stack([logprobs[0]] * 3)
    together = combined(twins, "letter", method)
    assert (together.argmax(axis=-1) == logprobs[0].argmax(axis=-1)).all()
    if method != "majority":
        assert np.allclose(together, logprobs[0])


def test_the_mean_of_logits_is_the_geometric_mean(answers):
    logprobs, _ = answers
    expected = renormalised(np.log(np.exp(logprobs).prod(axis=0) ** (1 / 3)))
    assert np.allclose(renormalised(combined(logprobs, "letter", "logits")), expected)


def test_the_most_votes_win_and_the_mean_decides_between_equals():
    one, two, sure = [0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.0001, 0.0002, 0.9997]
    votes = combined(np.log([[[one]], [[two]], [[sure]]]), "letter", "majority")
    assert votes[0, 0].argmax() == 0  # the mean would have chosen the last
    even = combined(np.log([[[one]], [[sure]]]), "letter", "majority")
    assert even[0, 0].argmax() == 2
    assert np.exp(votes).sum() == pytest.approx(1)


def test_fitted_weights_are_those_of_a_plain_search():
    generator = np.random.default_rng(0)
    of_gold = generator.random((2, 300)) * np.array([[1.0], [0.7]])
    grid = np.linspace(0.001, 0.999, 999)
    losses = [-np.log(w * of_gold[0] + (1 - w) * of_gold[1]).sum() for w in grid]
    assert fitted_weights(of_gold)[0] == pytest.approx(grid[int(np.argmin(losses))], abs=0.01)


def test_the_better_model_weighs_more_and_no_question_weighs_itself(answers):
    logprobs, gold = answers
    for method in ("accuracy", "fitted"):
        whole = weights_of(logprobs, gold, method)
        assert whole.sum() == pytest.approx(1)
        assert whole.argmax() == 0
        fold = np.arange(200) % 5
        crossed = cross_weights(logprobs, gold, fold, method)
        alone = weights_of(logprobs[:, :, fold != 3], gold[fold != 3], method)
        assert np.allclose(crossed[:, 3], alone)
        changed = gold.copy()
        changed[3] = (changed[3] + 1) % 4
        assert np.allclose(cross_weights(logprobs, changed, fold, method)[:, 3], crossed[:, 3])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scoring", ["letter", "cloze"])
def test_every_method_writes_predictions(
    method, scoring, random_predictions, write_predictions, tmp_path
):
    folders = {
        name: write_predictions(name, random_predictions(seed, scoring=scoring))
        for seed, name in enumerate(("one", "two"))
    }
    settings = EnsembleSettings(name="both", models=["one", "two"], method=method)
    out = ensemble(settings, folders, tmp_path / "both")
    cells, before = read_cells(out, "both"), read_cells(folders["one"], "one")
    for key, cell in cells.items():
        assert (cell.num_choices == before[key].num_choices).all()
    assert not read_validation(out, "both")


def _answers_of(task, num_questions, probability, seed=1):
    """Answers that give the right choice of two this probability."""
    for index in range(num_questions):
        gold = index % 2
        row = np.log(
            [probability, 1 - probability] if gold == 0 else [1 - probability, probability]
        )
        yield Prediction(
            f"{task}{index}", task, "en", "m", 3, seed, "letter", tuple(row.tolist()), gold
        )


@pytest.mark.parametrize("num_validation", [99, 100])
def test_weights_come_from_enough_validation_questions(num_validation, write_predictions, tmp_path):
    """The first model is good on validation questions, the second on test questions."""
    folders = {}
    for name, of_test, of_validation in (("one", 0.1, 0.9), ("two", 0.9, 0.1)):
        folders[name] = write_predictions(name, _answers_of("herbs", 10, of_test))
        validation = _answers_of("herbs", num_validation, of_validation)
        write_records(folders[name] / "validation.parquet", validation, Prediction)
    settings = EnsembleSettings(name="both", models=["one", "two"], method="fitted")
    out = ensemble(settings, folders, tmp_path / "both")
    [cell], [validated] = (read(out, "both").values() for read in (read_cells, read_validation))
    of_right = np.exp(np.take_along_axis(cell.logprobs[0], cell.gold[:, None], axis=1))
    assert of_right == pytest.approx(
        np.full((10, 1), 0.1 if num_validation == 100 else 0.9), abs=1e-3
    )
    assert len(validated.gold) == num_validation


def _in_words(predictions, answers):
    """The same predictions in words: the choice of ``answers`` (None: none) for each question."""
    for p in predictions:
        place = answers.get(p.question_id, 0)
        row = tuple(0.0 if index == place else UNSAID for index in range(len(p.logprobs)))
        yield dataclasses.replace(p, logprobs=row)


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_and_words_are_combined_by_votes_only(
    method, random_predictions, write_predictions, tmp_path
):
    folders = {
        "one": write_predictions("one", random_predictions(1)),
        "two": write_predictions("two", _in_words(random_predictions(1), {})),
    }
    settings = EnsembleSettings(name="both", models=["one", "two"], method=method)
    if method == "majority":
        out = ensemble(settings, folders, tmp_path / "both")
        assert all(cell.in_words for cell in read_cells(out, "both").values())
        return
    wanted = (
        rf"'both': 'two' has answered plants .* in words.*method {method}; use method: majority"
    )
    with pytest.raises(InputError, match=wanted):
        ensemble(settings, folders, tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_who_names_no_choice_has_no_vote():
    a, b, none = [0.0, UNSAID], [UNSAID, 0.0], [UNSAID, UNSAID]
    rows = [[a, none, none], [b, b, none], [b, none, none]]  # three models, three questions
    found = combined(np.array(rows)[:, None], "letter", "majority")
    assert found[0].tolist() == [b, b, none]
