"""Names of models: folders, hub repositories, revisions, adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from biomistral.errors import InputError
from biomistral.merging.references import (
    Part,
    Reference,
    identity,
    labels,
    locate,
    parse_reference,
    read_reference,
    shown,
)


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


def test_the_long_form_of_mergekit_is_read():
    long = {"model": {"path": "a/b", "revision": "x"}, "lora": {"path": "c/d", "revision": None}}
    assert read_reference(long) == Reference(Part("a/b", "x"), Part("c/d"))
    assert read_reference({"model": "a/b@x"}) == parse_reference("a/b@x")
    assert read_reference({"model": {"path": "a/b"}, "lora": None}).text == "a/b"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"path": "a/b"}, "is no model; allowed are"),
        ({"model": {"path": 7}}, "is no model; write {model:"),
        ({"model": {"path": "a/b", "branch": "x"}}, "is no model; write {model:"),
        ({"model": {"path": "a/b"}, "lara": {"path": "c/d"}}, "'lara' is no key of a model"),
        ({"model": {"path": "a/b"}, "override_architecture": "X"}, "is not supported"),
    ],
)
def test_other_mappings_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        read_reference(value)


def test_a_folder_has_no_revision(tmp_path):
    for value in (f"{tmp_path}@x", {"model": {"path": str(tmp_path), "revision": "x"}}):
        with pytest.raises(ValueError, match="is a folder here, which has no revision 'x'"):
            read_reference(value)


def test_all_names_of_a_folder_are_one_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("m").mkdir()
    Path("link").symlink_to("m")
    names = ("m", "m/", "./m", "link", str(tmp_path / "m"))
    assert len({identity(parse_reference(name)) for name in names}) == 1
    assert identity(parse_reference("a/b@x")) == parse_reference("a/b@x")


def test_the_folder_one_is_in_has_a_name(tmp_path, monkeypatch):
    (tmp_path / "tuned").mkdir()
    monkeypatch.chdir(tmp_path / "tuned")
    assert shown(".") == "tuned"


def test_equal_names_are_told_apart_by_the_folders_above():
    names = ("/x/a/m", "/x/b/m", "/y/b/m", "/z/other", "owner/m")
    assert list(labels(names).values()) == ["m (a)", "m (x, b)", "m (y, b)", "other", "owner/m"]
    assert list(labels(("/x/m", "/x/m")).values()) == ["m"]
