from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from biomistral.artifacts import content_digest, read_manifest
from biomistral.errors import ModelError
from biomistral.evaluation import engine, predict
from biomistral.evaluation.prediction import Keeping
from biomistral.models.continuations import TextEncoder
from biomistral.models.loading import load_model, load_tokenizer
from biomistral.models.scoring import score_requests
from biomistral.recipe.settings import EvaluateSettings
from biomistral.records import Prediction, Request, read_records
from biomistral.workers import running_on

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
    counts = read_manifest(undisturbed)["counts"]
    assert read_manifest(out)["counts"]["predictions"] == counts["predictions"]
    assert "forward_tokens" not in read_manifest(out)["counts"]  # those of the killed run are lost


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


# --- answers that are kept ------------------------------------------------------------------------


@pytest.fixture
def scored(monkeypatch) -> list[Request]:
    """The requests that went through the engine, as they go."""
    seen: list[Request] = []
    real = engine.TransformersEngine.score

    def score(self, requests, **listeners):
        seen.extend(requests)
        return real(self, requests, **listeners)

    monkeypatch.setattr(engine.TransformersEngine, "score", score)
    return seen


def test_what_is_kept_is_not_scored_again(tiny_model, requests, tmp_path, scored):
    keeping = Keeping(tmp_path / "units")
    one = predict(SETTINGS, tiny_model, requests, tmp_path / "a", name="tiny", keeping=keeping)
    assert len(scored) == len(requests)
    two = predict(SETTINGS, tiny_model, requests, tmp_path / "b", name="tiny", keeping=keeping)
    assert len(scored) == len(requests)
    assert content_digest(one) == content_digest(two)
    assert read_manifest(one)["counts"] == read_manifest(two)["counts"]


def test_a_kept_answer_comes_under_the_name_asked_for(tiny_model, requests, tmp_path, scored):
    keeping = Keeping(tmp_path / "units")
    predict(SETTINGS, tiny_model, requests, tmp_path / "a", name="tiny", keeping=keeping)
    scored.clear()
    out = predict(SETTINGS, tiny_model, requests, tmp_path / "b", name="other", keeping=keeping)
    assert {p.model for p in read_records(out / "predictions.parquet", Prediction)} == {"other"}
    assert not scored


def test_a_seed_that_is_added_costs_that_seed(tiny_model, requests, tmp_path, scored):
    keeping = Keeping(tmp_path / "units")
    first = [r for r in requests if r.seed == 1]
    predict(SETTINGS, tiny_model, first, tmp_path / "a", name="tiny", keeping=keeping)
    scored.clear()
    out = predict(SETTINGS, tiny_model, requests, tmp_path / "b", name="tiny", keeping=keeping)
    assert {request.seed for request in scored} == {2}
    fresh = predict(SETTINGS, tiny_model, requests, tmp_path / "fresh", name="tiny")
    assert content_digest(out) == content_digest(fresh)


@pytest.mark.filterwarnings("ignore:tiny. scoring 1 of 1 units again")
@pytest.mark.parametrize(
    "change", ["seed", "template", "data", "choices", "gold", "order", "precision", "version"]
)
def test_whoever_asks_something_else_is_never_served_old_answers(
    tiny_model, requests, tmp_path, scored, change, monkeypatch
):
    keeping = Keeping(tmp_path / "units")
    asked, settings = requests[:4], SETTINGS
    predict(settings, tiny_model, asked, tmp_path / "a", name="tiny", keeping=keeping)
    scored.clear()
    one = asked[0]
    changed = {
        "seed": dataclasses.replace(one, seed=9),
        "template": dataclasses.replace(one, prompt=one.prompt.replace("**", "")),
        "data": dataclasses.replace(one, prompt=one.prompt.replace("fever", "cough")),
        "choices": dataclasses.replace(one, continuations=("A", "B")),
        "gold": dataclasses.replace(one, gold=2),
        "order": dataclasses.replace(one, order=(2, 0, 1)),
    }
    if change in changed:
        asked = [changed[change], *asked[1:]]
    elif change == "precision":
        settings = settings.model_copy(update={"precision": "bfloat16"})
    else:
        monkeypatch.setattr("biomistral.models.scoring.ENGINE_VERSION", 10**6)
    out = predict(settings, tiny_model, asked, tmp_path / "b", name="tiny", keeping=keeping)
    assert {request.question_id for request in scored} >= {"q0"}
    fresh = predict(settings, tiny_model, asked, tmp_path / "fresh", name="tiny")
    assert content_digest(out) == content_digest(fresh)


def test_a_newer_engine_says_that_it_scores_again_what_is_kept(
    tiny_model, requests, tmp_path, scored, monkeypatch
):
    keeping = Keeping(tmp_path / "units")
    predict(SETTINGS, tiny_model, requests, tmp_path / "a", name="tiny", keeping=keeping)
    monkeypatch.setattr("biomistral.models.scoring.ENGINE_VERSION", 99)
    with pytest.warns(UserWarning, match=r"tiny: scoring 3 of 3 units again") as told:
        predict(SETTINGS, tiny_model, requests, tmp_path / "b", name="tiny", keeping=keeping)
    text = str(told[0].message)
    assert "of the engine, which is 99 now (plants, en, seed 1, letter; " in text
    assert str(keeping.units) in text
    assert len(scored) == 2 * len(requests)


def test_another_model_at_the_same_path_is_another_model(make_model, requests, tmp_path, scored):
    keeping, place = Keeping(tmp_path / "units"), tmp_path / "model"
    shutil.copytree(make_model(0), place)
    one = predict(SETTINGS, place, requests[:4], tmp_path / "a", name="m", keeping=keeping)
    weights, status = place / "model.safetensors", (place / "model.safetensors").stat()
    shutil.copy(make_model(1) / "model.safetensors", weights)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert weights.stat().st_size == status.st_size
    two = predict(SETTINGS, place, requests[:4], tmp_path / "b", name="m", keeping=keeping)
    assert len(scored) == 8
    assert content_digest(one) != content_digest(two)


def test_a_killed_run_loses_the_batch_in_flight(tiny_model, requests, tmp_path, scored):
    """kill -9 after the second batch of one question each: two questions are left to score."""
    code = f"""
import os, signal, pickle
from biomistral.evaluation.prediction import Keeping, predict
from biomistral.models import scoring
from pathlib import Path
requests, settings = pickle.loads({pickle.dumps((requests[:4], SETTINGS))!r})
real = scoring.score_requests
def one_by_one(model, encoder, asked, *, on_batch, **rest):
    for index, request in enumerate(asked):
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        found = real(model, encoder, [request], on_batch=lambda i, l, t: on_batch([index], l, t))
scoring.score_requests = one_by_one
predict(settings, Path({str(tiny_model)!r}), requests, Path({str(tmp_path / "out")!r}), name="tiny",
        keeping=Keeping(Path({str(tmp_path / "units")!r})))
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "out").exists()
    keeping = Keeping(tmp_path / "units")
    out = predict(
        SETTINGS, tiny_model, requests[:4], tmp_path / "out", name="tiny", keeping=keeping
    )
    assert [request.question_id for request in scored] == ["q2", "q3"]
    fresh = predict(SETTINGS, tiny_model, requests[:4], tmp_path / "fresh", name="tiny")
    assert content_digest(out) == content_digest(fresh)
    assert [path.suffix for path in (tmp_path / "units").iterdir()] == [".parquet"]


# --- what cannot be scored ------------------------------------------------------------------------


def test_prompts_that_are_skipped_are_counted_and_named(tiny_model, requests, tmp_path):
    long = dataclasses.replace(requests[1], prompt="bark and " * 600 + "Answer:(")
    asked = [requests[0], long, *requests[2:4]]
    settings = SETTINGS.model_copy(update={"long_prompts": "skip"})
    out = predict(settings, tiny_model, asked, tmp_path / "out", name="tiny")
    counts = read_manifest(out)["counts"]
    assert counts["predictions"] == 3
    assert counts["long_prompts"] == {"shortened": 0, "skipped": ["plants/en/q1"]}


def test_a_model_that_gives_no_number_is_refused(make_model, requests, tmp_path):
    place = shutil.copytree(make_model(0), tmp_path / "broken")
    weights = load_file(place / "model.safetensors")
    weights["model.norm.weight"][:] = float("nan")
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"question .q.. of .*weights are broken"):
        predict(SETTINGS, place, requests[:4], tmp_path / "out", name="broken")


def test_a_model_without_a_tokenizer_says_what_to_put_there(tiny_model, requests, tmp_path):
    place = Path(shutil.copytree(tiny_model, tmp_path / "bare"))
    for path in place.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"bare: has no tokenizer.*tokenizer\.json"):
        predict(SETTINGS, place, requests[:4], tmp_path / "out", name="bare")


def test_a_broken_model_leaves_nothing_behind(tmp_path, requests):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty"):
        predict(SETTINGS, tmp_path / "empty", requests, tmp_path / "out", name="broken")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


class Elsewhere:
    """A cluster of two GPUs, whose tasks run here."""

    def __init__(self):
        self.shares = []

    def num_tasks(self, *, gpu=False):
        return 2 if gpu else 16

    def run_all(self, function, items, *, gpu=False):
        assert gpu, "models answer on GPUs"
        self.shares += items
        yield from ((index, function(item) and "cuda") for index, item in enumerate(items))


def test_a_cluster_gets_all_units_in_shares_of_about_one_size(tiny_model, requests, tmp_path):
    other = [dataclasses.replace(r, seed=r.seed + 7) for r in requests]
    asked = [*requests, *other, *(dataclasses.replace(r, seed=r.seed + 9) for r in other[:1])]
    cluster = Elsewhere()
    with running_on(cluster):
        predict(SETTINGS, tiny_model, asked, tmp_path / "there", name="m")
    predict(SETTINGS, tiny_model, asked, tmp_path / "here", name="m")
    assert content_digest(tmp_path / "there") == content_digest(tmp_path / "here")
    manifest = read_manifest(tmp_path / "there")
    assert manifest["device"] == "cuda", "where it was answered, not where it was put together"
    assert "GPU" in manifest["deterministic"]
    sizes = [sum(len(r.prompt) for u in share for r in u.requests) for share in cluster.shares]
    largest = max(sum(len(r.prompt) for r in u.requests) for s in cluster.shares for u in s)
    assert len(sizes) == 2
    assert abs(sizes[0] - sizes[1]) <= largest


def test_importing_the_room_loads_no_torch():
    code = "import sys, biomistral.evaluation; print({'torch', 'pyarrow'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
