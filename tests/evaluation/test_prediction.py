from __future__ import annotations

import dataclasses

import pytest
import torch

from biomistral.artifacts import content_digest, read_manifest
from biomistral.errors import ModelError
from biomistral.evaluation import predict
from biomistral.models.continuations import TextEncoder
from biomistral.models.loading import load_model, load_tokenizer
from biomistral.models.scoring import score_requests
from biomistral.recipe.settings import EvaluateSettings
from biomistral.records import Prediction, Request, read_records

SETTINGS = EvaluateSettings(models=["tiny"], precision="float32")


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    """Three groups: letters with two seeds, and texts."""
    found = []
    for scoring, seed in (("letter", 1), ("letter", 2), ("cloze", 1)):
        for index in range(4):
            prompt = f"The fever {seed} \n is treated with {'rest ' * index}**Answer:**"
            letters = scoring == "letter"
            found.append(
                Request(
                    f"q{index}", "plants", "en", 1, seed, scoring,  # type: ignore[arg-type]
                    prompt + "(" if letters else prompt,
                    ("A", "B", "C") if letters else (" bark", " cold water"),
                    index % 2,
                )
            )  # fmt: skip
    return found


def test_predictions_come_in_the_order_of_the_requests(tiny_model, requests, tmp_path):
    out = predict(SETTINGS, tiny_model, requests, tmp_path / "tiny", name="tiny")
    predictions = list(read_records(out / "predictions.parquet", Prediction))
    for request, prediction in zip(requests, predictions, strict=True):
        for field in ("question_id", "task", "language", "shots", "seed", "scoring", "gold"):
            assert getattr(prediction, field) == getattr(request, field)
        assert prediction.model == "tiny"
        assert len(prediction.logprobs) == len(request.continuations)


def test_predictions_are_those_of_the_engine(tiny_model, requests, tmp_path):
    out = predict(SETTINGS, tiny_model, iter(requests), tmp_path / "tiny", name="tiny")
    predictions = read_records(out / "predictions.parquet", Prediction)
    model = load_model(tiny_model, precision="float32")
    encoder = TextEncoder(load_tokenizer(tiny_model))
    expected = score_requests(model, encoder, requests).logprobs
    for prediction, logprobs in zip(predictions, expected, strict=True):
        assert prediction.logprobs == pytest.approx(logprobs, abs=1e-5)


def test_the_manifest_counts_and_names_device_and_threads(tiny_model, requests, tmp_path):
    out = predict(SETTINGS, tiny_model, requests, tmp_path / "tiny", name="tiny")
    manifest = read_manifest(out)
    assert manifest["counts"]["predictions"] == len(requests)
    assert manifest["counts"]["prompts"] == len(requests)
    assert manifest["counts"]["prompt_tokens"] > len(requests)
    assert manifest["counts"]["forward_tokens"] > len(requests)
    assert manifest["threads"] == torch.get_num_threads()
    assert manifest["device"] in {"cpu", "cuda"}


def test_on_a_gpu_the_manifest_does_not_promise_the_same_bytes(
    tiny_model, requests, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "biomistral.evaluation.prediction.pick_device", lambda: torch.device("cuda:0")
    )
    out = predict(SETTINGS, tiny_model, requests[:1], tmp_path / "tiny", name="tiny")
    assert "GPU" in read_manifest(out)["deterministic"]


def test_too_little_memory_is_one_line_with_the_remedy(tiny_model, requests, tmp_path, monkeypatch):
    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("biomistral.models.scoring.score_requests", full)
    with pytest.raises(ModelError, match=r"evaluate\.batch_tokens: 16384 tokens .*; lower it"):
        predict(SETTINGS, tiny_model, requests, tmp_path / "tiny", name="tiny")


def test_the_same_model_and_requests_give_the_same_bytes(tiny_model, requests, tmp_path):
    one = predict(SETTINGS, tiny_model, requests, tmp_path / "one", name="tiny")
    two = predict(SETTINGS, tiny_model, requests, tmp_path / "two", name="tiny")
    assert content_digest(one) == content_digest(two)


def test_an_interrupted_run_goes_on_behind_its_last_group(tiny_model, requests, tmp_path):
    undisturbed = predict(SETTINGS, tiny_model, requests, tmp_path / "whole", name="tiny")
    scored = []

    def stop_in_the_second_group(done: float, total: float | None, text: str) -> None:
        scored.append(text)
        if "seed 2" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(
            SETTINGS, tiny_model, requests, tmp_path / "tiny", name="tiny",
            progress=stop_in_the_second_group,
        )  # fmt: skip
    assert not (tmp_path / "tiny").exists()
    [work] = tmp_path.glob(".tiny.*.partial/.work")
    [kept] = work.glob("*.parquet")
    before = kept.stat().st_mtime_ns

    def kept_stays(done: float, total: float | None, text: str) -> None:
        if kept.exists():
            assert kept.stat().st_mtime_ns == before

    out = predict(
        SETTINGS, tiny_model, requests, tmp_path / "tiny", name="tiny", progress=kept_stays
    )
    assert content_digest(out) == content_digest(undisturbed)
    assert read_manifest(out)["resumed"]
    assert read_manifest(out)["counts"] == read_manifest(undisturbed)["counts"]


def test_a_finished_run_of_other_requests_is_not_taken_over(tiny_model, requests, tmp_path):
    def stop_in_the_second_group(done: float, total: float | None, text: str) -> None:
        if "seed 2" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(
            SETTINGS, tiny_model, requests, tmp_path / "tiny", name="tiny",
            progress=stop_in_the_second_group,
        )  # fmt: skip
    other = [dataclasses.replace(r, prompt="Other " + r.prompt) for r in requests]
    out = predict(SETTINGS, tiny_model, other, tmp_path / "tiny", name="tiny")
    fresh = predict(SETTINGS, tiny_model, other, tmp_path / "fresh", name="tiny")
    assert not read_manifest(out)["resumed"]
    assert content_digest(out) == content_digest(fresh)


def test_progress_counts_all_requests(tiny_model, requests, tmp_path):
    calls = []
    predict(
        SETTINGS, tiny_model, requests, tmp_path / "tiny", name="tiny",
        progress=lambda *call: calls.append(call),
    )  # fmt: skip
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)
    assert calls[-1] == (len(requests), len(requests), "plants, en, seed 1, cloze")


def test_no_requests_give_an_empty_file(tiny_model, tmp_path):
    out = predict(SETTINGS, tiny_model, [], tmp_path / "tiny", name="tiny")
    assert list(read_records(out / "predictions.parquet", Prediction)) == []


def test_a_broken_model_leaves_nothing_behind(tmp_path, requests):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty"):
        predict(SETTINGS, tmp_path / "empty", requests, tmp_path / "out", name="broken")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_importing_the_room_loads_no_torch():
    import subprocess
    import sys

    code = "import sys, biomistral.evaluation; print({'torch', 'pyarrow'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
