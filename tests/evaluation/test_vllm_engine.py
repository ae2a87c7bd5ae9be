"""Our side of the contract with vLLM, against a stand-in that answers by the bytes of a small model."""

from __future__ import annotations

import multiprocessing
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from biomistral.errors import MissingDependencyError
from biomistral.evaluation import Keeping, predict
from biomistral.evaluation.vllm_engine import VllmEngine
from biomistral.models.continuations import TextEncoder
from biomistral.models.loading import load_tokenizer
from biomistral.models.scoring import score_requests
from biomistral.progress import ignore
from biomistral.recipe.settings import EvaluateSettings
from biomistral.records import Prediction, Request, read_records


def _requests(scoring, continuations=("A", "B")):
    return [
        Request(f"q{i}", "plants", "en", 0, 1, scoring, f"{'bark ' * i}Answer:(", continuations, 0)
        for i in range(3)
    ]


@pytest.fixture
def vllm(monkeypatch, tiny_model):
    """A module of that name whose model is a true one, read token by token."""
    module = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    module.__version__ = "0.0"
    module.opened, module.closed = [], []

    class LLM:
        def __init__(self, model, dtype, enable_prefix_caching, max_logprobs):
            module.opened.append((model, dtype, enable_prefix_caching))
            self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
            config = SimpleNamespace(max_model_len=self.model.config.max_position_embeddings)
            core = SimpleNamespace(shutdown=lambda: module.closed.append(model))
            self.llm_engine = SimpleNamespace(model_config=config, engine_core=core)

        def generate(self, prompts, params, use_tqdm):
            each = params if isinstance(params, list) else [params] * len(prompts)
            return [self.one(p["prompt_token_ids"], q) for p, q in zip(prompts, each, strict=True)]

        def one(self, ids, params):
            with torch.inference_mode():
                logits = self.model(torch.tensor([ids])).logits[0].double()
            rows = logits.log_softmax(-1)
            best = int(rows[-1].argmax())
            wanted = [best, *getattr(params, "logprob_token_ids", [])]
            first = {i: SimpleNamespace(logprob=float(rows[-1, i])) for i in wanted}
            read = [None] + [
                {index: SimpleNamespace(logprob=float(row[index]))}
                for row, index in zip(rows, ids[1:], strict=False)
            ]
            completion = SimpleNamespace(logprobs=[first], token_ids=[best])
            return SimpleNamespace(outputs=[completion], prompt_logprobs=read)

    module.LLM = LLM
    module.SamplingParams = SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


SCORINGS = [("letter", ("A", "B")), ("published", ("A", "B")), ("cloze", (" bark", " thé froid"))]


def _check(engine, folder, scoring, continuations):
    """The engine finds what the one of our own does."""
    requests = _requests(scoring, continuations)
    kept = {}

    def keep(indices, rows, tops):
        kept.update(zip(indices, zip(rows, tops, strict=True), strict=True))

    engine.score(requests, keep=keep, progress=ignore)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    own = score_requests(model, TextEncoder(load_tokenizer(folder)), requests)
    assert sorted(kept) == list(range(len(requests)))
    for index, (row, top) in kept.items():
        assert row == pytest.approx(own.logprobs[index], abs=1e-4)
        if scoring == "published":
            assert top == own.tops[index]


@pytest.mark.parametrize(("scoring", "continuations"), SCORINGS)
def test_answers_equal_those_of_the_engine_of_our_own(vllm, tiny_model, scoring, continuations):
    engine = VllmEngine(tiny_model, precision="float32")
    _check(engine, tiny_model, scoring, continuations)
    assert vllm.opened == [(str(tiny_model), "float32", True)]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed")
def test_answers_of_vllm_itself_equal_those_of_the_engine_of_our_own(make_model, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GB
    folder = make_model(0, num_attention_heads=2, num_key_value_heads=1)  # wide enough for it
    engine = VllmEngine(folder, precision="float32", enforce_eager=True)
    for scoring, continuations in SCORINGS:
        _check(engine, folder, scoring, continuations)
    children = set(multiprocessing.active_children())
    engine.close()
    assert len(children - set(multiprocessing.active_children())) == 1, "its process goes on"


def test_a_text_must_leave_room_for_the_token_that_is_generated(vllm, tiny_model, monkeypatch):
    engine = VllmEngine(tiny_model, precision="float32")
    (request,) = _requests("cloze", (" bark", " cold water"))[:1]
    length = len(load_tokenizer(tiny_model)(f"{request.prompt} cold water")["input_ids"])
    for limit, found in ((length + 1, {}), (length, {0: length})):
        monkeypatch.setattr(VllmEngine, "context_tokens", limit)
        assert engine.too_long([request]) == found


def test_without_vllm_the_error_says_how_to_get_it(tiny_model, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'biomistral\[vllm\]'"):
        VllmEngine(tiny_model)


def test_a_setting_chooses_it_and_its_answers_are_kept_apart(vllm, tiny_model, tmp_path):
    requests = _requests("letter")
    rows = {}
    for engine in ("own", "vllm", "own"):
        settings = EvaluateSettings(models=["m"], precision="float32", engine=engine)
        keeping = Keeping(tmp_path / "units")
        out = predict(settings, tiny_model, requests, tmp_path / engine, name="m", keeping=keeping)
        found = list(read_records(out / "predictions.parquet", Prediction))
        rows[engine] = [p.logprobs for p in found]
    assert vllm.opened == [(str(tiny_model), "float32", True)]
    assert vllm.closed == [str(tiny_model)], "the next model finds no room"
    assert np.allclose(rows["own"], rows["vllm"], atol=1e-4)
    assert len(list((tmp_path / "units").glob("*.parquet"))) == 2


def test_a_run_without_vllm_ends_before_anything_is_made(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    settings = EvaluateSettings(models=["m"], engine="vllm")
    with pytest.raises(MissingDependencyError, match=r"pip install 'biomistral\[vllm\]'"):
        predict(settings, tiny_model, _requests("letter"), tmp_path / "out", name="m")
    assert not (tmp_path / "out").exists()
