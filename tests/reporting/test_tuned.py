"""Tuned models stand beside the models they started from, and alone."""

from __future__ import annotations

from biomistral.records import Score, Task
from biomistral.reporting.results import index_results
from biomistral.reporting.run_tables import Artefact
from biomistral.reporting.tuned import tuned_models, tuning_section


def _artefact(name: str, **settings: str) -> Artefact:
    return Artefact("model", name, {"settings": settings}, 1)


ARTEFACTS = [
    _artefact("base"),
    _artefact("medical", model="base"),
    _artefact("taught", model="medical", section="sft"),
    _artefact("preferring", model="taught", section="dpo"),
    Artefact("model", "stored", None, None),
]


def _results(*models: str):
    scores = [
        Score(
            *(model, "model", "herbs", "medical", "en", "letter", 3, metric, value),
            *(None, None, 10, 3),
        )
        for number, model in enumerate(models)
        for metric, value in (("accuracy", 0.5 + number / 10), ("accuracy_deviation", 0.01))
    ]
    task = Task("herbs", "Herbs", "medical", "invented", "CC0-1.0")
    return index_results(scores, [task], list(models))


def test_manifests_say_which_models_were_tuned_and_from_what():
    assert tuned_models(ARTEFACTS) == {
        "taught": ("medical", "sft"),
        "preferring": ("taught", "dpo"),
    }


def test_only_tuned_models_and_their_starts_are_in_the_table():
    section = tuning_section(_results("base", "medical", "taught", "preferring"), ARTEFACTS)
    [table] = section.tables
    assert [row.label for row in table.rows] == ["medical", "taught", "preferring"]
    assert table.id.startswith("tuned-accuracy")
    assert "3-shot" in table.title or "3 shots" in table.title
    assert "taught (fine-tuned from medical)" in section.text


def test_without_a_measured_tuned_model_there_is_no_section():
    assert tuning_section(_results("base", "medical"), ARTEFACTS).is_empty
