from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import lxml.html
import pytest

from biomistral import artifacts
from biomistral.advisory import ADVISORY
from biomistral.errors import InputError
from biomistral.records import Score, Translation, TranslationQuality, write_records
from biomistral.reporting import report

ODD_NAME = "tr_ained <b>&|% $x$"


def _only(scores: list[Score], folder: Path) -> Path:
    """Write scores and nothing else."""
    folder.mkdir()
    write_records(folder / "scores.parquet", scores, Score)
    return folder


@pytest.fixture(scope="module")
def made(run_folders, tmp_path_factory) -> Path:
    return report(tmp_path_factory.mktemp("out") / "report", **run_folders)


@pytest.fixture(scope="module")
def page(made):
    return lxml.html.fromstring((made / "index.html").read_text(encoding="utf-8"))


def test_the_report_is_whole(made: Path) -> None:
    names = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert {"index.html", "report.md", "report.tex", "tables/scores.csv", "manifest.json"} <= names
    assert {"tables/accuracy-medical-en-letter-3shot.csv", "tables/provenance.csv"} <= names
    cards = {name for name in names if name.startswith("cards/")}
    assert cards == {"cards/base.md", "cards/elsewhere.md", "cards/tr_ained_b_x_.md"}


def test_made_twice_it_has_the_same_bytes(run_folders, made: Path, tmp_path: Path) -> None:
    again = report(tmp_path / "another place" / "again", **run_folders)
    assert artifacts.content_digest(again) == artifacts.content_digest(made)


def test_every_file_for_readers_carries_the_advisory(made: Path, page) -> None:
    assert page.xpath("string(//aside)").strip() == ADVISORY
    for path in [made / "report.md", made / "report.tex", *(made / "cards").iterdir()]:
        assert ADVISORY in path.read_text(encoding="utf-8"), path


def test_the_page_needs_no_other_file(page) -> None:
    links = [value for _, attribute, value, _ in page.iterlinks() if attribute is not None]
    assert links  # the table of contents
    # Links to cards, figures and questions are there to be followed; nothing is fetched to show the page.
    assert all(link.startswith(("#", "cards/", "figures/", "questions.html")) for link in links)
    assert not page.xpath("//link | //*[@src]")
    styles = " ".join(page.xpath("//style/text()"))
    assert not re.search(r"url\(|@import", styles)


def test_every_link_inside_the_page_leads_somewhere_and_ids_are_distinct(page) -> None:
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids))
    inside = [href for href in page.xpath("//@href") if href.startswith("#")]
    assert {href.removeprefix("#") for href in inside} <= set(ids)


def test_odd_names_are_text_and_never_markup(made: Path, page) -> None:
    heads = [text.strip() for text in page.xpath("//tbody/tr/th/text()")]
    assert ODD_NAME in heads
    text = (made / "index.html").read_text(encoding="utf-8")
    assert "tr_ained <b>" not in text
    assert "<i>bone</i>" not in text
    assert r"tr\_ained \<b\>&\|% \$x\$" in (made / "report.md").read_text(encoding="utf-8")
    latex = (made / "report.tex").read_text(encoding="utf-8")
    assert r"tr\_ained \textless{}b\textgreater{}\&\textbar{}\% \$x\$" in latex


def test_arabic_is_written_from_right_to_left(page) -> None:
    blocks = page.xpath('//article//div[@lang="ar"]')
    assert blocks
    assert {block.get("dir") for block in blocks} == {"rtl"}
    assert {b.get("dir") for b in page.xpath('//article//div[@lang="en"]')} == {"ltr"}


def test_an_absent_result_is_a_dash(page) -> None:
    row = page.xpath('//figure[@id="groups-en-letter-3shot"]//tr[th="base"]/td')
    assert row[-1].text_content().strip() == "–"


def test_baselines_are_in_a_body_of_their_own(page) -> None:
    bodies = page.xpath('//figure[@id="accuracy-medical-en-letter-3shot"]//tbody')
    assert [b.xpath("string(tr[1]/th)") for b in bodies] == ["base", "random choice"]


def test_intervals_are_shown_on_hover(page) -> None:
    notes = page.xpath('//figure[@id="accuracy-medical-en-letter-3shot"]//td/@title')
    assert "95 % interval 45.0 to 55.0; 100 questions, 3 seeds" in notes


def test_what_is_copied_is_what_the_files_hold(made: Path, page) -> None:
    figure = '//figure[@id="provenance"]'
    # The parser of HTML drops one line break at the start of a textarea.
    copied = page.xpath(f'string({figure}//textarea[@data-format="CSV"])').removeprefix("\n")
    assert copied == (made / "tables" / "provenance.csv").read_text(encoding="utf-8")


def test_cards_are_printed_with_results(made: Path) -> None:
    text = (made / "cards" / "tr_ained_b_x_.md").read_text(encoding="utf-8")
    assert "Made up and trained." in text
    assert "| Heart | 62.0 | 42.0 |" in text
    assert "Not measured in this run." in (made / "cards" / "elsewhere.md").read_text(
        encoding="utf-8"
    )


def test_the_page_links_to_every_card(made: Path, page) -> None:
    linked = page.xpath('//section[@id="section-provenance"]/p/a/@href')
    assert len(linked) == 3
    text = (made / "report.md").read_text(encoding="utf-8")
    for path in linked:
        assert (made / path).is_file()
        assert f"]({path})" in text


def test_every_figure_lies_beside_the_page_as_svg_and_pdf(made: Path, page) -> None:
    figures = page.xpath('//figure[@class="chart"]')
    linked = [link.get("href") for f in figures for link in f.xpath('p[@class="files"]/a')]
    assert len(linked) == 2 * len(figures) > 0
    files = {path.relative_to(made).as_posix() for path in (made / "figures").iterdir()}
    assert set(linked) == files


def test_no_place_or_time_is_told(made: Path, run_folders) -> None:
    root = str(run_folders["scores"].parent)
    for path in made.rglob("*"):
        if path.is_file() and path.name != "manifest.json":
            assert root.encode() not in path.read_bytes(), path
            assert b"made_at" not in path.read_bytes(), path


def test_training_curves_are_drawn_for_models_with_a_log(page) -> None:
    labels = page.xpath('//section[@id="section-training"]//svg/@aria-label')
    names = ["Training loss", "Held-out loss", "Learning rate"]
    assert [label.split(" over")[0] for label in labels] == names


def test_scores_that_are_not_there_are_named(run_folders, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scores\.parquet: there is no such file"):
        report(tmp_path / "r", **{**run_folders, "scores": tmp_path / "nothing"})


def test_a_broken_training_log_is_named_with_its_line(run_folders, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "training_log.jsonl").write_text(
        '{"step": 1, "tokens": 2}\n{"step": 2}\n'
    )
    with pytest.raises(InputError, match=r"training_log\.jsonl, line 2: is no line of a training"):
        report(tmp_path / "r", **{**run_folders, "models": {"m": tmp_path / "model"}})


def test_predictions_that_are_not_there_are_named(run_folders, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"predictions\.parquet: cannot be read"):
        report(tmp_path / "r", **{**run_folders, "predictions": {"m": tmp_path}})


def test_a_report_without_corpora_predictions_and_bins_is_made(
    run_folders, scores, tmp_path: Path
) -> None:
    bare = {
        "scores": _only(scores, tmp_path / "scores"),
        "models": {},
        "corpora": {},
        "predictions": {},
    }
    out = report(tmp_path / "r", **{**run_folders, **bare})
    assert (out / "index.html").is_file()


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = (
        "import sys, biomistral.reporting;"
        "print({'matplotlib', 'jinja2', 'pyarrow', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_questions_in_a_corpus_are_counted_in_a_table(made: Path) -> None:
    lines = (made / "tables/overlap-pmc.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "Task,Language,Questions,Too short to judge,Found,Half found"
    assert lines[1].endswith(",English,40,13,2,1")


def test_measured_costs_are_shown_and_the_manifest_says_that_they_vary(
    run_folders, scores, tmp_path: Path
) -> None:
    few = _only(scores[:2], tmp_path / "scores")
    cost = {
        "model": "base", "device": "CPU", "threads": 2, "prompt_tokens": 512, "batch": 8,
        "weight_bytes": 2_000_000, "memory_bytes": 3_000_000, "load_seconds": 1.5,
        "reading_tokens_per_second": 100.0, "writing_tokens_per_second": 10.0,
        "batched_tokens_per_second": 40.0,
    }  # fmt: skip
    (tmp_path / "cost").mkdir()
    (tmp_path / "cost/costs.volatile.json").write_text(json.dumps([cost]))
    (tmp_path / "model").mkdir()
    speed = tmp_path / "model" / "throughput.volatile.json"
    speed.write_text('{"seconds": 2.0, "tokens": 8642, "tokens_per_second": 4321}')
    folders = {**run_folders, "scores": few}
    folders["models"] = {**run_folders["models"], "elsewhere": tmp_path / "model"}
    made = report(tmp_path / "report", **folders, costs=tmp_path / "cost")
    page = (made / "index.html").read_text(encoding="utf-8")
    assert "Memory and speed" in page
    # Of trainings, too; a report without costs has no clock in it.
    assert "8,642" in page
    assert "not measured" in page
    without = report(tmp_path / "without", **folders)
    assert "8,642" not in (without / "index.html").read_text(encoding="utf-8")
    speed.write_text('{"seconds": "soon"}')
    with pytest.raises(InputError, match=r"throughput\.volatile\.json: says no speed of training"):
        report(tmp_path / "wrong", **folders, costs=tmp_path / "cost")
    manifest = artifacts.read_manifest(made) or {}
    assert manifest["deterministic"] == "shows times that were measured"
    with pytest.raises(InputError, match="measure the costs again"):
        report(tmp_path / "other", **run_folders, costs=tmp_path / "nowhere")


def test_every_number_of_a_model_leads_to_its_predictions_and_to_its_questions(page) -> None:
    table = '//figure[@id="accuracy-medical-en-letter-3shot"]'
    row = page.xpath(f'{table}//tr[th="base"]')[0]
    keys = [
        page.get_element_by_id(anchor).xpath("string(h4)")
        for anchor in row.get("data-from").split()
    ]
    assert keys == ["predictions/base", "scores/scores"]
    assert row.xpath("td/@data-asked")[0] == "anatomy|en|letter|3"
    assert not page.xpath(f'{table}//tr[@class="baseline"]/td/@data-asked')


def test_a_report_within_its_run_links_to_folders_and_manifests(run_folders, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_folders["scores"], run / "scores/scores")
    made = report(run / "report/report", **{**run_folders, "scores": run / "scores/scores"})
    page = lxml.html.fromstring((made / "index.html").read_text(encoding="utf-8"))
    links = [link for link in page.xpath("//a/@href") if link.startswith("..")]
    assert links == ["../../scores/scores/", "../../scores/scores/manifest.json"]
    assert all((made / link).exists() for link in links)


def test_numbers_tell_where_they_are_from_without_a_mouse(made: Path, browser) -> None:
    browser.open((made / "index.html").as_uri())
    browser.wait("document.querySelector('.hint') && !document.querySelector('.hint').hidden")
    said = "document.getElementById('origin').textContent"
    browser.run("document.querySelector('figure.table td[tabindex=\"0\"]').focus()")
    assert "Anatomy & more, base: 95 % interval 45.0 to 55.0" in browser.run(said)
    browser.press("ArrowRight")
    assert "Heart, base" in browser.run(said)
    browser.press("Enter")
    assert browser.run("document.activeElement.textContent") == "predictions/base"
    browser.run("document.activeElement.click()")
    browser.wait("document.getElementById('made').open")
    assert browser.complaints == []


def test_translations_have_a_section_and_a_page_each(run_folders, scores, tmp_path: Path) -> None:
    each = Translation(
        *("heart-1", "heart", "ar", "test", 0, "translated", 1, ()),
        *("Which bone is it?", ("one", "two"), "", "أي عظم هو؟", ("واحد", "اثنان"), ""),
    )
    for name in ("tr", "quality"):
        (tmp_path / name).mkdir()
    write_records(tmp_path / "tr/translations.parquet", [each], Translation)
    quality = TranslationQuality("heart-1", "heart", "ar", "test", 0.8, 0, 0, "", None)
    write_records(tmp_path / "quality/quality.parquet", [quality], TranslationQuality)
    row = dict.fromkeys(("questions", "translated", "failed", "reviewed", "collisions"), 1)
    row |= dict.fromkeys(("tried_again", "length_ratio", "terms_kept", "chrf", "bleu"))
    totals = {"signatures": {}, "rows": [{"task": "heart", "language": "ar", **row}]}
    artifacts.write_json(tmp_path / "quality/totals.json", totals)
    bare: dict[str, dict[str, Path]] = {"models": {}, "corpora": {}, "overlaps": {}}
    folders = {**run_folders, **bare, "scores": _only(scores[:2], tmp_path / "scores")}
    translations = {"tr": (tmp_path / "tr", tmp_path / "quality")}
    for texts, shown in (("open", True), ("none", False)):
        made = report(
            tmp_path / f"report-{texts}", **folders, translations=translations, texts=texts
        )
        index = lxml.html.fromstring((made / "index.html").read_text(encoding="utf-8"))
        [link] = index.xpath('//section[@id="section-translations"]/p[@class="links"]/a/@href')
        page = (made / link).read_text(encoding="utf-8")
        assert ("أي عظم هو؟" in page) is shown
