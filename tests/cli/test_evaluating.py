from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from biomistral.artifacts import read_manifest
from biomistral.evaluation import engine
from biomistral.records import Prediction, read_records


@pytest.fixture
def evaluate(command, miniature_world, tmp_path):
    """Return a function that evaluates models on a little of the miniature world."""

    def run(*words, languages: str = "en", seeds: str = "1", shots: str = "1", out: str = "out"):
        return command(
            "evaluate", "--out", tmp_path / out, "--data", miniature_world / "benchmark",
            "--tasks", "gene,towns", "--languages", languages, "--shots", shots, "--seeds", seeds,
            "--limit", "4", "--precision", "float32",
            "--set", "long_prompts=drop_shots", "--set", "validation=0", *words,
        )  # fmt: skip

    return run


@pytest.fixture
def scored(monkeypatch) -> list:
    """The requests that went through the engine."""
    seen: list = []
    real = engine.TransformersEngine.score

    def score(self, requests, **listeners):
        seen.extend(requests)
        return real(self, requests, **listeners)

    monkeypatch.setattr(engine.TransformersEngine, "score", score)
    return seen


def _rows(out: str) -> dict[str, list[str]]:
    lines = [line for line in out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_models_are_measured_side_by_side_with_baselines(evaluate, make_model, tmp_path):
    finished = evaluate(make_model(0), f"other={make_model(1)}")
    assert finished.status == 0, finished.err
    [heading] = {line for line in finished.out.splitlines() if "Accuracy, %" in line}
    assert "other" in heading
    assert "random choice" in heading
    assert len(_rows(finished.out)["Gene"]) == 4
    assert len(_rows(finished.out)["ECE, %"]) == 4
    predictions = read_records(tmp_path / "out/predictions/other/predictions.parquet", Prediction)
    assert len(list(predictions)) == 8
    assert (tmp_path / "out/recipe.yaml").is_file()


def test_what_is_added_is_scored_and_nothing_else(evaluate, make_model, tiny_model, scored):
    assert evaluate(tiny_model).status == 0
    assert len(scored) == 8
    scored.clear()
    assert evaluate(tiny_model, languages="en,fr").status == 0
    assert {request.language for request in scored} == {"fr"}
    scored.clear()
    assert evaluate(tiny_model, f"second={make_model(1)}", languages="en,fr").status == 0
    assert len(scored) == 16
    scored.clear()
    assert evaluate(tiny_model, languages="en,fr").status == 0
    assert not scored


def test_the_same_model_by_another_name_is_not_scored_again(evaluate, tiny_model, scored, tmp_path):
    evaluate(tiny_model)
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    scored.clear()
    finished = evaluate(copy)
    assert "copy" in finished.out
    assert not scored


def test_all_languages_are_those_that_the_tasks_have(evaluate, tiny_model, tmp_path):
    assert evaluate(tiny_model, languages="all", shots="0").status == 0
    settings = read_manifest(tmp_path / "out/questions/benchmark")["settings"]
    assert settings["languages"] == ["en", "fr", "es", "pt", "de", "ru", "zh", "ar"]


def test_models_of_a_run_are_called_by_name(evaluate, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "run/model/slerp")
    (tmp_path / "run/recipe.yaml").write_text(
        f"name: run\nmodels: {{base: {{path: {tiny_model}}}}}\n"
        "merge: [{name: m, method: slerp, base: base, models: [{model: base}], t: 0.5}]\n"
    )
    finished = evaluate("slerp", "base", "--run", tmp_path / "run")
    assert finished.status == 0, finished.err
    finished = evaluate("slrp", "--run", tmp_path / "run")
    assert finished.status == 2
    assert 'did you mean "slerp"? (it has: slerp, base)' in finished.err


def test_a_question_is_shown_as_a_model_is_given_it(command, miniature_world):
    finished = command(
        "evaluate", "show", "gene", "--data", miniature_world / "benchmark", "--language", "fr",
        "--shots", "1", "--seed", "2", "--number", "2",
    )  # fmt: skip
    assert finished.status == 0, finished.err
    assert finished.out.count("**Question:**") == 2
    assert "number 2 of" in finished.out


def test_a_chat_template_is_that_of_a_model(command, miniature_world, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "chat")
    (folder / "chat_template.jinja").write_text("[INST] {{ messages[0]['content'] }} [/INST]")
    words = (
        "evaluate", "show", "gene", "--data", miniature_world / "benchmark", "--shots", "1",
        "--template", "chat",
    )  # fmt: skip
    assert "with --model FOLDER" in command(*words).err
    finished = command(*words, "--model", folder)
    assert finished.status == 0, finished.err
    assert finished.out.count("[INST]") == 1


def test_two_models_of_one_name_are_refused(evaluate, tiny_model):
    finished = evaluate(tiny_model, tiny_model)
    assert finished.status == 2
    assert "another model is called" in finished.err
    assert f"write one as NAME={tiny_model}" in finished.err


def test_without_data_it_says_where_to_get_which(command, tiny_model, tmp_path):
    finished = command("evaluate", tiny_model, "--out", tmp_path / "o", "--data", tmp_path / "gone")
    assert finished.status == 2
    assert "there is no such folder; nothing is downloaded" in finished.err
    assert "https://github.com/jind11/MedQA: medqa, medqa_5_options" in finished.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scoring", "leter"], "leter"),
        (["--seeds", "one"], "one"),
        (["--precision", "float8"], "float8"),
        (["--set", "long_promts=skip"], "long_promts"),
        (["--template", "poem"], "template"),
    ],
)
def test_wrong_options_are_named(evaluate, tiny_model, words, said, tmp_path):
    finished = evaluate(tiny_model, *words)
    assert finished.status == 2
    assert said in finished.err
    assert not (tmp_path / "out").exists()


def test_a_prompt_longer_than_the_context_is_named_and_counted(
    command, make_model, miniature_world, tmp_path
):
    small = make_model(0, max_position_embeddings=64)
    finished = command(
        "evaluate", small, "--out", tmp_path / "out", "--data", miniature_world / "benchmark",
        "--tasks", "gene", "--shots", "3", "--seeds", "1", "--limit", "4",
    )  # fmt: skip
    assert finished.status == 2
    assert "the model's context is 64 (4 of 4 prompts are too long)" in finished.err


def test_exported_tasks_are_those_of_the_evaluation(command, miniature_world, tmp_path):
    finished = command(
        "evaluate", "export", "lm-eval", tmp_path / "tasks", "--data",
        miniature_world / "benchmark", "--tasks", "gene", "--languages", "fr", "--seeds", "1,2",
        "--limit", "3",
    )  # fmt: skip
    assert finished.status == 0, finished.err
    assert "biomistral_gene_fr_3shot_2" in finished.out
    lines = (tmp_path / "tasks/biomistral_gene_fr_3shot_2.jsonl").read_text().splitlines()
    assert len(lines) == 3


def test_answers_of_the_harness_become_predictions(command, tmp_path):
    file = tmp_path / "samples.jsonl"
    file.write_text(
        json.dumps(
            {
                "doc_id": 1, "doc": {}, "target": "0", "resps": [[["-1", "True"]], [["-2", "False"]]],
                "arguments": {"gen_args_0": {"arg_0": "", "arg_1": "A"},
                              "gen_args_1": {"arg_0": "", "arg_1": "B"}},
            }
        )
    )  # fmt: skip
    words = ("evaluate", "import", "lm-eval", file, "--out", tmp_path / "out", "--name", "theirs")
    assert "--task" in command(*words).err
    finished = command(*words, "--task", "medqa")
    assert finished.out == f"{tmp_path / 'out'}: 1 predictions of theirs\n"
    [found] = read_records(Path(tmp_path / "out/predictions.parquet"), Prediction)
    assert found.logprobs == (-1.0, -2.0)
