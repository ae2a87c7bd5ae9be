from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from biomistral.recipe.merging import FilteredValue, MergeSettings, parameter_numbers

MERGE: TypeAdapter[Any] = TypeAdapter(MergeSettings)


def _entry(method: str, **changes: Any) -> dict[str, Any]:
    entry = {"name": "m", "method": method, "base": "a", "models": [{"model": "b"}]}
    return {**entry, **changes}


@pytest.mark.parametrize(
    ("method", "class_name", "more"),
    [
        ("linear", "LinearMerge", {"models": [{"model": "b"}, {"model": "c"}]}),
        ("slerp", "SlerpMerge", {"t": 0.5}),
        ("task_arithmetic", "TaskArithmeticMerge", {}),
        ("ties", "TiesMerge", {}),
        ("dare_ties", "DareMerge", {}),
        ("dare_linear", "DareMerge", {}),
        ("breadcrumbs", "BreadcrumbsMerge", {}),
        ("breadcrumbs_ties", "BreadcrumbsMerge", {"models": [{"model": "b", "gamma": [0, 0.1]}]}),
        ("della", "DellaMerge", {}),
        ("della_linear", "DellaMerge", {"models": [{"model": "b", "epsilon": 0.1}]}),
        ("model_stock", "ModelStockMerge", {"models": [{"model": "b"}, {"model": "c"}]}),
        ("sce", "SceMerge", {"select_topk": 0.5}),
        ("nuslerp", "NuslerpMerge", {"models": [{"model": "b"}, {"model": "c"}]}),
        ("multislerp", "MultislerpMerge", {"models": [{"model": "b"}, {"model": "c"}]}),
        ("karcher", "KarcherMerge", {"models": [{"model": "b"}, {"model": "c"}]}),
        ("nearswap", "NearswapMerge", {"t": 0.001}),
        ("passthrough", "PassthroughMerge", {"models": [{"model": "b", "layers": [0, 2]}]}),
    ],
)
def test_the_method_chooses_the_settings(method: str, class_name: str, more: Any) -> None:
    assert type(MERGE.validate_python(_entry(method, **more))).__name__ == class_name


@pytest.mark.parametrize(
    ("t", "numbers"),
    [
        (0.5, [0.5]),
        (1, [1.0]),
        ([0, 0.5, 1], [0.0, 0.5, 1.0]),
        ([{"filter": "mlp", "value": [0, 1]}, {"value": 0.3}], [0.0, 1.0, 0.3]),
    ],
)
def test_a_parameter_is_a_number_a_gradient_or_filters(t: Any, numbers: list[float]) -> None:
    assert parameter_numbers(MERGE.validate_python(_entry("slerp", t=t)).t) == numbers


@pytest.mark.parametrize("t", [-0.1, 1.1, [0, 2], [{"filter": "mlp", "value": [0, 2]}]])
def test_t_is_a_fraction_wherever_it_stands(t: Any) -> None:
    with pytest.raises(ValidationError, match=r"outside \[0, 1\]"):
        MERGE.validate_python(_entry("slerp", t=t))


@pytest.mark.parametrize("density", [0, -1, 1.5, [0.5, 0]])
def test_a_density_of_nothing_is_refused(density: Any) -> None:
    models = [{"model": "b", "density": density}]
    with pytest.raises(ValidationError, match=r"outside \(0, 1\]"):
        MERGE.validate_python(_entry("ties", models=models))


@pytest.mark.parametrize(
    ("method", "models"),
    [
        ("slerp", [{"model": "b", "weight": 1}]),
        ("task_arithmetic", [{"model": "b", "density": 1}]),
    ],
)
def test_an_option_without_effect_is_an_error(method: str, models: Any) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        MERGE.validate_python(
            _entry(method, models=models, **({"t": 1} if method == "slerp" else {}))
        )


def test_slerp_is_between_two_models() -> None:
    models = [{"model": "b"}, {"model": "c"}]
    with pytest.raises(ValidationError, match="at most 1 item"):
        MERGE.validate_python(_entry("slerp", models=models, t=0.5))


def test_settings_come_back_from_what_a_manifest_keeps() -> None:
    entry = MERGE.validate_python(_entry("slerp", t=[{"filter": "mlp", "value": [0, 1]}]))
    assert MERGE.validate_python(entry.model_dump(mode="json")) == entry
    assert entry.t == [FilteredValue(filter="mlp", value=[0, 1])]


def test_an_empty_list_is_refused() -> None:
    for empty in ([], [{"value": []}]):
        with pytest.raises(ValidationError, match="at least 1 item"):
            MERGE.validate_python(_entry("slerp", t=empty))


@pytest.mark.parametrize("layers", [[0], [2, 2], [3, 1], [-1, 2], [0, 1, 2]])
def test_layers_are_a_range(layers: Any) -> None:
    models = [{"model": "b", "layers": layers}]
    with pytest.raises(ValidationError, match=r"no range of layers|greater than or equal to 0"):
        MERGE.validate_python(_entry("passthrough", models=models))
