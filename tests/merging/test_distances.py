from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from biomistral import artifacts
from biomistral.merging import measure_distances
from biomistral.merging.distances import ALL, DISTANCES
from biomistral.records import LayerDistance, read_records

UP = "model.layers.1.mlp.up_proj.weight"


def _changed(model: Path, folder: Path, name: str, factor: float) -> Path:
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    weights[name] = factor * weights[name]
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def rows(tiny_model: Path, tmp_path_factory) -> dict[tuple[str, str, str], LayerDistance]:
    """Distances of a model with one matrix halved to the model as it was and to itself."""
    place = tmp_path_factory.mktemp("models")
    halved = _changed(tiny_model, place / "halved", UP, 0.5)
    out = measure_distances(
        "halved", halved, {"start": tiny_model, "itself": halved}, place / "out"
    )
    found = read_records(out / DISTANCES, LayerDistance)
    return {(row.other, row.layer, row.kind): row for row in found}


def test_a_layer_is_as_far_as_its_tensors_together(rows, tiny_model: Path) -> None:
    weights = load_file(tiny_model / "model.safetensors")
    inside = [w.double() for name, w in weights.items() if name.startswith("model.layers.1.")]
    change = 0.5 * weights[UP].double().norm()
    size = math.sqrt(sum(float(w.square().sum()) for w in inside))
    row = rows["start", "model.layers.1", ALL]
    assert row.relative_norm == pytest.approx(float(change) / size, rel=1e-9)
    assert row.num_elements == sum(w.numel() for w in inside)
    whole = math.sqrt(sum(float(w.double().square().sum()) for w in weights.values()))
    assert rows["start", ALL, ALL].relative_norm == pytest.approx(float(change) / whole, rel=1e-9)


def test_the_change_is_found_in_its_layer_and_kind_alone(rows) -> None:
    moved = {key[1:] for key, row in rows.items() if row.relative_norm > 0}
    assert moved == {(ALL, ALL), ("model.layers.1", ALL), ("model.layers.1", "mlp")}


def test_a_model_is_no_way_from_itself(rows) -> None:
    own = [row for (other, _, _), row in rows.items() if other == "itself"]
    assert {(row.relative_norm, row.sign_agreement) for row in own} == {(0.0, 1.0)}


def test_what_cannot_be_compared_is_said_and_stops_nothing(
    tiny_model: Path, tmp_path: Path
) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "config.json").write_text("{}")
    save_file({"x": torch.zeros(2)}, strange / "model.safetensors")
    others = {"strange": strange, "start": tiny_model}
    out = measure_distances("m", tiny_model, others, tmp_path / "out")
    remarks = (artifacts.read_manifest(out) or {})["counts"]["remarks"]
    assert len(remarks) == 1
    assert remarks[0].startswith("m and strange: ")
    assert "no tensor in common" in remarks[0]
    assert str(tmp_path) not in "".join(remarks)
    assert {row.other for row in read_records(out / DISTANCES, LayerDistance)} == {"start"}


def test_tensors_of_another_shape_are_named_by_the_names_of_the_run(
    tiny_model: Path, tmp_path: Path
) -> None:
    longer = shutil.copytree(tiny_model, tmp_path / "x")
    weights = load_file(longer / "model.safetensors")
    weights["extra.weight"] = torch.zeros(2)
    save_file(weights, longer / "model.safetensors")
    out = measure_distances("after", longer, {"before": tiny_model}, tmp_path / "out")
    remarks = (artifacts.read_manifest(out) or {})["counts"]["remarks"]
    assert remarks == ["after and before: not compared, only in after: extra.weight"]


def test_a_model_without_a_number_is_said_to_be_broken(tiny_model: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(tiny_model, tmp_path / "x")
    weights = load_file(broken / "model.safetensors")
    nothing = {name: torch.full_like(values, math.nan) for name, values in weights.items()}
    save_file(nothing, broken / "model.safetensors")
    out = measure_distances("after", broken, {"before": tiny_model}, tmp_path / "out")
    [remark] = (artifacts.read_manifest(out) or {})["counts"]["remarks"]
    assert "NaN or infinity in every tensor of after" in remark
    assert list(read_records(out / DISTANCES, LayerDistance)) == []
