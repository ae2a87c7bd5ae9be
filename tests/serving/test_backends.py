from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from biomistral.errors import InputError, MissingDependencyError
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
    assert environment == {"VLLM_API_KEY": KEY}
    assert KEY not in words


def test_llama_cpp_gets_the_one_gguf_file(installed, tmp_path) -> None:
    file = tmp_path / "small.gguf"
    file.touch()
    for place in (file, tmp_path):
        words, environment = command("llama.cpp", str(place), ServeOptions(timeout_seconds=9))
        assert _value(words, "--model") == str(file)
        assert _value(words, "--alias") == "small"
        assert _value(words, "--timeout") == "9"
        assert environment == {}
    (tmp_path / "other.gguf").touch()
    with pytest.raises(InputError, match=r"needs one GGUF file.*other.gguf, small.gguf"):
        command("llama.cpp", str(tmp_path), ServeOptions())


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
