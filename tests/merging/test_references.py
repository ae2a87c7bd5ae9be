"""Names of models: folders, hub repositories, revisions, adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from biomistral.errors import InputError
from biomistral.merging.references import Part, Reference, locate, parse_reference, shown


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("models/one", Reference(Part("models/one"))),
        ("owner/name@abc123", Reference(Part("owner/name", "abc123"))),
        ("base+adapter", Reference(Part("base"), Part("adapter"))),
        ("a/b@x+c/d@y", Reference(Part("a/b", "x"), Part("c/d", "y"))),
    ],
)
def test_a_reference_is_read_in_parts_and_written_as_it_was(text, reference):
    assert parse_reference(text) == reference
    assert "+".join(part.text for part in reference.parts) == text


@pytest.mark.parametrize("text", ["a+b+c", "+b", "a+", "a@", "a@b@c", "@x", "a+b@"])
def test_what_is_no_reference_is_refused_with_its_text(text):
    with pytest.raises(ValueError, match=r"\+|is no model") as caught:
        parse_reference(text)
    assert repr(text) in str(caught.value)


def test_a_folder_of_that_very_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a+b", "v@1"):
        Path(name).mkdir()
    assert parse_reference("a+b") == Reference(Part("a+b"))
    assert parse_reference("v@1") == Reference(Part("v@1"))
    assert parse_reference("v@1+x") == Reference(Part("v@1"), Part("x"))


def test_every_part_is_found_once(tmp_path):
    model, adapter = tmp_path / "model", tmp_path / "adapter"
    model.mkdir()
    adapter.mkdir()
    references = [parse_reference(f"{model}"), parse_reference(f"{model}+{adapter}")]
    assert locate(references) == {str(model): model, str(adapter): adapter}
    with pytest.raises(InputError, match="there is no such folder"):
        locate([parse_reference(str(tmp_path / "none"))])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("/home/somebody/models/tuned", "tuned"),
        ("owner/name", "owner/name"),
        ("owner/name@abc", "owner/name@abc"),
        ("owner/name+/data/secret/adapter", "owner/name+adapter"),
        ("base", "base"),
    ],
)
def test_folders_on_the_way_are_not_shown(name, text):
    assert shown(name) == text
