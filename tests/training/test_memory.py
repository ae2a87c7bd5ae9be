"""Memory and disk are known before a run, from the shape of the model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from biomistral.errors import ModelError
from biomistral.recipe.settings import DpoSettings, PretrainSettings, SftSettings
from biomistral.training import memory
from biomistral.training.attention import keep_documents_apart, lay_out
from biomistral.training.cross_entropy import use_blocked_loss
from biomistral.training.low_rank import load_learner, num_trained

MISTRAL_7B = memory.Shape(4096, 14336, 32, 32, 8, 128, 32000, is_tied=False)


def settings_of(**changes: object) -> PretrainSettings:
    return PretrainSettings.model_validate({"name": "m", "model": "base", **changes})


def test_the_parameters_of_mistral_7b_are_counted_exactly():
    assert MISTRAL_7B.num_parameters == 7_241_732_096


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_counted_as_the_library_makes_them(tied, make_model):
    folder = make_model(0, tie_word_embeddings=tied)
    shape = memory.shape_of(json.loads((folder / "config.json").read_text()))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert shape is not None
    assert shape.num_parameters == sum(p.numel() for p in model.parameters())


def test_of_an_unknown_shape_nothing_is_said():
    assert memory.shape_of({"model_type": "mamba", "hidden_size": 64}) is None


def kept_bytes(folder, dtype: torch.dtype, num_tokens: int, *, checkpointing: bool) -> int:
    """What autograd really keeps for the backward pass, weights apart."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).train()
    keep_documents_apart(model)
    use_blocked_loss(model)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(3, 300, (1, num_tokens))
    inputs = {"input_ids": ids, "documents": lay_out([num_tokens]), "use_cache": False}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(**inputs, labels=ids)
    return sum(kept.values())


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_activations_are_estimated_near_what_autograd_keeps(precision, make_model):
    changes = {"num_hidden_layers": 4, "hidden_size": 128, "intermediate_size": 448}
    folder = make_model(1, **changes)
    shape = memory.shape_of(json.loads((folder / "config.json").read_text()))
    assert shape is not None
    settings = settings_of(precision=precision, rows_per_step=1)
    needed = memory.estimate(settings, replace(shape, vocabulary=1), 500).activations
    kept = kept_bytes(folder, getattr(torch, precision), 500, checkpointing=False)
    head = shape.vocabulary * shape.hidden * (2 if precision == "bfloat16" else 4)  # its gradient
    assert kept - head == pytest.approx(needed, rel=0.2)


def test_checkpointing_keeps_a_fraction():
    plain = memory.estimate(settings_of(), MISTRAL_7B, 2048).activations
    kept = memory.estimate(settings_of(gradient_checkpointing=True), MISTRAL_7B, 2048).activations
    assert kept < plain / 5


def test_the_published_run_fits_32_gpus_of_80_gigabytes_and_not_one():
    settings = settings_of(
        rows_per_step=32, accumulation_steps=64, precision="mixed", gradient_checkpointing=True
    )
    one = memory.estimate(settings, MISTRAL_7B, 2048)
    many = memory.estimate(settings, MISTRAL_7B, 2048, num_processes=32)
    assert one.fixed == 7_241_732_096 * 18
    assert many.fixed == pytest.approx(one.fixed / 32, rel=1e-6)
    assert many.total < 80e9 < one.total
    with pytest.raises(ModelError) as caught:
        memory.check_fits(one, int(80e9), settings)
    message = str(caught.value)
    for part in (
        "m: training needs about",
        "weights 43.5 GB",
        "80.0 GB",
        "--nproc",
        "rows_per_step",
    ):
        assert part in message
    memory.check_fits(many, int(80e9), settings)


def test_what_is_named_as_a_way_out_is_not_done_already():
    settings = settings_of(gradient_checkpointing=True, precision="bfloat16", rows_per_step=1)
    assert len(memory.remedies(settings)) == 1
    assert len(memory.remedies(settings_of())) == 4


@pytest.mark.parametrize(
    ("rows", "passes", "processes", "expected"),
    [
        (32, 64, 32, (32, 2)),
        (4, 1, 1, (4, 1)),
        (4, 1, 2, (2, 1)),
        (2, 3, 2, (1, 3)),
        (6, 2, 4, (3, 1)),
    ],
)
def test_a_step_has_the_same_rows_however_many_share_it(rows, passes, processes, expected):
    own = memory.split_step(rows, passes, processes)
    assert own == expected
    assert own[0] * own[1] * processes == rows * passes


def test_a_step_that_cannot_be_shared_is_refused():
    with pytest.raises(
        ModelError, match=r"3 rows x 1 cannot be shared evenly by 2 processes; make"
    ):
        memory.split_step(3, 1, 2)


def test_disk_holds_the_checkpoints_kept_one_in_the_making_and_the_model():
    settings = settings_of(save_every_steps=10, keep_checkpoints=2)
    one = memory.checkpoint_bytes(settings, 1000)
    assert one == 12_000
    assert memory.disk_bytes(settings, 1000, 10) == 2_000
    assert memory.disk_bytes(settings, 1000, 11) == one + 2_000
    assert memory.disk_bytes(settings, 1000, 1000) == 3 * one + 2_000


def test_a_checkpoint_is_as_large_as_said(tiny_model, make_tokens, tmp_path):
    from biomistral.training import pretrain

    settings = settings_of(
        precision="float32", rows_per_step=2, save_every_steps=1, tokens=5 * 32, learning_rate=1e-3
    )
    sizes = []

    def look(done: float, total: float | None, text: str) -> None:
        folders = tmp_path.glob(".out.*/.work/checkpoint-1")
        sizes.extend(sum(f.stat().st_size for f in folder.iterdir()) for folder in folders)

    pretrain(settings, tiny_model, make_tokens(4), tmp_path / "out", progress=look)
    shape = memory.shape_of(json.loads((tiny_model / "config.json").read_text()))
    assert shape is not None
    expected = memory.checkpoint_bytes(settings, shape.num_parameters)
    assert max(sizes) == pytest.approx(expected, rel=0.1)


def test_the_memory_of_the_machine_is_known():
    assert 1e8 < memory.host_memory_bytes() < 1e14


def tuning_of(**changes: object) -> SftSettings:
    return SftSettings.model_validate({"name": "m", "model": "base", "questions": "all", **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"rank": 4},
        {"rank": 3, "targets": ["q_proj", "down_proj"], "precision": "float32"},
        {"method": "full", "precision": "float32"},
        {"method": "qlora", "bits": 8, "precision": "float32"},
        {"method": "qlora", "bits": 4},
    ],
)
def test_weights_of_tuning_are_counted_as_the_libraries_hold_them(changes, tiny_model):
    settings = tuning_of(**changes)
    shape = memory.shape_of(json.loads((tiny_model / "config.json").read_text()))
    assert shape is not None
    learner = load_learner(settings, tiny_model, 1)
    assert memory.num_trained(settings, shape) == num_trained(learner)
    held = sum(p.numel() * p.element_size() for p in learner.parameters())
    needed = memory.estimate_tuning(settings, shape)
    assert needed.weights == pytest.approx(held, rel=0.01)
    assert (needed.gradients, needed.optimizer) == (
        4 * num_trained(learner),
        8 * num_trained(learner),
    )


def test_the_published_qlora_of_mistral_7b_fits_a_gpu_of_24_gigabytes_and_full_tuning_does_not():
    small = memory.estimate_tuning(
        tuning_of(method="qlora", gradient_checkpointing=True), MISTRAL_7B
    )
    assert memory.num_trained(tuning_of(), MISTRAL_7B) == 41_943_040  # as PEFT counts
    assert 8e9 < small.total < 24e9
    large = memory.estimate_tuning(tuning_of(method="full"), MISTRAL_7B)
    assert large.fixed == 7_241_732_096 * 18
    with pytest.raises(ModelError, match="set method: qlora"):
        memory.check_fits(large, int(80e9), tuning_of(method="full"))
    assert "set bits: 4" in memory.remedies(tuning_of(method="qlora"))


def test_preferring_holds_two_answers_and_their_logits():
    values = {"name": "m", "model": "base", "questions": "all", "method": "full"}
    one = memory.estimate_tuning(tuning_of(method="full"), MISTRAL_7B)
    two = memory.estimate_tuning(DpoSettings.model_validate(values), MISTRAL_7B)
    assert two.weights - one.weights == 4 * MISTRAL_7B.num_parameters
    assert two.activations > 2 * one.activations


def test_a_checkpoint_of_an_adapter_holds_no_more_than_the_adapter():
    settings = tuning_of(save_every_steps=10)
    one = memory.tuning_checkpoint_bytes(settings, MISTRAL_7B)
    assert one == 12 * 41_943_040
    assert memory.tuning_disk_bytes(settings, MISTRAL_7B, 10) == 4 * 41_943_040
    assert memory.tuning_disk_bytes(settings, MISTRAL_7B, 1000) == 3 * one + 4 * 41_943_040
