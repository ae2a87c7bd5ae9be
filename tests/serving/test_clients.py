"""Programs that people have already: OpenAI's client, lm-evaluation-harness, and our own evaluation."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from biomistral.evaluation import predict
from biomistral.evaluation.lm_eval import export_tasks
from biomistral.recipe.endpoints import EndpointModel
from biomistral.recipe.settings import EvaluateSettings
from biomistral.records import Prediction, Request, read_records

openai = pytest.importorskip("openai")


@pytest.fixture
def official(client):
    with openai.OpenAI(base_url=f"{client.base}/v1", api_key="none-needed") as found:
        yield found


def test_openais_client_lists_completes_and_chats(official) -> None:
    assert [model.id for model in official.models.list()] == ["valley"]
    completion = official.completions.create(
        model="valley", prompt="The fever of the river", max_tokens=8, temperature=0, logprobs=2
    )
    assert completion.choices[0].text.startswith(" valley is treated")
    assert len(completion.choices[0].logprobs.token_logprobs) == 8
    messages = [{"role": "user", "content": "fever?"}]
    chat = official.chat.completions.create(
        model="valley", messages=messages, temperature=0, logprobs=True, top_logprobs=2
    )
    assert "bark and rest" in chat.choices[0].message.content
    assert chat.choices[0].logprobs.content[0].top_logprobs[0].logprob <= 0
    # What it gave may be sent back as it is.
    messages = [*messages, chat.choices[0].message.model_dump(exclude_none=True), messages[0]]
    assert official.chat.completions.create(model="valley", messages=messages, max_tokens=3)


def test_openais_client_streams(official) -> None:
    stream = official.chat.completions.create(
        model="valley",
        messages=[{"role": "user", "content": "fever?"}],
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = stream
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert "bark and rest" in said
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage.completion_tokens > 5


def test_openais_client_knows_our_refusals(official, client) -> None:
    with pytest.raises(openai.NotFoundError):
        official.completions.create(model="gpt", prompt="x")
    with pytest.raises(openai.BadRequestError) as refused:
        official.completions.create(model="valley", prompt="fever " * 600)
    assert refused.value.code == "context_length_exceeded"


# --- evaluations ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    prompts = [
        f"The fever of the {word} valley is treated with (" for word in ("river", "cold", "é")
    ]
    letters = [
        Request(f"q{n}", "herbs", "en", 0, 1, "letter", prompt, ("A", "B", "C"), n % 3)
        for n, prompt in enumerate(prompts)
    ]
    cloze = [
        Request(f"q{n}", "herbs", "en", 0, 1, "cloze", prompt[:-2], (" bark", " cold water"), 0)
        for n, prompt in enumerate(prompts)
    ]
    return letters + cloze


@pytest.fixture(scope="module")
def local(trained_model, requests, tmp_path_factory) -> dict[tuple[str, str], Prediction]:
    settings = EvaluateSettings(models=["valley"], precision="float32")
    out = predict(
        settings, trained_model, requests, tmp_path_factory.mktemp("local") / "out", name="valley"
    )
    return _by_key(out)


def _by_key(folder) -> dict[tuple[str, str], Prediction]:
    rows = read_records(folder / "predictions.parquet", Prediction)
    return {(row.question_id, row.scoring): row for row in rows}


def test_our_own_evaluation_of_the_served_model_finds_the_same(
    client, requests, local, tmp_path
) -> None:
    settings = EvaluateSettings(models=["served"])
    model = EndpointModel(endpoint=f"{client.base}/v1", model="valley", api="completions")
    served = _by_key(predict(settings, model, requests, tmp_path / "out", name="served"))
    assert served.keys() == local.keys()
    for key, prediction in served.items():
        if key[1] == "cloze":
            assert prediction.logprobs == pytest.approx(local[key].logprobs, abs=1e-5)
            continue
        # Over an API a letter's number is that of all tokens that read so (" A" and the byte, too).
        assert prediction.logprobs == pytest.approx(local[key].logprobs, abs=0.05)


@pytest.mark.slow
def test_the_harness_finds_the_same_over_its_api_model(
    client, requests, local, trained_model, tmp_path
) -> None:
    command = os.environ.get("BIOMISTRAL_LM_EVAL")
    if not command:
        pytest.skip(
            "set BIOMISTRAL_LM_EVAL to the command of lm_eval, installed with its extra api"
        )
    export_tasks(requests, tmp_path / "tasks")
    model = f"model=valley,base_url={client.base}/v1/completions,tokenizer={trained_model}"
    done = subprocess.run(
        [
            command, "--model", "local-completions", "--model_args",
            f"{model},tokenizer_backend=huggingface,add_bos_token=True,num_concurrent=4,max_retries=1",
            "--include_path", tmp_path / "tasks", "--tasks", "biomistral", "--log_samples",
            "--output_path", tmp_path / "samples",
        ],
        capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OPENAI_API_KEY": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    samples = [
        json.loads(line)
        for file in (tmp_path / "samples").rglob("samples_*.jsonl")
        for line in file.read_text().splitlines()
    ]
    assert len(samples) == len(requests)
    for sample in samples:
        doc = sample["doc"]
        ours = local[doc["question_id"], doc["scoring"]].logprobs
        theirs = [float(answer[0]) for answer in sample["filtered_resps"]]
        if doc["scoring"] == "cloze":
            theirs = [
                total / len(text.encode())
                for total, text in zip(theirs, doc["choices"], strict=True)
            ]
        assert theirs == pytest.approx(ours, abs=1e-4)
