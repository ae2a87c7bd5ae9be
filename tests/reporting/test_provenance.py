from __future__ import annotations

import json

import pytest

from biomistral.records import Score
from biomistral.reporting.provenance import made_of, questions_behind, sources_of, told
from biomistral.reporting.run_tables import Artefact
from biomistral.reporting.tables import Cell, Column, Row, Table, number_cell, text_cell


def artefact(role: str, name: str, inputs: dict[str, str] | None = None) -> Artefact:
    manifest = {
        "fingerprint": f"{role}-{name}".ljust(64, "0"),
        "content_sha256": "c" * 64,
        "settings": {"articles": ["/home/somebody/data/*.xml"], "epochs": 1.5},
        "inputs": inputs or {},
        "step_version": 4,
        "commit": "abc",
        "versions": {"torch": "2.13"},
    }
    return Artefact(role, name, manifest, 10)


ARTEFACTS = [
    artefact("corpus", "pmc"),
    artefact("model", "base"),
    artefact("model", "tuned"),
    artefact("adapter", "tuned"),
    artefact("questions", "questions"),
    artefact("overlap", "pmc"),
    artefact("predictions", "base", {"model/base": "model-base".ljust(64, "0"), "files/x": "f" * 64}),
    artefact("predictions", "tuned"),
    artefact("translations", "set"),
    artefact("translations", "set quality"),
    artefact("scores", "scores"),
    artefact("scores", "cost"),
]  # fmt: skip


def keys(section: str, row: Row, *, id_: str = "t", heads: tuple[str, ...] = ("Heart",)):
    table = Table(id_, "", "Model", tuple(Column(head) for head in heads), (row,))
    return [each.key for each in sources_of(section, table, row, made_of(ARTEFACTS))]


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("accuracy", ["predictions/base", "scores/scores"]),
        ("cost", ["model/base", "scores/cost"]),
        ("training", ["model/base"]),
        ("benchmark", ["questions/benchmark"]),
        ("published", []),
        ("a new section", ["model/base", "predictions/base"]),
        ("translations", ["translations/set", "translations/set quality"]),
    ],
)
def test_a_row_is_of_the_artefacts_that_its_section_reads(section, expected) -> None:
    assert keys(section, Row("base", (number_cell(1.0),))) == expected


def test_a_pair_of_models_is_of_the_predictions_of_both() -> None:
    row = Row("base", (text_cell("tuned"), number_cell(0.1)))
    assert keys("comparisons", row) == ["predictions/base", "predictions/tuned", "scores/scores"]


def test_a_row_of_the_provenance_is_of_the_one_artefact_that_it_names() -> None:
    row = Row("tuned", (text_cell("adapter"), number_cell(10.0)))
    assert keys("provenance", row) == ["adapter/tuned"]
    assert keys("provenance", Row("pmc", (text_cell("tokens"), number_cell(1.0)))) == ["tokens/pmc"]


def test_a_baseline_is_of_the_scores_alone() -> None:
    assert keys("accuracy", Row("random choice", (Cell(),), "baseline")) == ["scores/scores"]


def test_corpora_are_found_by_the_heads_and_names_of_their_tables() -> None:
    row = Row("documents kept", (number_cell(3.0),))
    assert keys("corpora", row, heads=("pmc",)) == ["tokens/pmc"]
    assert keys("corpora", row, id_="overlap-pmc") == ["overlap/pmc"]


def test_an_input_leads_to_the_artefact_that_it_is() -> None:
    made = {each.key: each for each in made_of(ARTEFACTS)}
    base = made["predictions/base"]
    assert base.inputs == {"model/base": made["model/base"].anchor, "files/x": "f" * 12}
    assert base.command == "biomistral run recipe.yaml --only predictions/base"
    assert base.fingerprint.startswith("predictions-base")


def test_anchors_differ_where_names_become_the_same() -> None:
    odd = [artefact("model", "a b"), artefact("model", "a_b"), artefact("model", "A-B")]
    anchors = [each.anchor for each in made_of(odd)]
    assert len(set(anchors)) == 3


def test_where_data_lay_is_not_told() -> None:
    assert json.loads(made_of(ARTEFACTS)[0].settings) == {"articles": ["…/*.xml"], "epochs": 1.5}
    assert told({"a": ["/x/y", "data/z", "and/or"], "b": None}) == {
        "a": ["…/y", "data/z", "and/or"],
        "b": None,
    }


def test_a_folder_that_the_package_did_not_make_has_no_command() -> None:
    (made,) = made_of([Artefact("model", "hub", None, None)])
    assert (made.command, made.fingerprint) == ("", "")


def test_the_questions_behind_a_score_are_those_of_its_task_and_setting(make_score) -> None:
    assert questions_behind(make_score("base", "heart", 0.5)) == "heart|en|letter|3"
    average: Score = make_score("base", "average", 0.5, language="ar", shots=0)
    assert questions_behind(average) == "group:medical|ar|letter|0"
    assert questions_behind(None) == ""
