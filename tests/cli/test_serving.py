from __future__ import annotations

import subprocess
import sys

import pytest

from biomistral.cli.app import app
from biomistral.errors import InputError, MissingDependencyError, ModelError


@pytest.fixture
def serve():
    def run(*words: str) -> None:
        app(["serve", *words], standalone_mode=False)

    return run


def test_help_loads_neither_torch_nor_fastapi() -> None:
    code = (
        "import sys\nfrom biomistral.cli.app import app\n"
        "app(['serve', '--help'], standalone_mode=False)\n"
        "assert not {'torch', 'fastapi', 'uvicorn', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--api-key" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "there is no key"),
        (["--backend", "vlm"], 'did you mean "vllm"'),
        (["--max-batch", "0"], "--max-batch 0: is too small"),
        (["--api-key", "short"], "--api-key: has 5 characters"),
        (["--calibration", "nowhere"], "--calibration nowhere: is not there"),
        (["--ui", "--questions", "nowhere"], "--questions nowhere: has no questions.parquet"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_model_is_read(
    serve, tmp_path, words, said
) -> None:
    with pytest.raises(InputError, match=said):
        serve(str(tmp_path), *words)


def test_a_folder_without_a_model_is_refused(serve, tmp_path) -> None:
    with pytest.raises(ModelError, match=str(tmp_path)):
        serve(str(tmp_path), "--port", "0")


def test_a_missing_library_comes_with_its_pip_line(serve, tiny_model, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *_: None if name == "uvicorn" else object()
    )
    with pytest.raises(MissingDependencyError, match=r"pip install 'biomistral\[serving\]'"):
        serve(str(tiny_model))
