from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from biomistral import artifacts, versions
from biomistral.pipeline import Step, plan
from biomistral.recipe import parse_recipe
from biomistral.versions import STEP_VERSIONS

# Keys of the small recipe, in words.
AFTER_MEDICAL = {
    *(f"model/{name}" for name in ("medical", "slerp", "dare", "bnb", "awq")),
    *(f"distances/{name}" for name in ("medical", "slerp", "dare")),
}
BASE = {"model/base", "distances/base"}
PREDICTIONS = {
    f"predictions/{name}" for name in ("base", "medical", "slerp", "dare", "bnb", "awq", "both")
}
OF_TUNING = {"training_questions", "sft", "dpo"}  # see test_tuning
RESULTS = {"scores/scores", "report/report"}
QUESTIONS = {"questions/benchmark"}
MADE_OF_TEXT = {"model/blank", "tokens/general", "tokens/articles", *BASE, *AFTER_MEDICAL}
OVERLAPS = {"overlap/general", "overlap/articles"}
EVERYTHING = MADE_OF_TEXT | QUESTIONS | OVERLAPS | PREDICTIONS | RESULTS


@pytest.fixture
def fingerprints(small, tmp_path):
    """Return a function: changes of the small recipe -> fingerprint of every step."""

    def of(*changes: str, **given):
        steps = plan(small(*changes, **given), tmp_path / "run")
        return {step.key: step.origin.fingerprint for step in steps}

    return of


def _changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


# --- order ----------------------------------------------------------------------------------------


def test_the_small_recipe_has_one_step_for_each_artefact(small, tmp_path: Path) -> None:
    assert {step.key for step in plan(small(), tmp_path)} == EVERYTHING


def test_every_step_comes_after_what_it_needs(small, tmp_path: Path) -> None:
    seen: set[str] = set()
    for step in plan(small(), tmp_path):
        assert seen.issuperset(step.needs), step.key
        assert step.key not in seen
        seen.add(step.key)


def test_entries_may_stand_in_any_order(tmp_path: Path) -> None:
    text = (
        "name: x\nmodels: {a: {path: o/m}, b: {path: o/n}}\nmerge:\n"
        "  - {name: third, method: slerp, base: a, models: [{model: second}], t: 1}\n"
        "  - {name: second, method: slerp, base: a, models: [{model: first}], t: 1}\n"
        "  - {name: first, method: slerp, base: a, models: [{model: b}], t: 1}\n"
    )
    steps = plan(parse_recipe(text), tmp_path)
    assert [step.name for step in steps] == ["first", "second", "third"]


def test_a_part_of_a_recipe_is_a_recipe(tmp_path: Path) -> None:
    assert plan(parse_recipe("name: x"), tmp_path) == []
    merge_only = parse_recipe(
        "name: x\nmodels: {a: {path: o/m}, b: {path: o/n}}\n"
        "merge: [{name: m, method: slerp, base: a, models: [{model: b}], t: 0.5}]"
    )
    assert [step.key for step in plan(merge_only, tmp_path)] == ["model/m"]


def test_what_a_step_needs_is_among_its_inputs(small, tmp_path: Path) -> None:
    steps = {step.key: step for step in plan(small(), tmp_path)}
    for step in steps.values():
        for key in step.needs:
            assert step.origin.inputs[key] == steps[key].origin.fingerprint
    assert "files/questions" in steps["questions/benchmark"].origin.inputs
    assert "files/articles" in steps["tokens/articles"].origin.inputs


def test_the_calibration_rows_of_awq_are_an_input_and_bitsandbytes_has_none(
    small, tmp_path: Path
) -> None:
    steps = {step.key: step for step in plan(small(), tmp_path)}
    assert steps["model/awq"].needs == ("model/medical", "tokens/articles")
    assert steps["model/bnb"].needs == ("model/medical",)


# --- fingerprints ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("seed=3", set()),
        ("evaluate.batch_tokens=64", PREDICTIONS | RESULTS),
        ("pretrain.medical.save_every_steps=7", set()),
        (
            "pretrain.medical.learning_rate=5e-4",
            AFTER_MEDICAL | (PREDICTIONS - {"predictions/base"}) | RESULTS,
        ),
        ("merge.slerp.t=0.25", {"model/slerp", "distances/slerp", "predictions/slerp"} | RESULTS),
        ("quantize.bnb.bits=4", {"model/bnb", "predictions/bnb"} | RESULTS),
        ("quantize.awq.calibration_rows=3", {"model/awq", "predictions/awq"} | RESULTS),
        ("evaluate.shots=2", QUESTIONS | OVERLAPS | PREDICTIONS | RESULTS),
        ("evaluate.limit=3", QUESTIONS | OVERLAPS | PREDICTIONS | RESULTS),
        ("evaluate.languages=[en]", QUESTIONS | OVERLAPS | PREDICTIONS | RESULTS),
        ("evaluate.scoring=letter", PREDICTIONS | RESULTS),
        ("evaluate.precision=bfloat16", PREDICTIONS | RESULTS),
        ("evaluate.long_prompts=skip", PREDICTIONS | RESULTS),
        (
            "corpus.articles.licences=[CC-BY]",
            {"tokens/articles", "overlap/articles"}
            | AFTER_MEDICAL
            | (PREDICTIONS - {"predictions/base"})
            | RESULTS,
        ),
        ("corpus.general.minimum_words=6", EVERYTHING - QUESTIONS),
        *(
            (f"corpus.{name}.{change}", {f"tokens/{name}", f"overlap/{name}"} | reached | RESULTS)
            for change in ("packing=concatenate", "sequence_length=128", "held_out_fraction=0.3")
            for name, reached in (
                ("articles", AFTER_MEDICAL | (PREDICTIONS - {"predictions/base"})),
                ("general", BASE | AFTER_MEDICAL | PREDICTIONS),
            )
        ),
        ("models.blank.tokenizer.vocabulary_size=401", EVERYTHING - QUESTIONS),
        ("seed=4", EVERYTHING - QUESTIONS),
        ("name=other", {"report/report"}),
        ("evaluate.ensembles.both.models=[base, slerp]", {"predictions/both"} | RESULTS),
        ("evaluate.ensembles=[]", {"predictions/both"} | RESULTS),
        ("evaluate.models=[base, medical]", {
            f"predictions/{name}" for name in ("slerp", "dare", "bnb", "awq")
        } | RESULTS),
    ],
)  # fmt: skip
def test_a_change_reaches_exactly_what_depends_on_it(change: str, expected, fingerprints) -> None:
    assert _changed(fingerprints(), fingerprints(change)) == expected


def test_one_more_model_leaves_the_answers_of_the_others_alone(
    fingerprints, small_text: str
) -> None:
    entry = "  - {name: more, method: slerp, base: base, models: [{model: medical}], t: 0.9}\n"
    text = small_text.replace("quantize:\n", f"{entry}quantize:\n")
    after = fingerprints("evaluate.models=[base, medical, slerp, dare, bnb, awq, more]", text=text)
    expected = {"model/more", "distances/more", "predictions/more", *RESULTS}
    assert _changed(fingerprints(), after) == expected


def test_two_entries_alike_in_all_but_the_name_are_two_steps(fingerprints, small_text: str) -> None:
    entry = "  - {name: again, method: slerp, base: base, models: [{model: medical}], t: 0.5}\n"
    after = fingerprints(text=small_text.replace("quantize:\n", f"{entry}quantize:\n"))
    assert "model/again" in after


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("articles/fr", {"tokens/articles", "overlap/articles"} | AFTER_MEDICAL),
        ("general", EVERYTHING - QUESTIONS - PREDICTIONS - RESULTS),
        ("benchmark/trial/fr", QUESTIONS | OVERLAPS),
        ("benchmark/trial/de", set()),
    ],
)
def test_a_changed_file_is_seen_by_the_step_that_reads_it(
    file: str, expected: set[str], fingerprints, world: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "world"
    shutil.copytree(world, copy)
    before = fingerprints(data=copy)
    changed = next(path for path in sorted((copy / file).rglob("*")) if path.is_file())
    changed.write_bytes(changed.read_bytes() + b"\n")
    seen = _changed(before, fingerprints(data=copy)) - PREDICTIONS - RESULTS
    # A place in a pattern is part of the settings; data that was moved is made anew, knowingly.
    assert seen == expected


def test_a_new_file_that_a_pattern_matches_is_seen(
    fingerprints, world: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "world"
    shutil.copytree(world, copy)
    before = fingerprints(data=copy)
    (copy / "articles/fr/new.xml").write_text("<article/>")
    assert "tokens/articles" in _changed(before, fingerprints(data=copy))


def test_a_corpus_kept_clear_of_the_benchmark_is_made_after_the_questions(
    small, tmp_path: Path
) -> None:
    steps = plan(small("corpus.1.exclude_overlap_with=benchmark"), tmp_path / "run")
    keys = [step.key for step in steps]
    by_key = {step.key: step for step in steps}
    clear = [key for key in keys if "questions/benchmark" in by_key[key].needs and "tokens" in key]
    assert len(clear) == 1
    assert keys.index("questions/benchmark") < keys.index(clear[0])
    assert "questions/benchmark" in by_key[clear[0]].origin.inputs


def test_a_tokenizer_learns_from_a_corpus_that_is_clear_of_the_benchmark(
    small, tmp_path: Path
) -> None:
    before = {step.key: step for step in plan(small(), tmp_path / "run")}["model/blank"]
    index = [c.name for c in small().corpus].index(small().models["blank"].tokenizer.corpora[0])
    steps = plan(small(f"corpus.{index}.exclude_overlap_with=benchmark"), tmp_path / "run")
    keys = [step.key for step in steps]
    blank = steps[keys.index("model/blank")]
    assert keys.index("questions/benchmark") < keys.index("model/blank")
    assert blank.origin.inputs.keys() - before.origin.inputs.keys() == {"questions/benchmark"}
    assert blank.origin.fingerprint != before.origin.fingerprint


@pytest.mark.parametrize("code", sorted(STEP_VERSIONS.keys() - OF_TUNING - {"translate"}))
def test_a_new_version_of_a_steps_code_makes_it_again(code: str, fingerprints, monkeypatch) -> None:
    every_step = "evaluate.cost=true"
    before = fingerprints(every_step)
    monkeypatch.setattr(versions, "STEP_VERSIONS", {**STEP_VERSIONS, code: 99})
    assert _changed(before, fingerprints(every_step))


SEEDED = """
name: x
models: {a: {path: o/m}, b: {path: o/n}}
corpus:
  - {name: whole, texts: no/*.txt, tokenizer: a}
  - {name: split, texts: no/*.txt, tokenizer: a, held_out_fraction: 0.1}
pretrain:
  - {name: trained, model: a, corpus: whole}
  - {name: trained-own, model: a, corpus: whole, seed: 1}
merge:
  - {name: slerp, method: slerp, base: a, models: [{model: b}], t: 0.5}
  - {name: ties, method: ties, base: a, models: [{model: b, density: 0.5}]}
  - {name: linear, method: linear, models: [{model: a}, {model: b}]}
  - {name: arithmetic, method: task_arithmetic, base: a, models: [{model: b}]}
  - {name: dare, method: dare_ties, base: a, models: [{model: b, density: 0.5}]}
  - {name: dare-own, method: dare_ties, base: a, models: [{model: b, density: 0.5}], seed: 1}
quantize:
  - {name: bnb, model: a, method: bitsandbytes, bits: 8}
  - {name: awq, model: a, method: awq, corpus: whole}
"""


def test_the_seed_of_the_recipe_reaches_what_is_drawn_with_it(tmp_path: Path) -> None:
    one, two = (
        {
            step.name: step.origin.fingerprint
            for step in plan(parse_recipe(SEEDED, changes=[f"seed={seed}"]), tmp_path)
        }
        for seed in (1, 2)
    )
    assert _changed(one, two) == {"split", "trained", "dare", "awq"}


# --- files are read no more than needed -----------------------------------------------------------


def test_a_plan_reads_each_file_once_and_the_next_plan_only_what_changed(
    tmp_path: Path, monkeypatch
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name)
        os.utime(tmp_path / f"{name}.txt", (1000, 1000))
    shape = (
        "{hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2, "
        "num_key_value_heads: 2}"
    )
    recipe = parse_recipe(
        f"name: x\nmodels: {{m: {{architecture: {shape}, "
        "tokenizer: {corpora: [texts], vocabulary_size: 400}}}\n"
        f"corpus: [{{name: texts, texts: '{tmp_path}/*.txt'}}]"
    )
    read: list[str] = []
    digest = artifacts.file_digest
    monkeypatch.setattr(
        artifacts, "file_digest", lambda path: read.append(path.name) or digest(path)
    )
    root = tmp_path / "run"
    first = plan(recipe, root)
    assert sorted(read) == ["a.txt", "b.txt"], "by the model and the tokens together"
    assert not root.exists(), "a plan makes nothing"
    root.mkdir()
    plan(recipe, root)
    read.clear()
    assert plan(recipe, root) == first
    assert read == []
    (tmp_path / "b.txt").write_text("c")
    assert _changed(_of(first), _of(plan(recipe, root))) == {"model/m", "tokens/texts"}
    assert read == ["b.txt"]


def _of(steps: list[Step]) -> dict[str, str]:
    return {step.key: step.origin.fingerprint for step in steps}


# --- models that exist ----------------------------------------------------------------------------

STORED = (
    "name: x\nmodels: {a: {path: '%s'}, b: {path: o/n, revision: abc}, c: {path: gone/far/away}}\n"
    "merge: [{name: m, method: slerp, base: a, models: [{model: b}], t: 0.5}]"
)


def test_a_stored_model_counts_by_its_files_and_a_hub_model_by_name_and_revision(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")

    def merged(text: str) -> Step:
        (step,) = plan(parse_recipe(text), tmp_path / "run")
        return step

    before = merged(STORED % folder)
    assert before.origin.inputs.keys() == {"model/a", "model/b"}
    assert before.needs == ()
    assert before.missing == ()
    other_revision = merged((STORED % folder).replace("abc", "abd"))
    assert _differing(before, other_revision) == {"model/b"}
    (folder / "config.json").write_text("{ }")
    assert _differing(before, merged(STORED % folder)) == {"model/a"}


def _differing(one: Step, two: Step) -> set[str]:
    return {key for key, value in one.origin.inputs.items() if two.origin.inputs[key] != value}


def test_planning_a_hub_model_loads_no_library_and_asks_no_network(tmp_path: Path) -> None:
    program = (
        "import sys, socket\n"
        "def refuse(*_): sys.exit('the network was asked')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from pathlib import Path\n"
        "from biomistral.pipeline import plan\n"
        "from biomistral.recipe import parse_recipe\n"
        "steps = plan(parse_recipe(sys.argv[1]), Path(sys.argv[2]))\n"
        "heavy = ('torch', 'transformers', 'datasets', 'matplotlib', 'huggingface_hub')\n"
        "print(len(steps), [name for name in heavy if name in sys.modules])\n"
    )
    recipe = (
        "name: x\nmodels: {a: {path: somebody/Model-7B}}\ncorpus: {articles: no/*.xml}\n"
        "pretrain: [{name: p, model: a}]\nevaluate: {models: [a, p]}\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, recipe, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"},
    )
    assert finished.stdout == "9 []\n", finished.stderr


# --- what is not there ----------------------------------------------------------------------------


def test_missing_data_is_noted_with_the_step_that_reads_it(small, tmp_path: Path) -> None:
    steps = plan(small(data=tmp_path / "nowhere"), tmp_path / "run")
    missing = {step.key: step.missing for step in steps if step.missing}
    assert missing.keys() == {
        "model/blank",
        "tokens/general",
        "tokens/articles",
        "questions/benchmark",
    }
    assert "nowhere/articles/fr/*.xml" in missing["tokens/articles"][0]


def test_a_missing_model_that_is_only_listed_is_noted_before_the_report_is_due(
    tmp_path: Path,
) -> None:
    text = STORED % tmp_path + "\nevaluate: {models: [a], tasks: all}"
    steps = {step.key: step for step in plan(parse_recipe(text), tmp_path / "run")}
    assert steps["report/report"].missing == ("gone/far/away: there is no such model folder",)
    assert steps["predictions/a"].missing == ()


@pytest.mark.parametrize(
    "entry",
    [
        "pretrain: [{name: x, model: a, corpus: c}]\ncorpus: {name: c, texts: [t.txt]}",
        "corpus: {name: x, texts: [t.txt], tokenizer: a}",
        "merge: [{name: x, method: slerp, base: b, models: [{model: a}], t: 0.5}]",
        "quantize: [{name: x, model: a, method: half}]",
        "sft: [{name: x, model: a, data: [d.jsonl]}]",
    ],
)
def test_a_checkpoint_is_not_made_from_a_model_with_an_adapter(tiny_model, tmp_path, entry) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    models = f"a: {{path: {tiny_model}+{tmp_path}}}, b: {{path: {tiny_model}}}"
    recipe = parse_recipe(f"name: r\nmodels: {{{models}}}\n{entry}")
    made = [s for s in plan(recipe, tmp_path) if s.name == "x" and s.kind != "distances"]
    assert made
    for step in made:
        assert "is a model with an adapter, which can be evaluated and no more" in step.missing[0]


def test_an_unknown_task_is_noted_with_the_known_ones(small, tmp_path: Path) -> None:
    steps = {step.key: step for step in plan(small("evaluate.tasks=[treatmint]"), tmp_path)}
    (sentence,) = steps["questions/benchmark"].missing
    assert "treatmint" in sentence
    assert 'did you mean "treatment"' in sentence
