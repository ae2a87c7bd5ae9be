from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
import urllib.error

import pytest

from biomistral.errors import InputError, MissingDependencyError
from biomistral.evaluation import predict
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.loading import load_tokenizer
from biomistral.recipe.endpoints import EndpointModel
from biomistral.recipe.settings import EvaluateSettings
from biomistral.records import Prediction, Request, read_records
from biomistral.serving.backends import command
from biomistral.serving.options import ServeOptions

KEY = "a-key-of-some-length"
PRINTS = """#!{python}
import json, os, sys
keys = [os.environ.get(name) for name in ("VLLM_API_KEY", "LLAMA_API_KEY")]
print(json.dumps([sys.argv[1:], keys]))
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Programs of both names that print how they were started."""
    for variable in ("VLLM_NO_USAGE_STATS", "LLAMA_ARG_KV_UNIFIED", "LLAMA_ARG_CORS_ORIGINS"):
        monkeypatch.delenv(variable, raising=False)
    for name in ("vllm", "llama-server"):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(PRINTS.format(python=sys.executable))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


def _value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_vllm_gets_the_matching_flags(installed, tiny_model) -> None:
    options = ServeOptions(port=9, max_batch=3, name="mine", revision="abc", api_key=KEY)
    words, environment = command("vllm", str(tiny_model), options)
    assert words[1:3] == ["serve", str(tiny_model)]
    assert _value(words, "--port") == "9"
    assert _value(words, "--max-num-seqs") == "3"
    assert _value(words, "--served-model-name") == "mine"
    assert _value(words, "--revision") == "abc"
    assert _value(words, "--allowed-origins") == "[]"
    assert environment == {"VLLM_API_KEY": KEY, "VLLM_NO_USAGE_STATS": "1"}
    assert KEY not in words


def test_llama_cpp_gets_the_one_gguf_file(installed, tmp_path) -> None:
    file = tmp_path / "small.gguf"
    file.touch()
    for place in (file, tmp_path):
        words, environment = command("llama.cpp", str(place), ServeOptions(timeout_seconds=9))
        assert _value(words, "--model") == str(file)
        assert _value(words, "--alias") == "small"
        assert _value(words, "--timeout") == "9"
        assert environment == {
            "LLAMA_ARG_KV_UNIFIED": "1",
            "LLAMA_ARG_CORS_ORIGINS": "localhost",
        }
    (tmp_path / "other.gguf").touch()
    with pytest.raises(InputError, match=r"needs one GGUF file.*other.gguf, small.gguf"):
        command("llama.cpp", str(tmp_path), ServeOptions())


def test_what_the_user_has_set_for_a_server_stays(installed, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_KV_UNIFIED", "0")
    (tmp_path / "small.gguf").touch()
    _, environment = command("llama.cpp", str(tmp_path), ServeOptions())
    assert environment == {"LLAMA_ARG_CORS_ORIGINS": "localhost"}


def test_a_model_that_is_no_gguf_is_refused(installed, tiny_model) -> None:
    with pytest.raises(InputError, match=r"needs one GGUF file.*there is none"):
        command("llama.cpp", str(tiny_model), ServeOptions())


@pytest.mark.parametrize(
    ("backend", "change", "flag"),
    [
        ("vllm", {"ui": True}, "--ui"),
        ("vllm", {"queue": 5}, "--queue"),
        ("vllm", {"timeout_seconds": 5}, "--timeout"),
        ("llama.cpp", {"precision": "float32"}, "--precision"),
        ("llama.cpp", {"max_body_bytes": 5000}, "--max-body"),
    ],
)
def test_options_without_a_counterpart_are_refused(installed, backend, change, flag) -> None:
    with pytest.raises(InputError, match=f"has nothing like {flag};"):
        command(backend, "m", ServeOptions(**change))


@pytest.mark.parametrize(
    ("backend", "remedy"),
    [("vllm", r"pip install 'biomistral\[vllm\]'"), ("llama.cpp", "llama.cpp/")],
)
def test_a_server_that_is_not_installed_comes_with_its_remedy(
    monkeypatch, tmp_path, backend, remedy
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "m.gguf").touch()
    with pytest.raises(MissingDependencyError, match=remedy):
        command(backend, str(tmp_path / "m.gguf"), ServeOptions())


def test_the_process_becomes_the_server(installed, tiny_model) -> None:
    arguments = ["serve", str(tiny_model), "--backend", "vllm", "--api-key", KEY, "--port", "7"]
    done = subprocess.run(
        [sys.executable, "-m", "biomistral", *arguments], capture_output=True, text=True, check=True
    )
    assert '"--port", "7"' in done.stdout
    assert f'["{KEY}", null]' in done.stdout


# --- the servers themselves, where they are installed ---------------------------------------------


def _if_there(backend: str, program: str):
    reason = f"{program} is not on the PATH"
    return pytest.param(
        backend, marks=pytest.mark.skipif(shutil.which(program) is None, reason=reason)
    )


@pytest.fixture(params=[_if_there("vllm", "vllm"), _if_there("llama.cpp", "llama-server")])
def other_server(request, run_serve, client_of, trained_model, tmp_path):
    """A client of the trained model as another server serves it."""
    backend = request.param
    place, words = trained_model, ["--precision", "float32"]
    if backend == "llama.cpp":
        pytest.importorskip("gguf", reason="pip install 'biomistral[quantization]'")
        from biomistral.quantization.gguf_writing import write_gguf

        place, words = tmp_path / "valley.gguf", []
        tokenizer = load_tokenizer(trained_model)
        write_gguf(Checkpoint(trained_model), place, "bf16", name="valley", tokenizer=tokenizer)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words += ["--backend", backend, "--port", str(port), "--max-batch", "4"]
    process = run_serve(str(place), *words, BIOMISTRAL_API_KEY=KEY)
    client = client_of(f"http://127.0.0.1:{port}", KEY)
    deadline = time.monotonic() + 400
    while not _is_up(client):
        assert process.poll() is None, process.stdout.read()[-3000:]
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(1)
    yield client
    process.terminate()  # which takes its children along
    process.communicate(timeout=60)


def _is_up(client) -> bool:
    try:
        return client.send("/health")[0] == 200
    except urllib.error.URLError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_server_itself_answers_as_our_own_engine_does(
    other_server, trained_model, monkeypatch, tmp_path
) -> None:
    client = other_server
    client.key = None
    assert client.send("/v1/models")[0] == 401
    client.key = KEY
    assert [model["id"] for model in client.get("/v1/models")[1]["data"]] == ["valley"]
    body = {"model": "valley", "prompt": "The fever of the river", "max_tokens": 8}
    _, answer = client.post("/v1/completions", {**body, "temperature": 0})
    assert answer["choices"][0]["text"].startswith(" valley is treated")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    requests = [
        Request(f"q{n}", "herbs", "en", 0, 1, "letter", f"The {w} is treated with (", ("A", "B"), 0)
        for n, w in enumerate(("fever", "cold", "valley"))
    ]
    served = EndpointModel(endpoint=f"{client.base}/v1", model="valley", api="completions")
    found = []
    for model in (trained_model, served):
        settings = EvaluateSettings(models=["m"], precision="float32")
        out = predict(settings, model, requests, tmp_path / str(len(found)), name="m")
        found.append(list(read_records(out / "predictions.parquet", Prediction)))
    for own, other in zip(*found, strict=True):
        # Over an API a letter's number is that of all tokens that read so; the GGUF file is bfloat16.
        assert other.logprobs == pytest.approx(own.logprobs, abs=0.05)
