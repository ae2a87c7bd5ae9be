"""The section of a report on tuned models: each beside the model that it started from.

Pure: results and artefacts to a section. The table is laid out as the paper's of its fine-tuned
models: accuracy by task, mean and population deviation over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from biomistral.reporting.model_sections import Section
from biomistral.reporting.results import Results
from biomistral.reporting.run_tables import Artefact
from biomistral.reporting.score_tables import accuracy_table
from biomistral.reporting.tables import Table

_SECTIONS = {"sft": "fine-tuned", "dpo": "tuned on preferences"}


def tuned_models(models: Sequence[Artefact]) -> dict[str, tuple[str, str]]:
    """For each tuned model, the model it started from and the section of the recipe it is of."""
    found = {}
    for model in models:
        settings = (model.manifest or {}).get("settings") or {}
        if settings.get("section") in _SECTIONS:
            found[model.name] = (str(settings.get("model")), str(settings["section"]))
    return found


def tuning_section(results: Results, models: Sequence[Artefact]) -> Section:
    """Tuned models and those that they started from; empty if none was measured."""
    tuned = {name: start for name, start in tuned_models(models).items() if name in results.models}
    shown = {*tuned, *(start for start, _ in tuned.values())}
    beside = replace(results, models=tuple(name for name in results.models if name in shown))
    words = [
        f"{name} ({_SECTIONS[section]} from {start})" for name, (start, section) in tuned.items()
    ]
    tables = [
        _renamed(accuracy_table(beside, results.main_group, setting))
        for setting in (results.main_settings if tuned else ())
    ]
    text = (
        "The same models as above, each tuned one with its start: "
        f"{', '.join(words)}. Training questions that overlap with test questions were refused; they "
        "are listed beside the training questions (refused.jsonl)."
    )
    return Section("tuning", "Tuning", text if tuned else "", tables=tables)


def _renamed(table: Table) -> Table:
    return replace(table, id=f"tuned-{table.id}", title=f"Tuned models, {table.title}")
