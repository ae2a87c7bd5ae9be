from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from biomistral.errors import InputError
from biomistral.evaluation import predict
from biomistral.evaluation.lm_eval import LOADER, export_tasks
from biomistral.evaluation.lm_eval_samples import Names, import_samples
from biomistral.models.control_tokens import mark
from biomistral.recipe.settings import EvaluateSettings
from biomistral.records import Prediction, Request, read_records

OPENING = "The following are questions. \n **Question:** x \n **Answer:**(A \n "


@pytest.fixture
def requests() -> list[Request]:
    """Two letter units of one task, and a cloze one."""
    letters = [
        Request(
            f"q{index}", "herbs", "fr", 1, seed, "letter",
            f"{OPENING}**Question:** {seed} bark, {'rest ' * index}🌿\u2028 \n **Answer:**(",
            ("A", "B", "C"), index % 3,
        )
        for seed in (1, 2)
        for index in range(4)
    ]  # fmt: skip
    cloze = [
        dataclasses.replace(
            request, scoring="cloze", continuations=(" bark", " cold water"),
            prompt=request.prompt.removesuffix("("), gold=0,
        )
        for request in letters[:4]
    ]  # fmt: skip
    return [*letters, *cloze]


class _Loader(yaml.SafeLoader):
    """As the harness reads YAML, the function left as its name."""


_Loader.add_constructor("!function", lambda loader, node: f"!{node.value}")


def _read(folder: Path, name: str) -> tuple[dict, list[dict]]:
    lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.load(text, _Loader), [json.loads(line) for line in lines]


def test_each_unit_is_a_task(requests, tmp_path):
    assert export_tasks(requests, tmp_path) == [
        "biomistral_herbs_fr_1shot_1", "biomistral_herbs_fr_1shot_2",
        "biomistral_herbs_fr_1shot_1_cloze",
    ]  # fmt: skip
    assert (tmp_path / LOADER).is_file()


def test_description_and_rest_are_the_prompt_to_the_byte(requests, tmp_path):
    names = export_tasks(requests, tmp_path)
    found = []
    for name in names:
        task, docs = _read(tmp_path, name)
        assert (task["target_delimiter"], task["fewshot_delimiter"], task["num_fewshot"]) == (
            "", "", 0,
        )  # fmt: skip
        assert task["description"].startswith(OPENING)
        found += [task["description"] + doc[task["doc_to_text"]] for doc in docs]
    assert found == [request.prompt for request in requests]


def test_choices_gold_and_names_are_there(requests, tmp_path):
    _, docs = _read(tmp_path, export_tasks(requests, tmp_path)[1])
    for doc, request in zip(docs, requests[4:8], strict=True):
        assert doc["choices"] == ["A", "B", "C"]
        assert (doc["gold"], doc["question_id"], doc["seed"]) == (
            request.gold, request.question_id, 2,
        )  # fmt: skip


def test_letters_are_compared_by_sum_and_texts_by_byte(requests, tmp_path):
    names = export_tasks(requests, tmp_path)
    metrics = [_read(tmp_path, name)[0]["metric_list"][0]["metric"] for name in names]
    assert metrics == ["acc", "acc", "acc_bytes"]


def test_what_the_harness_would_read_as_code_is_not_in_the_description(requests, tmp_path):
    asked = [dataclasses.replace(r, prompt="{{ x }} " + r.prompt) for r in requests[:4]]
    task, docs = _read(tmp_path, export_tasks(asked, tmp_path)[0])
    assert task["description"] == ""
    assert [doc["prompt"] for doc in docs] == [request.prompt for request in asked]


def test_one_question_keeps_some_text_of_its_own(requests, tmp_path):
    task, [doc] = _read(tmp_path, export_tasks(requests[:1], tmp_path)[0])
    assert doc["prompt"] == "("
    assert task["description"] + doc["prompt"] == requests[0].prompt


def test_control_tokens_of_a_chat_are_exported_as_their_characters(requests, tmp_path):
    chat = [dataclasses.replace(r, prompt=mark("<|user|>") + r.prompt) for r in requests[:4]]
    task, docs = _read(tmp_path, export_tasks(chat, tmp_path)[0])
    found = [task["description"] + doc["prompt"] for doc in docs]
    assert found == [f"<|user|>{request.prompt}" for request in requests[:4]]


def test_the_published_rule_cannot_be_exported(requests, tmp_path):
    asked = [dataclasses.replace(requests[0], scoring="published")]
    with pytest.raises(InputError, match="has no such rule; export letter or cloze"):
        export_tasks(asked, tmp_path)


def _harness() -> list[str]:
    """Command that runs lm-evaluation-harness; BIOMISTRAL_LM_EVAL names one of another place."""
    if named := os.environ.get("BIOMISTRAL_LM_EVAL"):
        return [named]
    if importlib.util.find_spec("lm_eval") is not None:
        return [sys.executable, "-m", "lm_eval"]
    found = shutil.which("lm_eval")
    if found is None:
        pytest.skip("lm_eval is not installed; set BIOMISTRAL_LM_EVAL to its command")
    return [found]


@pytest.mark.slow
def test_the_harness_sees_the_same_prompts_and_finds_the_same_accuracies(
    requests, tiny_model, tmp_path
):
    command = _harness()
    export_tasks(requests, tmp_path / "exported")
    (tmp_path / "exported").rename(tmp_path / "moved")
    subprocess.run(
        [
            *command, "--model", "hf", "--model_args", f"pretrained={tiny_model},dtype=float32",
            "--include_path", tmp_path / "moved", "--tasks", "biomistral", "--log_samples",
            "--output_path", tmp_path / "samples", "--device", "cpu", "--batch_size", "1",
        ],
        check=True, capture_output=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
    )  # fmt: skip
    samples = sorted((tmp_path / "samples").rglob("samples_*.jsonl"))
    [results] = (tmp_path / "samples").rglob("results_*.json")
    out = import_samples(samples, tmp_path / "theirs", name="tiny", names=Names(None))
    theirs = {_key(p): p for p in read_records(out / "predictions.parquet", Prediction)}
    settings = EvaluateSettings(models=["tiny"], precision="float32")
    out = predict(settings, tiny_model, requests, tmp_path / "ours", name="tiny")
    ours = {_key(p): p for p in read_records(out / "predictions.parquet", Prediction)}
    assert theirs.keys() == ours.keys()
    for key, prediction in ours.items():
        assert theirs[key].logprobs == pytest.approx(prediction.logprobs, abs=1e-4)
        assert theirs[key].gold == prediction.gold
    found = json.loads(results.read_text())["results"]["biomistral_herbs_fr_1shot_2"]["acc,none"]
    unit = [p for p in ours.values() if (p.seed, p.scoring) == (2, "letter")]
    right = [max(range(3), key=p.logprobs.__getitem__) == p.gold for p in unit]
    assert found == pytest.approx(sum(right) / len(right))


def _key(prediction: Prediction) -> tuple[object, ...]:
    return prediction.question_id, prediction.language, prediction.seed, prediction.scoring
