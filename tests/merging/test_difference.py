"""How far two checkpoints are apart: numbers against NumPy, and what cannot be compared in words."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from biomistral.errors import ModelError
from biomistral.merging.difference import (
    Difference,
    as_json,
    by_kind,
    compare,
    kind_of,
    table,
    tensor_difference,
    torch_difference,
)
from biomistral.models.checkpoints import Checkpoint

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def changed(tiny_model, tmp_path):
    """Return a function that copies the tiny model with some of its tensors changed."""

    def make(name="changed", **changes):
        folder = shutil.copytree(tiny_model, tmp_path / name)
        weights = load_file(folder / "model.safetensors")
        for tensor, change in changes.items():
            key = tensor.replace("__", ".")
            weights[key] = change(weights[key])
        save_file(weights, folder / "model.safetensors")
        return folder

    return make


def stored_pair(tmp_path, x, y):
    (tmp_path / "config.json").write_text("{}")
    save_file({"x": x, "y": y}, tmp_path / "model.safetensors")
    tensors = Checkpoint(tmp_path).tensors
    return tensors["x"], tensors["y"]


@pytest.mark.parametrize("num", [1, 63, 4097, 300_001])
def test_the_sums_are_those_of_numpy(tmp_path, num):
    generator = torch.Generator().manual_seed(num)
    x = torch.randn(num, generator=generator).bfloat16()
    y = (x.float() + 0.3 * torch.randn(num, generator=generator)).half()
    y[:: max(1, num // 7)] = 0
    pair = stored_pair(tmp_path, x, y)
    found = tensor_difference(*pair)
    assert found == torch_difference(*pair)
    a, b = x.double().numpy(), y.double().numpy()
    assert found.elements == num
    assert found.relative_norm == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a))
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    assert found.cosine == pytest.approx(a @ b / norms if norms else 0)
    assert found.sign_agreement == np.mean(np.sign(a) == np.sign(b))


def test_a_case_by_hand(tmp_path):
    found = tensor_difference(
        *stored_pair(tmp_path, torch.tensor([3.0, 0.0, 4.0, -0.0]), torch.tensor([3.0, 1, -4, 0]))
    )
    assert found == Difference(elements=4, dot=-7, aa=25, bb=26, dd=65, same_sign=2)
    assert found.relative_norm == pytest.approx(math.sqrt(65) / 5)
    assert found + found == Difference(8, -14, 50, 52, 130, 4)


def test_zeros_have_defined_distances():
    nothing = Difference(4, 0, 0, 0, 0, 4)
    assert (nothing.relative_norm, nothing.cosine, nothing.sign_agreement) == (0, 1, 1)
    only_b = Difference(4, 0, 0, 4, 4, 0)
    assert (only_b.relative_norm, only_b.cosine) == (math.inf, 0)
    assert Difference(0, 0, 0, 0, 0, 0).sign_agreement == 1


def test_a_checkpoint_is_at_distance_zero_from_itself(tiny_model):
    comparison = compare(tiny_model, tiny_model)
    total = comparison.total.difference
    assert (total.relative_norm, total.sign_agreement) == (0, 1)
    assert total.cosine == pytest.approx(1)
    assert total.elements == sum(t.num_elements for t in Checkpoint(tiny_model).tensors.values())
    assert not comparison.remarks


def test_what_changed_is_found_where_it_is(tiny_model, changed):
    comparison = compare(tiny_model, changed(**{UP: lambda weight: weight * 1.5}))
    assert [row.name for row in comparison.rows if row.difference.dd] == [UP]
    row = next(row for row in comparison.rows if row.name == UP)
    assert row.difference.relative_norm == pytest.approx(0.5)
    assert row.difference.cosine == pytest.approx(1)
    assert (row.kind, row.stack, row.layer) == ("mlp", "model.layers.", 1)
    assert [r.name for r in comparison.layers if r.difference.dd] == ["model.layers.1"]
    assert [r.name for r in by_kind(comparison.rows) if r.difference.dd] == ["model.layers.1 mlp"]


def test_layers_stand_between_embeddings_and_head(tiny_model):
    names = [row.name for row in compare(tiny_model, tiny_model).layers]
    assert names == [
        "model.embed_tokens.weight",
        "model.layers.0",
        "model.layers.1",
        "lm_head.weight",
        "model.norm.weight",
    ]


def test_nothing_depends_on_the_number_of_threads(tiny_model, make_model):
    before = torch.get_num_threads()
    found = []
    try:
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            found.append(compare(tiny_model, make_model(1)))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_nan_is_named_and_left_out(tiny_model, changed):
    broken = changed(**{UP: lambda weight: weight.index_fill(0, torch.tensor([1]), math.nan)})
    comparison = compare(tiny_model, broken)
    assert comparison.remarks == (f"not compared, NaN or infinity in changed: {UP}",)
    assert UP not in [row.name for row in comparison.rows]
    assert math.isfinite(comparison.total.difference.dd)
    assert compare(broken, tiny_model).remarks == comparison.remarks


def test_missing_tensors_other_shapes_and_types_are_named(tiny_model, changed):
    folder = changed(
        **{
            "lm_head.weight": lambda weight: weight[:-5],
            "model.norm.weight": lambda weight: weight.to(torch.int8),
        }
    )
    weights = load_file(folder / "model.safetensors")
    weights["extra.weight"] = weights.pop(UP)
    save_file(weights, folder / "model.safetensors")
    rows = weights["lm_head.weight"].shape[0]
    assert compare(tiny_model, folder).remarks == (
        f"not compared, only in {tiny_model.name}: {UP}",
        "not compared, only in changed: extra.weight",
        f"not compared, of different shapes: lm_head.weight [{rows + 5}, 64] and [{rows}, 64]",
        "not compared, not made of plain numbers: model.norm.weight (float32 and int8)",
    )


def test_models_without_a_common_tensor_are_refused(tiny_model, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    save_file({"x": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"have no tensor in common \(not compared, only in"):
        compare(tiny_model, tmp_path)


def test_the_table_has_layers_or_tensors_and_the_total(tiny_model, make_model):
    comparison = compare(tiny_model, make_model(1))
    lines = table(comparison).splitlines()
    assert lines[0] == f"A: {tiny_model.name}   B: {make_model(1).name}"
    assert len({len(line) for line in lines[2:]}) == 1
    total = comparison.total.difference
    assert lines[-1].split() == [
        *("all", "tensors", f"{total.elements:,}", f"{100 * total.relative_norm:.4f}"),
        *(f"{total.cosine:.6f}", f"{100 * total.sign_agreement:.3f}"),
    ]
    assert UP in table(comparison, per_tensor=True)


def test_json_has_no_infinity(tiny_model, changed):
    comparison = compare(changed(**{UP: torch.zeros_like}), tiny_model)
    values = json.loads(json.dumps(as_json(comparison), allow_nan=False))
    row = next(row for row in values["tensors"] if row["name"] == UP)
    assert (row["relative_norm"], row["cosine"], row["layer"]) == (None, 0, 1)
    assert values["total"]["elements"] == comparison.total.difference.elements


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.0.post_attention_layernorm.weight", "norm"),
        ("model.layers.0.self_attn.q_norm.weight", "norm"),
        ("model.layers.0.self_attn.q_proj.weight", "attention"),
        ("h.0.attn.c_attn.weight", "attention"),
        ("h.0.ln_1.weight", "norm"),
        ("h.0.mlp.c_fc.weight", "mlp"),
        ("gpt_neox.layers.0.mlp.dense_h_to_4h.weight", "mlp"),
        ("model.layers.0.block_sparse_moe.experts.3.w1.weight", "mlp"),
        ("model.embed_tokens.weight", "other"),
        ("lm_head.weight", "other"),
    ],
)
def test_kinds_are_read_off_the_names(name, kind):
    assert kind_of(name) == kind


def test_folders_of_one_name_are_told_apart(make_model, tmp_path):
    for label, seed in (("before", 0), ("after", 1)):
        shutil.copytree(make_model(seed), tmp_path / label / "model")
        file = tmp_path / label / "model" / "model.safetensors"
        values = load_file(file)
        values[label] = torch.zeros(1)
        save_file(values, file)
    comparison = compare(tmp_path / "before" / "model", tmp_path / "after" / "model")
    assert (comparison.a, comparison.b) == ("model (before)", "model (after)")
    assert comparison.remarks == (
        "not compared, only in model (before): before",
        "not compared, only in model (after): after",
    )
