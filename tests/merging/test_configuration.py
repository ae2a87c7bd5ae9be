"""Entries of recipes become the same configurations that YAML becomes."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from biomistral.merging.catalogue import METHODS
from biomistral.merging.config import parse_config
from biomistral.merging.configuration import from_settings
from biomistral.recipe.settings import MergeSettings

PAIR = [{"model": "a"}, {"model": "b"}]
EVERY_METHOD = {
    **{method: {} for method in METHODS},
    "linear": {"models": PAIR},
    "slerp": {"t": 0.5},
    "nearswap": {"t": 0.1},
    **{key: {"models": PAIR} for key in ("nuslerp", "multislerp", "karcher", "model_stock")},
}


def config_of(method, **changes):
    values = {"name": "merged", "method": method, "base": "base", "models": [{"model": "a"}]}
    changed = {**values, **EVERY_METHOD[method], **changes}
    return from_settings(TypeAdapter(MergeSettings).validate_python(changed))


def facts(settings):
    return {
        name: [(entry.filter, entry.values) for entry in setting.entries]
        for name, setting in settings.items()
    }


def test_there_are_settings_for_every_method():
    assert {config_of(method).method for method in EVERY_METHOD} == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_defaults_of_recipes_are_those_of_the_methods(method):
    config = config_of(method)
    parameters = {p.field: p for p in METHODS[method].parameters}
    places = [config.settings, *(source.settings for source in config.slices[0].sources)]
    for name, setting in ((name, s) for place in places for name, s in place.items()):
        default = parameters[name].default
        if default is not None:
            assert setting.values == (default,), name
        assert all(parameters[name].allows(v) for v in setting.values if isinstance(v, float))


@pytest.mark.parametrize("method", METHODS)
def test_a_base_is_a_base_only_where_the_method_has_one(method):
    config = config_of(method)
    (place,) = config.slices
    assert config.donor == config.base == "base"
    assert (place.base is None) == (METHODS[method].base == "none")
    assert place.inputs == place.sources if place.base is None else place.inputs[0].model == "base"


def test_a_recipe_and_its_yaml_say_the_same():
    ours = config_of(
        "dare_ties",
        models=[{"model": "a", "density": 0.5, "weight": [{"filter": "mlp", "value": [0, 1]}]}],
        scale=0.5,
        dtype="bfloat16",
    )
    theirs = parse_config(
        "merge_method: dare_ties\nbase_model: base\nmodels:\n- model: a\n"
        "  parameters: {density: 0.5, weight: [{filter: mlp, value: [0, 1]}]}\n"
        "parameters: {lambda: 0.5, normalize: false, rescale: true}\ndtype: bfloat16"
    )
    assert facts(ours.settings) == facts(theirs.settings)
    (source,), (other,) = ours.slices[0].sources, theirs.slices[0].sources
    assert facts(source.settings) == facts(other.settings)
    assert (ours.dtype, ours.base, ours.donor) == (theirs.dtype, theirs.base, theirs.donor)


def test_layers_of_a_recipe_become_slices():
    models = [{"model": "a", "layers": [0, 3]}, {"model": "b", "layers": [2, 4], "weight": 0.5}]
    config = config_of("passthrough", models=models, base=None)
    ranges = [(place.sources[0].model, place.sources[0].layers) for place in config.slices]
    assert ranges == [("a", (0, 3)), ("b", (2, 4))]
    assert config.donor == "a"


def test_the_base_among_its_own_models_is_warned_of():
    config = config_of("ties", models=[{"model": "base"}, {"model": "a"}])
    assert config.warnings == ("base is the base itself: its task vector is zero",)


def test_only_recipes_name_a_seed():
    assert config_of("della", seed=7).seed == 7
    assert config_of("ties").seed is None
