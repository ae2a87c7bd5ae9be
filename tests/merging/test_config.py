"""mergekit's YAML: what is read, and what is refused by name."""

from __future__ import annotations

import contextlib
import copy
import re
import subprocess
import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from biomistral.errors import InputError, RecipeError
from biomistral.merging.catalogue import METHODS
from biomistral.merging.config import load_config, parse_config

TIES = """
merge_method: ties
base_model: base
models:
  - model: base
  - model: one
    parameters: {weight: 0.3, density: 0.5}
  - model: two
    parameters: {weight: [0.1, 0.9]}
parameters: {density: 0.7, normalize: yes}
dtype: bfloat16
"""
SLERP = """
merge_method: slerp
base_model: base
slices:
  - sources:
      - {model: one, layer_range: [0, 4]}
      - {model: base, layer_range: [0, 4]}
parameters:
  t:
    - {filter: mlp, value: [1, "5e-1", 0]}
    - value: 0.5
"""


def problems(text):
    with pytest.raises(RecipeError) as caught:
        parse_config(text)
    return list(caught.value.problems)


def problem(text):
    (found,) = problems(text)
    return found


def edited(text, old, new):
    assert old in text
    return text.replace(old, new)


# --- what is read ---


def test_the_base_is_told_from_the_models():
    config = parse_config(TIES)
    (place,) = config.slices
    assert place.base.model == "base"
    assert [source.model for source in place.sources] == ["one", "two"]
    assert config.donor == config.base == "base"
    assert list(config.references) == ["base", "one", "two"]
    assert config.warnings == ()


def test_parameters_of_a_model_come_before_those_of_a_slice_and_of_all():
    text = edited(TIES, "models:\n", "slices:\n- parameters: {density: 0.6}\n  sources:\n")
    text = text.replace("- model: ", "- layer_range: [0, 2]\n    model: ")
    config = parse_config(text)
    (place,) = config.slices
    (density,) = [p for p in METHODS["ties"].per_model if p.field == "density"]
    values = [
        [setting.values for setting in config.chain(density, place, source)]
        for source in place.sources
    ]
    assert values == [[(0.5,), (0.6,), (0.7,)], [(0.6,), (0.7,)]]


def test_numbers_and_switches_may_be_text_as_in_yaml_1_1():
    config = parse_config(TIES)
    assert config.settings["normalize"].values == (True,)
    t = parse_config(SLERP).settings["t"]
    assert [(entry.filter, entry.values) for entry in t.entries] == [
        ("mlp", (1.0, 0.5, 0.0)),
        (None, (0.5,)),
    ]


def test_one_filter_needs_no_list():
    text = edited(
        SLERP, '    - {filter: mlp, value: [1, "5e-1", 0]}\n    - value: 0.5', "    value: 1"
    )
    (entry,) = parse_config(text).settings["t"].entries
    assert (entry.filter, entry.values) == (None, (1.0,))


def test_slices_have_layers_and_the_base_of_slerp_may_stand_anywhere():
    (place,) = parse_config(SLERP).slices
    assert (place.base.model, place.base.layers) == ("base", (0, 4))
    assert [(source.model, source.layers) for source in place.sources] == [("one", (0, 4))]


def test_a_base_that_is_not_listed_has_the_layers_of_the_others():
    text = edited(SLERP, "      - {model: base, layer_range: [0, 4]}\n", "")
    (place,) = parse_config(text).slices
    assert (place.base.model, place.base.layers) == ("base", (0, 4))
    config = parse_config(
        "merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\nparameters: {t: 1}"
    )
    assert (config.slices[0].base.model, config.slices[0].base.layers) == ("a", None)


def test_a_slice_may_have_its_own_base():
    text = edited(SLERP, "base_model: base\n", "base_model: one\n")
    text = edited(text, "  - sources:", "  - base_model: base\n    sources:")
    config = parse_config(text)
    assert config.donor == "one"
    assert config.slices[0].base.model == "base"


def test_layers_of_frankenmerges_may_overlap():
    config = parse_config(
        "merge_method: passthrough\nslices:\n"
        "- sources: [{model: a, layer_range: [0, 3]}]\n"
        "- sources: [{model: b, layer_range: [1, 4], parameters: {scale: 0.5}}]\n"
    )
    assert [place.sources[0].layers for place in config.slices] == [(0, 3), (1, 4)]
    assert config.donor == "a"
    assert config.slices[1].sources[0].settings["weight"].values == (0.5,)


@pytest.mark.parametrize("method", ["linear", "karcher"])
def test_a_base_beside_the_models_of_a_mean_is_one_of_them_as_in_mergekit(method):
    models = "base_model: a\nmodels: [{model: b}, {model: c}]\n"
    weight = "parameters: {weight: 1}\n" if method == "linear" else ""
    config = parse_config(f"merge_method: {method}\n{models}{weight}")
    assert [source.model for source in config.slices[0].sources] == ["b", "c", "a"]
    (warning,) = config.warnings
    assert "takes it as one more of them" in warning


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ("", None),
        ("dtype: bfloat16", "bfloat16"),
        ("dtype: float32\nout_dtype: torch.bfloat16", "bfloat16"),
        ("out_dtype: float16", "float16"),
    ],
)
def test_only_the_type_of_the_output_is_chosen(dtypes, expected):
    assert parse_config(edited(TIES, "dtype: bfloat16", dtypes)).dtype == expected


@pytest.mark.parametrize(
    ("text", "source", "multiple"),
    [
        ("tokenizer_source: union", "union", None),
        ("tokenizer_source: two", "two", None),
        ("tokenizer_source: model:two", "two", None),
        ("tokenizer: {source: base, pad_to_multiple_of: 64}", "base", 64),
        ("tokenizer: {}", "union", None),
    ],
)
def test_the_tokenizer_is_chosen_by_either_key(text, source, multiple):
    choice = parse_config(f"{TIES}{text}\n").tokenizer
    assert (choice.source, choice.pad_to_multiple_of) == (source, multiple)


@pytest.mark.parametrize(
    ("given", "rescale"),
    [("true", "density"), ("no", "none"), ("l1_norm", "l1_norm"), ("none", "none")],
)
def test_rescale_of_dare_follows_the_paper_unless_named(given, rescale):
    text = edited(TIES, "merge_method: ties", "merge_method: dare_ties")
    config = parse_config(edited(text, "normalize: yes", f"rescale: {given}"))
    assert config.settings["rescale"].values == (rescale,)


@pytest.mark.parametrize(
    ("method", "option"),
    [("ties", "int8_mask: true"), ("task_arithmetic", "rescale: true"), ("sce", "int8_mask: true")],
)
def test_what_changes_nothing_there_either_is_warned_of(method, option):
    text = f"merge_method: {method}\nbase_model: a\nmodels: [{{model: b}}]\n"
    text += f"parameters: {{{'' if method == 'sce' else 'weight: 1, '}{option}}}"
    (warning,) = parse_config(text).warnings
    assert (
        warning
        == f"parameters.{option.split(':')[0]} has no effect: it changes nothing in {method}"
    )


def test_numbers_of_the_base_are_warned_of():
    text = edited(TIES, "  - model: base", "  - model: base\n    parameters: {weight: 1}")
    (warning,) = parse_config(text).warnings
    assert warning.startswith("models[0].parameters: weight of the base have no effect")


# --- what is refused ---


def test_all_problems_come_at_once_each_with_its_place():
    text = edited(TIES, "density: 0.5}", "denstiy: 0.5}").replace("density: 0.7", "density: 7")
    text = text.replace("dtype: bfloat16", "dtype: bfloat\nmodles: []")
    assert problems(text) == [
        'modles: unknown key; did you mean "models"?',
        "parameters.density: 7 is outside (0, 1]",
        'models[1].parameters.denstiy: ties has no such parameter; did you mean "density"?',
        "dtype: 'bfloat' is not one of bfloat16, float16, float32; did you mean \"bfloat16\"?",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("ties", "tise", "merge_method: 'tise' is not one of .*; did you mean \"ties\""),
        ("ties", "arcee_fusion", "merge_method: arcee_fusion is a method of mergekit that is not"),
        ("merge_method: ties", "", "merge_method: is missing; it is one of linear, slerp"),
        ("base_model: base", "", "base_model: is missing; ties needs one"),
        ("base_model: base", "base_model: 3", "base_model: 3 is no text"),
        ("model: one", "model: a+b+c", "more than one +"),
        ("model: two", "model: one", "models: one is named twice"),
        ("{weight: [0.1, 0.9]}", "{}", r"models\[2\].parameters.weight: is missing; ties needs"),
        ("weight: 0.3", "weight: .nan", "weight: '.nan' is not a number"),
        ("weight: 0.3", "weight: nan", "weight: nan is outside"),
        ("weight: 0.3", "weight: true", "weight: True is not a number"),
        ("weight: 0.3", "weight: 3 percent", "weight: '3 percent' is not a number"),
        ("weight: 0.3", "weight: []", "weight: a list is empty"),
        ("weight: 0.3", "weight: [1, {value: 2}]", r"weight\[0\]: is not of the form"),
        ("weight: 0.3", "weight: {vaule: 2}", "weight: is not of the form"),
        ("weight: 0.3", "weight: {filter: 3, value: 2}", "filter: 3 is no part of a tensor's name"),
        ("density: 0.5", "density: 0", r"density: 0 is outside \(0, 1\]"),
        ("density: 0.5", "density: [0.5, 1.5]", r"density: 1.5 is outside \(0, 1\]"),
        ("normalize: yes", "normalize: 3", "normalize: 3 is neither true nor false"),
        ("normalize: yes", "rescale: true", "rescale: true is not implemented here; only false"),
        ("weight: 0.3", "weight: 1, normalize: true", "counts for all models together"),
        ("weight: 0.3", "weight: 1, t: 1", r"models\[1\].parameters.t: ties has no such parameter"),
        ("parameters: {density: 0.7, normalize: yes}", "parameters: 3", "is not a mapping"),
        ("dtype: bfloat16", "out_dtype: float64", "out_dtype: 'float64' is not one of"),
        ("dtype: bfloat16", "modules: {}", "modules: several modules"),
        ("dtype: bfloat16", "slices: []", "there are models and slices"),
        ("dtype: bfloat16", "tokenizer: {tokens: {}}", "tokenizer.tokens: embeddings of single"),
        ("dtype: bfloat16", "tokenizer: {source: three}", "'three' is not union, base or a model"),
        ("dtype: bfloat16", "tokenizer: {pad_to_multiple_of: 0}", "0 is no number of rows"),
        ("dtype: bfloat16", "chat_template: chatml", "chat_template 'chatml' is a name"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(old, new, expected):
    assert re.search(expected, problem(edited(TIES, old, new))), problem(edited(TIES, old, new))


def test_tokenizer_and_tokenizer_source_are_one_too_many():
    text = f"{TIES}tokenizer_source: base\ntokenizer: {{source: base}}"
    assert "give one of them" in problem(text)


@pytest.mark.parametrize(
    "layers", ["[4, 0]", "[0]", "[0, 4, 8]", "[-1, 3]", "[2, 2]", "4", "[0, 1.5]", "[a, b]"]
)
def test_what_is_no_range_of_layers_is_refused(layers):
    text = edited(
        SLERP, "{model: one, layer_range: [0, 4]}", f"{{model: one, layer_range: {layers}}}"
    )
    assert "slices[0].sources[0].layer_range:" in problem(text)
    assert "is no range of layers; give [first, one past the last]" in problem(text)


def test_a_range_that_is_missing_or_misspelt_is_refused():
    found = problems(edited(SLERP, "model: one, layer_range", "model: one, layer_rage"))
    assert 'layer_rage: unknown key; did you mean "layer_range"?' in found[0]
    assert "slices[0].sources[0].layer_range: is missing" in found[1]


def test_sources_of_a_slice_have_as_many_layers():
    text = edited(SLERP, "one, layer_range: [0, 4]", "one, layer_range: [0, 3]")
    assert problem(text).startswith("slices[0]: its sources have 3 and 4 layers")


def test_keys_of_slices_that_do_nothing_are_refused():
    text = edited(SLERP, "  - sources:", "  - residual_weight: 0.5\n    sources:")
    assert problem(text).startswith("slices[0].residual_weight: is not implemented")


@pytest.mark.parametrize(
    ("method", "models", "expected"),
    [
        ("slerp", 2, "slerp takes exactly 1 models besides the base, not 2"),
        ("model_stock", 1, "model_stock takes at least 2 models besides the base, not 1"),
        ("nuslerp", 3, "nuslerp takes exactly 2 models besides the base, not 3"),
        ("karcher", 1, None),  # with the base they are two
        ("passthrough", 2, "passthrough takes exactly 1 models, not 2"),
    ],
)
def test_too_many_and_too_few_models_are_refused(method, models, expected):
    listed = ", ".join(f"{{model: m{index}}}" for index in range(models))
    text = f"merge_method: {method}\nbase_model: base\nmodels: [{listed}]\nparameters: "
    needed = {
        parameter.key for parameter in METHODS[method].parameters if parameter.default is None
    }
    text += "{" + ", ".join(f"{key}: 0.5" for key in sorted(needed)) + "}"
    if expected is None:
        parse_config(text)
    else:
        assert expected in problem(text)


@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("nuslerp", "nuslerp_row_wise: true"),
        ("nuslerp", "nuslerp_flatten: false"),
        ("model_stock", "filter_wise: true"),
    ],
)
def test_options_that_are_not_implemented_are_refused_by_name(method, option):
    weight = "weight: 1, " if method == "nuslerp" else ""
    text = (
        f"merge_method: {method}\nbase_model: a\nmodels: [{{model: b}}, {{model: c}}]\n"
        f"parameters: {{{weight}{option}}}"
    )
    assert f"parameters.{option.split(':')[0]}: " in problem(text)
    assert "is not implemented here" in problem(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- 1", "is not a mapping of keys"),
        ("merge_method: linear", "names no models"),
        ("merge_method: linear\nmodels: []", "models: is no list of entries"),
        ("merge_method: linear\nmodels: [one]", "models[0]: is not a mapping"),
        ("merge_method: linear\nslices: [one]", "slices[0]: is not a mapping"),
        ("merge_method: linear\nslices: [{}]", "slices[0].sources: is no list of entries"),
    ],
)
def test_other_shapes_are_refused(text, expected):
    assert any(expected in found for found in problems(text))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yml: there is no such configuration"):
        load_config(tmp_path / "none.yml")
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"binary\.yml: cannot be read"):
        load_config(tmp_path / "binary.yml")
    (tmp_path / "ties.yml").write_text(edited(TIES, "ties", "tis"))
    with pytest.raises(RecipeError, match=r"ties\.yml: merge_method: 'tis'"):
        load_config(tmp_path / "ties.yml")


def test_reading_needs_neither_torch_nor_numpy_nor_pydantic():
    code = (
        "import sys, biomistral.merging.config, biomistral.merging.plan\n"
        "sys.exit(bool({'torch', 'numpy', 'pydantic', 'transformers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- anything at all ---

JUNK = st.sampled_from(
    [None, True, 0, -1, 1.5, 10**400, "", "x", "a+b+c", [], {}, [1], [[]], {"a": 1}]
)


def places(value, path=()):
    """Yield the path of every node of a configuration."""
    yield path
    children = value.items() if isinstance(value, dict) else []
    for key, child in enumerate(value) if isinstance(value, list) else children:
        yield from places(child, (*path, key))


@settings(deadline=None)
@given(st.data())
def test_whatever_is_written_either_reads_or_is_refused(data):
    value = yaml.safe_load(data.draw(st.sampled_from([TIES, SLERP])))
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from([path for path in places(value) if path]))
        node = value
        for key in parents:
            node = node[key]
        node[last] = copy.deepcopy(data.draw(JUNK))
    with contextlib.suppress(RecipeError):
        assert parse_config(yaml.safe_dump(value)).slices


def test_a_model_in_long_form_and_with_another_spelling_is_one_model(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    config = parse_config(
        f"merge_method: ties\nbase_model: {tmp_path}/a\nmodels: [{{model: {tmp_path}/a/}}, "
        f"{{model: {{model: {{path: {tmp_path}/b}}}}, parameters: {{weight: 1}}}}]\n"
        f"parameters: {{normalize: 1.0}}\ntokenizer_source: {tmp_path}/b/\n"
    )
    assert list(config.references) == [f"{tmp_path}/a", f"{tmp_path}/b"]
    (place,) = config.slices
    assert (place.base.model, [s.model for s in place.sources]) == (config.base, [f"{tmp_path}/b"])
    assert config.settings["normalize"].values == (True,)
    assert config.tokenizer.source == f"{tmp_path}/b"


def test_a_base_with_two_ranges_of_layers_is_refused():
    with pytest.raises(RecipeError, match=r"slices\[0\]: the base a/a is named twice"):
        parse_config(
            "merge_method: slerp\nbase_model: a/a\nparameters: {t: 0.5}\nslices: [{sources: ["
            "{model: a/a, layer_range: [0, 2]}, {model: a/a, layer_range: [2, 4]}, "
            "{model: b/b, layer_range: [0, 2]}]}]\n"
        )
