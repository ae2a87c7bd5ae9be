from __future__ import annotations

import pytest

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.pipeline import plan
from biomistral.progress import ignore
from biomistral.recipe import parse_recipe
from biomistral.records import Translation, write_records

EACH = Translation(
    *("q1", "valley", "fr", "test", 0, "translated", 1, ()),
    *("Bark?", ("Bark", "Water"), "", "Écorce ?", ("Écorce", "Eau"), ""),
)


@pytest.fixture
def translations(tmp_path):
    folder = tmp_path / "first/tr"
    with artifacts.create(folder, Origin("translations", "tr", {})) as draft:
        write_records(draft.folder / "translations.parquet", [EACH], Translation)
    return folder


@pytest.fixture
def steps(tmp_path):
    """Return a function: folders of translations, and of measured quality -> steps by key."""

    def of(*folders, quality=()):
        listed, measured = ([str(place) for place in places] for places in (folders, quality))
        text = (
            f"name: x\nmodels: {{a: {{path: {tmp_path}/a}}}}\nevaluate: {{models: [a]}}\n"
            f"benchmark: {{data: {tmp_path}, translations: {listed}, translation_quality: {measured}}}\n"
        )
        return {step.key: step for step in plan(parse_recipe(text), tmp_path / "run")}

    return of


def test_translations_are_measured_before_the_report(steps, translations, tmp_path):
    found = steps(translations)
    step = found["scores/translations-tr"]
    assert step.key in found["report/report"].needs
    step.make(tmp_path / "made", step.origin, ignore)
    assert (tmp_path / "made/totals.json").is_file()
    assert (artifacts.read_manifest(tmp_path / "made") or {})["fingerprint"] == (
        step.origin.fingerprint
    )


def test_what_was_measured_before_is_taken(steps, translations, tmp_path):
    mark = artifacts.fingerprint_of_files([translations])
    quality = tmp_path / "q"
    origin = Origin("scores", "quality", {"back": "somebody"}, {"translations": mark})
    with artifacts.create(quality, origin):
        pass
    found = steps(translations, quality=[quality])
    assert "scores/translations-tr" not in found
    assert {"translations/tr", "quality/tr"} <= set(found["report/report"].origin.inputs)
    assert found["report/report"].missing == steps(translations)["report/report"].missing


def test_a_measurement_of_other_translations_is_named(steps, translations, tmp_path):
    problems = steps(translations, quality=[tmp_path / "nowhere"])["report/report"].missing
    assert any(
        problem.startswith(f"{tmp_path}/nowhere: was not measured on any folder")
        and "biomistral translate quality" in problem
        for problem in problems
    )


def test_folders_of_one_name_are_told_apart_and_others_left_out(steps, translations, tmp_path):
    second = tmp_path / "second/tr"
    with artifacts.create(second, Origin("translations", "again", {})) as draft:
        write_records(draft.folder / "translations.parquet", [EACH], Translation)
    found = steps(translations, second, tmp_path / "gone")
    assert [key for key in found if "translations-" in key] == [
        "scores/translations-tr",
        "scores/translations-tr-2",
    ]
