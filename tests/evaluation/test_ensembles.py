from __future__ import annotations

import numpy as np
import pytest

from biomistral.errors import InputError
from biomistral.evaluation import ensemble
from biomistral.evaluation.columns import read_cells
from biomistral.evaluation.ensembles import mean_logprobs
from biomistral.evaluation.metrics import renormalised
from biomistral.recipe.settings import EnsembleSettings
from biomistral.records import Prediction, read_records

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
