from __future__ import annotations

from pathlib import Path

import pytest

from biomistral.errors import InputError, RecipeError
from biomistral.recipe import load_recipe, parse_recipe

BASE = "name: x\nmodels: {a: {path: o/m}, b: {path: o/n}}\n"


def _merge(entry: str) -> str:
    return f"{BASE}merge:\n  - {{name: m, base: a, models: [{{model: b}}], {entry}}}\n"


# --- files ----------------------------------------------------------------------------------------


def test_a_recipe_with_one_of_everything_loads(whole: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(whole, encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.pretrain[0].learning_rate == 2e-5
    assert recipe.corpus[0].articles == ["data/archive/**/*.xml"]
    assert [entry.method for entry in recipe.merge] == ["slerp", "dare_ties"]
    assert recipe.evaluate is not None
    assert recipe.evaluate.ensembles[0].models == ["base", "medical"]


@pytest.mark.parametrize("kind", ["missing", "folder", "binary"])
def test_a_recipe_that_cannot_be_read_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"recipe.yaml: (there is no such|cannot be read as)"):
        load_recipe(path)


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("seed: 1")
    with pytest.raises(RecipeError, match=r"recipe.yaml: name: is missing"):
        load_recipe(path)


# --- YAML -----------------------------------------------------------------------------------------


def test_no_is_a_name_and_not_a_truth() -> None:
    recipe = parse_recipe("name: no\nmodels: {yes: {path: o/m}}\nevaluate: {models: [yes]}")
    assert recipe.name == "no"
    assert list(recipe.models) == ["yes"]


def test_a_key_given_twice_is_refused_with_its_line() -> None:
    text = "name: x\nmodels:\n  a: {path: o/m}\n  a: {path: o/n}\n"
    with pytest.raises(RecipeError, match=r"the key 'a' is given twice \(line 4\)"):
        parse_recipe(text)


def test_anchors_and_merged_mappings_are_yaml_too() -> None:
    text = "name: x\nmodels:\n  a: &a {path: o/m, revision: abc}\n  b: {<<: *a, path: o/n}\n"
    models = parse_recipe(text).models
    assert models["b"].model_dump() == {"path": "o/n", "revision": "abc"}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name: [", r"is not valid YAML: .* \(line 1, column \d+\)"),
        ("name: x\n\tseed: 1", r"is not valid YAML: .* \(line 2"),
        ("name: \x01", "is not valid YAML: unacceptable character"),
        ("models: " + "[" * 5000, "is not valid YAML: it is nested too deeply"),
        ("seed: " + "9" * 5000, "is not valid YAML: Exceeds the limit"),
        ("seed: !!int five", "is not valid YAML"),
        ("name: !!python/object:os.system x", "is not valid YAML: could not determine"),
        ("a: &a {a: *a}", "is not valid YAML: found unconstructable recursive node"),
        ("", "is not a mapping of sections"),
        ("just text", "is not a mapping of sections"),
        ("- 1", "is not a mapping of sections"),
    ],
)
def test_what_is_no_recipe_is_one_line(text: str, what: str) -> None:
    with pytest.raises(RecipeError, match=what) as caught:
        parse_recipe(text)
    assert "\n" not in str(caught.value)


# --- what is said of mistakes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BASE + "sed: 1", 'sed: unknown key; did you mean "seed"?'),
        (BASE + "corpus: {articels: x, texts: y}", 'articels: unknown key; did you mean "articles"'),
        (_merge("method: slurp, t: 1"), "merge[0]: method 'slurp' is not one of linear, slerp, task"),
        (_merge("method: slurp, t: 1"), 'did you mean "slerp"?'),
        (_merge("t: 1"), "merge[0]: has no method; it is one of linear, slerp, task_arithmetic"),
        (_merge("method: slerp"), "merge[0].t: is missing"),
        (_merge("method: slerp, t: 1.5"), "merge[0].t: 1.5 is outside [0, 1]"),
        (_merge("method: slerp, t: half"), "merge[0].t: must be a valid number"),
        (_merge("method: slerp, t: [0, {value: 1}]"), "merge[0].t[0]: is not a mapping"),
        (_merge("method: slerp, t: [{filtr: mlp, value: 1}]"), 'did you mean "filter"?'),
        (_merge("method: slerp, t: 1, density: 0.5"), "merge[0].density: unknown key; allowed are"),
        (_merge("method: linear"), "merge[0].models: has 1 entries; at least 2 are allowed"),
        (BASE + "seed: 1:30", "seed: must be a valid integer"),
        (BASE + "seed: -1", "seed: must be greater than or equal to 0, not -1"),
        (BASE + "pretrain:", "pretrain: is empty; give it a value, or leave it out"),
        (BASE + "pretrain: {name: p}", "pretrain: is not a list"),
        (BASE + "pretrain: [p]", "pretrain[0]: is not a mapping of keys to values"),
        (BASE + "1: x", "[1]: is no text; put the key in quotes"),
        ("name: x\nmodels: [a]", "models: is not a mapping of names to entries"),
        ("name: x\nmodels: {a: o/m}", "models.a: is not a mapping of keys to values"),
        ("name: x\nmodels: {a: {pth: o/m}}", 'models.a.pth: unknown key; did you mean "path"?'),
        ("name: x\nmodels: {a/b: {path: o/m}}", "'a/b' is no name; letters, digits, dot, hyphen"),
        ("name: a b", "name: 'a b' is no name"),
        (BASE + "evaluate: {models: [a], tasks: al}", "'al' is not 'all' and is not a list"),
        (BASE + "evaluate: {models: [a], scoring: x}", "scoring: 'x' is not 'letter', 'cloze' or 'published'"),
        (BASE + "evaluate: {models: [a], languages: [eng]}", "'eng' is not one of en, fr, es"),
        (BASE + "evaluate: {models: [a, a]}", "evaluate.models: 'a' is given twice"),
        (BASE + "evaluate: {models: [a], seeds: [1, 1]}", "evaluate.seeds: 1 is given twice"),
        (BASE + "evaluate: {models: [a], tasks: [t, t]}", "evaluate.tasks: 't' is given twice"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_with_its_path_and_what_is_allowed(
    text: str, sentence: str, problems
) -> None:
    said = problems(text)
    assert len([line for line in said if sentence in line]) == 1, said
    assert not [line for line in said if "\n" in line or "Input should" in line], said


def test_a_misspelt_key_of_a_fresh_model_is_compared_with_its_own_keys(problems) -> None:
    said = problems("name: x\nmodels: {a: {architecture: {hidden_sise: 8}}}")
    assert 'models.a.architecture.hidden_sise: unknown key; did you mean "hidden_size"?' in said
    assert "models.a.tokenizer: is missing" in said


def test_all_problems_are_told_at_once(problems) -> None:
    said = problems(
        "nme: x\nseed: -1\nmodels: {a: {path: 3}}\n"
        "pretrain: [{name: p, model: a, epochs: 0}, {name: q, model: a, schedule: cosin}]\n"
    )
    assert [line.split(":")[0] for line in said] == [
        "name",
        "seed",
        "models.a.path",
        "pretrain[0].epochs",
        "pretrain[1].schedule",
        "nme",
    ]


def test_links_are_looked_at_as_soon_as_the_fields_are_right(problems) -> None:
    assert problems(BASE + "evaluate: {models: [aa]}") == [
        "evaluate.models: there is no model 'aa'; did you mean \"a\"? (there is: a, b)"
    ]


# --- variables ------------------------------------------------------------------------------------


def test_variables_come_from_the_environment_or_their_default(parse) -> None:
    text = "name: ${RUN}-${KIND:-plain}\nseed: ${SEED:-5}\nmodels: {a: {path: '${EMPTY:-}x'}}"
    recipe = parse(text, RUN="first", EMPTY="")
    assert (recipe.name, recipe.seed, recipe.models["a"].path) == ("first-plain", 5, "x")


def test_a_variable_in_a_list_or_a_changed_value_is_replaced_too(parse) -> None:
    recipe = parse(BASE + "evaluate: {models: ['${M}']}", "name=${M}-run", M="a")
    assert recipe.evaluate.models == ["a"]
    assert recipe.name == "a-run"


def test_every_variable_that_is_not_set_is_told_with_its_place(problems) -> None:
    said = problems("name: ${RUN}\nmodels: {a: {path: '${HERE}/${THERE}'}}")
    assert [line.split(" is not set")[0] for line in said] == [
        "name: the environment variable RUN",
        "models.a.path: the environment variable HERE",
        "models.a.path: the environment variable THERE",
    ]
    assert "--set name=" in said[0]


def test_a_dollar_alone_is_a_dollar(parse) -> None:
    assert parse("name: x\nmodels: {a: {path: 'o/$m ${} ${1}'}}").models["a"].path == (
        "o/$m ${} ${1}"
    )


# --- --set ----------------------------------------------------------------------------------------

CHANGED = """
name: x
models: {a: {path: o/m}}
corpus: {texts: t.txt}
pretrain:
  - {name: p, model: a}
  - {name: q, model: p}
"""


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("seed=9", "recipe.seed == 9"),
        ("pretrain.q.epochs=2", "recipe.pretrain[1].epochs == 2"),
        ("pretrain.0.epochs=2e-1", "recipe.pretrain[0].epochs == 0.2"),
        ("corpus.texts=[u.txt, v.txt]", "recipe.corpus[0].texts == ['u.txt', 'v.txt']"),
        ("models.b={path: o/n}", "recipe.models['b'].path == 'o/n'"),
        ("models.a.path=name=with=signs", "recipe.models['a'].path == 'name=with=signs'"),
        ("pretrain.1={name: r, model: a}", "recipe.pretrain[1].name == 'r'"),
    ],
)
def test_a_value_is_set_by_keys_indices_and_names(change: str, value: str, parse) -> None:
    assert eval(value, {"recipe": parse(CHANGED, change)})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("seed", "--set 'seed': is not of the form path=value"),
        ("=1", "--set '=1': is not of the form path=value"),
        ("seed=[", "--set seed: '[' is not a YAML value"),
        ("evaluate.shots=1", "--set evaluate.shots: the recipe has no evaluate"),
        ("pretrain.r.epochs=1", "--set pretrain.r.epochs: the recipe has no pretrain.r"),
        ("pretrain.7=1", "--set pretrain.7: there is nothing called '7' to set"),
        ("pretrain.²=1", "--set pretrain.²: there is nothing called '²' to set"),
        ("name.x=1", "--set name.x: there is nothing called 'x' to set"),
        ("pretrain.q.epoch=2", 'pretrain[1].epoch: unknown key; did you mean "epochs"?'),
    ],
)
def test_a_change_that_cannot_be_made_is_told(change: str, sentence: str, problems) -> None:
    assert problems(CHANGED, change) == [sentence]


def test_changes_are_made_in_order_and_all_that_fail_are_told(parse, problems) -> None:
    assert parse(CHANGED, "seed=1", "seed=2").seed == 2
    assert len(problems(CHANGED, "a.b=1", "c.d=1")) == 2
