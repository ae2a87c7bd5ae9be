"""Folders with task.yaml."""

from __future__ import annotations

import pytest

from biomistral.benchmark.own_tasks import find_own_tasks, read_own_task
from biomistral.errors import InputError

TASK = "name: herbs\ntitle: Herbs\nsource: invented\nlicence: CC0\n"
LINE = {"id": "1", "stem": "s", "choices": ["a", "b"], "gold": 1}


def test_language_folders_and_defaults(tmp_path, write_own_task):
    files = {"fr/test.jsonl": [LINE], "en/test.jsonl": [LINE], "en/train.jsonl": [LINE]}
    own = read_own_task(write_own_task(tmp_path / "a", TASK, files) / "task.yaml")
    assert (own.description.group, own.description.note) == ("medical", "")
    assert set(own.files) == {("fr", "test"), ("en", "test"), ("en", "train")}
    assert own.files["fr", "test"] == tmp_path / "a" / "fr" / "test.jsonl"


def test_a_task_of_one_language_needs_no_folder_but_must_name_it(tmp_path, write_own_task):
    files = {"test.jsonl": [LINE], "validation.jsonl": [LINE]}
    own = read_own_task(
        write_own_task(tmp_path / "a", f"{TASK}languages: [de]\n", files) / "task.yaml"
    )
    assert set(own.files) == {("de", "test"), ("de", "validation")}
    folder = write_own_task(tmp_path / "b", TASK, files)
    with pytest.raises(InputError, match=r"languages must name the one.*languages: \[en\]"):
        read_own_task(folder / "task.yaml")


def test_tasks_are_found_in_the_folder_and_one_below_it_in_order(tmp_path, write_own_task):
    write_own_task(tmp_path / "b", TASK, {"en/test.jsonl": [LINE]})
    write_own_task(tmp_path / "a", TASK.replace("herbs", "moss"), {"en/test.jsonl": [LINE]})
    assert [own.description.name for own in find_own_tasks(tmp_path)] == ["moss", "herbs"]
    assert [own.description.name for own in find_own_tasks(tmp_path / "b")] == ["herbs"]


@pytest.mark.parametrize(
    ("description", "files", "message"),
    [
        ("name: herbs\n", ["en/test.jsonl"], "lacks the key 'title'; lacks the key 'source'"),
        (f"{TASK}nots: x\n", ["en/test.jsonl"], "unknown key 'nots'.*did you mean \"note\""),
        (f"{TASK}languages: [it]\n", ["en/test.jsonl"], "languages.0 is 'it'"),
        (TASK.replace("herbs", "a/b"), ["en/test.jsonl"], "name is 'a/b'"),
        (TASK.replace("herbs", "average"), ["en/test.jsonl"], "cannot be named average"),
        ("[1", ["en/test.jsonl"], "is no valid YAML"),
        ("- 1", ["en/test.jsonl"], "must be a mapping"),
        (TASK, ["en/train.jsonl"], r"no test\.jsonl for any language"),
        (f"{TASK}languages: [en, fr]", ["en/test.jsonl"], r"no test\.jsonl for fr"),
        (f"{TASK}languages: [en]", ["en/test.jsonl", "fr/test.jsonl"], "there are files for fr"),
        (TASK, ["en/test.jsonl", "test.jsonl"], "both beside task.yaml and in language folders"),
        (TASK, ["it/test.jsonl"], "'it' is not one of the languages en, fr"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, write_own_task, description, files, message):
    folder = write_own_task(tmp_path / "a", description, {name: [LINE] for name in files})
    with pytest.raises(InputError, match=message):
        read_own_task(folder / "task.yaml")
