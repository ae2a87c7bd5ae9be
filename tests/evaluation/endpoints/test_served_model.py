"""A served model through the steps: predictions, then scores."""

from __future__ import annotations

import json

import pytest

from biomistral.evaluation import predict
from biomistral.evaluation.columns import read_cells
from biomistral.evaluation.measures import Draws, measure
from biomistral.evaluation.score_rows import TaskDraws
from biomistral.recipe.settings import EvaluateSettings
from biomistral.records import UNSAID, Request

SETTINGS = EvaluateSettings(models=["served"])


@pytest.fixture
def requests() -> list[Request]:
    return [
        Request(f"q{i}", "plants", "en", 0, 1, "letter", f"{i} Answer:(", ("A", "B"), i % 2)
        for i in range(4)
    ]


def _measured(out):
    ((key, cell),) = read_cells(out, "served").items()
    draws = TaskDraws(1).of(key, cell)
    assert isinstance(draws, Draws)
    return cell, measure(cell, key.scoring, draws, None).values


def test_a_served_model_is_evaluated_like_a_local_one(serve, completions, requests, tmp_path):
    server = serve(completions)
    out = predict(SETTINGS, server.settings(), requests, tmp_path / "out", name="served")
    cell, values = _measured(out)
    assert not cell.in_words
    assert values["accuracy"] == 0.5
    assert "ece" in values


def test_answers_in_words_give_accuracy_and_no_calibration(serve, chat, requests, tmp_path) -> None:
    def answer(path, body):
        last = (body.get("messages") or [{"content": ""}])[-1]["content"]
        return chat("(A)" if last[:1] in "01" else "no idea")(path, body)

    server = serve(answer)
    out = predict(SETTINGS, server.settings(), requests, tmp_path / "out", name="served")
    cell, values = _measured(out)
    assert cell.logprobs[0].tolist() == [[0, UNSAID]] * 2 + [[UNSAID, UNSAID]] * 2
    assert values["accuracy"] == 0.25  # q2, where A is right, has no answer
    assert "ece" not in values
    assert "brier" not in values
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    assert counts["in_words"] == {"answers": 4, "without_a_letter": 2}
