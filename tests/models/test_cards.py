from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from biomistral.advisory import ADVISORY
from biomistral.errors import InputError
from biomistral.models.cards import (
    Card,
    escape_markdown,
    read_card,
    read_front_matter,
    render_card,
    write_card,
)

CARD = Card(
    name="suite-slerp",
    base_models=("owner/base", "/home/somebody/models/local-base"),
    relation="merge",
    description="Halfway between two models.",
    details={"Method": "slerp, t | 0.5"},
    languages=("en", "no"),
    datasets=("pmc open_access",),
)


def front_matter(text: str) -> dict[str, object]:
    _, matter, _ = text.split("---\n", 2)
    values = yaml.safe_load(matter)
    assert isinstance(values, dict)
    return values


def test_front_matter_is_what_the_hub_reads() -> None:
    assert front_matter(render_card(CARD)) == {
        "license": "other",
        "language": ["en", "no"],  # Norwegian stays text: bare `no` is a boolean in YAML
        "base_model": ["owner/base"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["medical", "biomistral", "merge"],
    }


def test_a_model_made_from_nothing_names_no_base() -> None:
    matter = front_matter(render_card(Card("fresh", (), None, "Random weights.")))
    assert "base_model" not in matter
    assert "base_model_relation" not in matter


def test_every_card_carries_the_advisory() -> None:
    assert ADVISORY in render_card(CARD)
    assert ADVISORY in render_card(CARD, results="some")


def test_a_local_path_shows_only_its_last_part() -> None:
    text = render_card(CARD)
    assert "local-base" in text
    assert "/home/somebody" not in text


def test_results_replace_the_notice_that_there_are_none() -> None:
    assert "Not in this file" in render_card(CARD)
    text = render_card(CARD, results="| task | accuracy |")
    assert "| task | accuracy |" in text
    assert "Not in this file" not in text


def test_a_licence_is_stated_only_if_one_was_given() -> None:
    assert "Licence of the weights: not stated; those of the base models" in render_card(CARD)
    given = render_card(replace(CARD, licence="mit"))
    assert front_matter(given)["license"] == "mit"
    assert "The weights are under mit." in given
    assert "not stated" not in given


def test_a_bar_in_a_detail_does_not_break_its_row() -> None:
    assert r"| Method | slerp, t \| 0.5 |" in render_card(CARD)


def test_markup_in_a_name_stays_text() -> None:
    assert escape_markdown("a_b*c <script>\n|x") == r"a\_b\*c \<script\> \|x"


def test_a_written_card_is_read_back_equal(tmp_path) -> None:
    write_card(tmp_path, CARD)
    assert read_card(tmp_path) == CARD
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == render_card(CARD)


@pytest.mark.parametrize(
    ("readme", "languages", "datasets"),
    [
        (
            "---\nlanguage: fr\ndatasets:\n- pubmed\n- owner/notes\n---\n# A",
            ("fr",),
            ("pubmed", "owner/notes"),
        ),
        ("---\nlanguage: [en, no, de]\n---\n", ("en", "no", "de"), ()),
        ("---\nlicense: mit\n---\n", (), ()),
    ],
)
def test_the_front_matter_of_the_hub_tells_languages_and_data(
    tmp_path, readme, languages, datasets
) -> None:
    (tmp_path / "README.md").write_text(readme)
    found = read_front_matter(tmp_path)
    assert found is not None
    assert (found.languages, found.datasets) == (languages, datasets)


@pytest.mark.parametrize(
    "readme", ["# No front matter", "---\n: [\n---\n", "---\n- a\n---\n", None]
)
def test_a_front_matter_that_is_none_says_nothing(tmp_path, readme) -> None:
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    assert read_front_matter(tmp_path) is None


def test_a_folder_without_a_card_has_none(tmp_path) -> None:
    assert read_card(tmp_path) is None


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"name": "x"})])
def test_a_broken_card_is_named(tmp_path, content: str) -> None:
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(InputError, match=r"card\.json: is no model card of biomistral"):
        read_card(tmp_path)


def test_more_keys_go_before_the_cards_own_and_nothing_removes() -> None:
    matter = front_matter(render_card(CARD, more={"library_name": "gguf", "base_model": None}))
    assert matter["library_name"] == "gguf"
    assert "base_model" not in matter
    assert matter["base_model_relation"] == "merge"
