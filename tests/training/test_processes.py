"""Two processes train as one does, only the first writes, and a model can be sharded."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from biomistral import artifacts
from biomistral.recipe.settings import DpoSettings, PretrainSettings, SftSettings
from biomistral.training import fine_tune, prefer, pretrain, processes

ROOT = Path(__file__).parents[2]

# Two processes that are forked from one, which has imported everything: an import takes seconds.
# (torchrun itself is tried in tests/cli/test_launching.py.)
FORKED = """
import os, socket, sys, traceback

def in_two_processes(work):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in ("0", "1"):
        child = os.fork()
        if child:
            children.append(child)
            continue
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        os.environ.update(place, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return [os.waitpid(child, 0)[1] for child in children]
"""

TRAIN = (
    FORKED
    + """
import signal, warnings
from pathlib import Path
from biomistral.recipe.settings import PretrainSettings
from biomistral.training import pretrain

settings, model, corpus, out = sys.argv[1:]
settings = PretrainSettings.model_validate_json(settings)
model, corpus, out = Path(model), Path(corpus), Path(out)

def train_until(step):
    def listen(done, total, text):
        if total is not None and done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pretrain(settings, model, corpus, out, progress=listen)
        said = "\\n".join(str(w.message) for w in caught)
        (out.parent / f"warned-{os.environ['RANK']}").write_text(said)

first, second = in_two_processes(lambda: train_until(5))
assert (os.WTERMSIG(first), second != 0) == (signal.SIGKILL, True), (first, second)
assert not out.exists()
assert in_two_processes(lambda: train_until(None)) == [0, 0]
"""
)

TUNE = (
    FORKED
    + """
import pickle, signal
from pathlib import Path
import trl.trainer.dpo_trainer
from biomistral.recipe.settings import DpoSettings, SftSettings
from biomistral.training import fine_tune, prefer

sft, dpo, model, asked, out = sys.argv[1:]
sft, dpo = SftSettings.model_validate_json(sft), DpoSettings.model_validate_json(dpo)
model, asked, out = Path(model), pickle.loads(Path(asked).read_bytes()), Path(out)

def until(step):
    def listen(done, total, text):
        if total is not None and done == step:
            os.kill(os.getpid(), signal.SIGKILL)
    return listen

def tune(step=None):
    fine_tune(sft, model, out / "sft", requests=asked, progress=until(step))

def tune_by_preference(step=None):
    prefer(dpo, model, out / "dpo", requests=asked, progress=until(step))

for work in (tune, tune_by_preference):
    first, second = in_two_processes(lambda: work(3))
    assert (os.WTERMSIG(first), second != 0) == (signal.SIGKILL, True), (first, second)
    assert not list(out.glob("sft" if work is tune else "dpo"))
    assert in_two_processes(work) == [0, 0]
"""
)

SHARD = (
    FORKED
    + """
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM
from biomistral.training.attention import keep_documents_apart, lay_out
from biomistral.training.cross_entropy import use_blocked_loss

def opened():
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
    keep_documents_apart(model)
    use_blocked_loss(model)
    return model

def loss_of(model, rows):
    documents = lay_out([10, 14] * len(rows))
    return model(input_ids=rows, labels=rows, documents=documents, use_cache=False).loss

def shard():
    dist.init_process_group("gloo")
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    ids = torch.randint(3, 300, (2, 24), generator=torch.Generator().manual_seed(0))
    whole, sharded = opened(), opened()
    for layer in sharded.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    for parameter in sharded.parameters():
        assert isinstance(parameter, DTensor) and parameter.to_local().numel() < parameter.numel()
    own = ids[dist.get_rank():][:1]
    expected = loss_of(whole, ids)
    expected.backward()
    loss = loss_of(sharded, own)
    loss.backward()
    total = loss.detach().clone()
    dist.all_reduce(total)
    assert torch.allclose(total / 2, expected, atol=1e-5), (total / 2, expected)
    for (name, one), other in zip(sharded.named_parameters(), whole.parameters(), strict=True):
        assert torch.allclose(one.grad.full_tensor(), other.grad, atol=1e-5), name
    dist.destroy_process_group()

assert in_two_processes(shard) == [0, 0]
"""
)


def run_code(code: str, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]


def settings_of(**changes: object) -> PretrainSettings:
    values = {
        "name": "trained",
        "model": "base",
        "epochs": 1,
        "learning_rate": 3e-3,
        "rows_per_step": 4,
        "precision": "float32",
        "save_every_steps": 2,
        **changes,
    }
    return PretrainSettings.model_validate(values)


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_and_go_on_after_a_kill(
    tiny_model, make_tokens, tmp_path
):
    tokens, settings = make_tokens(22, 3), settings_of()  # the last of 6 steps has 2 rows
    one = pretrain(settings, tiny_model, tokens, tmp_path / "one")
    (tmp_path / "pair").mkdir()
    out = tmp_path / "pair" / "out"
    arguments = (settings.model_dump_json(exclude_unset=True), tiny_model, tokens, out)
    run_code(TRAIN, *arguments)
    assert {path.name for path in out.parent.iterdir()} == {"out", "warned-0", "warned-1"}
    manifest = artifacts.read_manifest(out)
    assert manifest is not None
    assert (manifest["resumed"], manifest["counts"]["processes"]) == (True, 2)
    for ours, expected in zip(log_of(out), log_of(one), strict=True):
        assert ours.keys() == expected.keys()
        for key in ("loss", "learning_rate", "step", "tokens"):
            assert ours.get(key) == pytest.approx(expected.get(key), abs=1e-5), (key, ours["step"])
        for corpus, loss in expected.get("held_out_loss", {}).items():
            assert ours["held_out_loss"][corpus] == pytest.approx(loss, abs=1e-5)
    weights = load_file(one / "model.safetensors")
    for name, tensor in load_file(out / "model.safetensors").items():
        assert float((tensor - weights[name]).abs().max()) < 1e-3, name
    # What is asked for cannot be had on a CPU, and the library would say nothing.
    assert "on a CPU the Trainer does not shard a model" in (out.parent / "warned-0").read_text()


@pytest.mark.slow
def test_tuning_in_two_processes_is_that_of_one_and_goes_on_after_a_kill(
    tiny_model, asked, tmp_path
):
    common = {
        "name": "tuned",
        "model": "base",
        "questions": "all",
        "learning_rate": 3e-3,
        "precision": "float32",
        "save_every_steps": 2,
    }
    # Of 12 questions the last step of an epoch has fewer, which one row and one pair fill up.
    sft = SftSettings.model_validate(
        {**common, "method": "full", "packing": False, "epochs": 2, "rows_per_step": 5}
        | {"sequence_length": 64, "accumulation_steps": 2, "jeffreys_weight": 0.5}
    )
    dpo = DpoSettings.model_validate(
        {**common, "epochs": 2, "rows_per_step": 4, "accumulation_steps": 2}
    )
    one = {
        "sft": fine_tune(sft, tiny_model, tmp_path / "one" / "sft", requests=asked),
        "dpo": prefer(dpo, tiny_model, tmp_path / "one" / "dpo", requests=asked),
    }
    (tmp_path / "asked").write_bytes(pickle.dumps(asked))
    settings = [each.model_dump_json(exclude_unset=True) for each in (sft, dpo)]
    run_code(TUNE, *settings, tiny_model, tmp_path / "asked", tmp_path / "pair")
    for name, alone in one.items():
        out = tmp_path / "pair" / name
        manifest = artifacts.read_manifest(out)
        assert manifest is not None
        assert (manifest["resumed"], manifest["counts"]["processes"]) == (True, 2)
        assert len(log_of(out)) == len(log_of(alone)) > 3
        for ours, expected in zip(log_of(out), log_of(alone), strict=True):
            assert ours == {key: pytest.approx(value, abs=2e-5) for key, value in expected.items()}
        [weights] = alone.glob("*.safetensors")
        for key, tensor in load_file(weights).items():
            other = load_file(out / weights.name)[key]
            assert float((other - tensor).abs().max()) < 1e-3, (name, key)


@pytest.mark.slow
def test_a_model_with_our_attention_and_loss_can_be_sharded(tiny_model):
    run_code(SHARD, tiny_model)


def test_the_launch_line_starts_this_program_in_so_many_processes():
    line = processes.launch_command(8, ["run", "recipe.yaml", "--only", "model/medical"])
    assert line[0] == sys.executable
    assert line[1:3] == ["-m", "torch.distributed.run"]
    assert "--nproc-per-node=8" in line
    assert line[-6:] == ["-m", "biomistral", "run", "recipe.yaml", "--only", "model/medical"]


def test_one_process_is_the_first_and_waits_for_nobody(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (processes.num_processes(), processes.is_first()) == (1, True)
    processes.connect()
    processes.wait_for_all()
