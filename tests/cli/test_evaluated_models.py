from __future__ import annotations

import pytest

from biomistral.cli.evaluated_models import plain_name, sources
from biomistral.errors import InputError


def test_checkpoints_and_served_models_are_told_apart(tmp_path):
    (tmp_path / "m=7").mkdir()
    words = [
        str(tmp_path / "m=7"), "owner/name", "base=owner/other", "https://h.example/v1#gpt-4.1",
        "own=http://127.0.0.1:8000/v1#m:7b",
    ]  # fmt: skip
    assert sources(words, None) == {
        "m-7": {"path": str(tmp_path / "m=7")},
        "name": {"path": "owner/name"},
        "base": {"path": "owner/other"},
        "gpt-4.1": {"endpoint": "https://h.example/v1", "model": "gpt-4.1"},
        "own": {"endpoint": "http://127.0.0.1:8000/v1", "model": "m:7b"},
    }


def test_fields_are_for_served_models_and_read_as_yaml():
    api = ["input_price=0.5", "key_variable=MY_KEY", "top_logprobs=5"]
    found = sources(["o/n", "https://h/v1#a"], None, api)
    assert found["n"] == {"path": "o/n"}
    wanted = {"input_price": 0.5, "key_variable": "MY_KEY", "top_logprobs": 5}
    assert wanted.items() <= found["a"].items()


@pytest.mark.parametrize(
    ("words", "api", "said"),
    [
        (["https://h/v1"], [], r"says where, and not which model; write it as https://h/v1#MODEL"),
        (["https://h/v1#"], [], "not which model"),
        (["o/n", "p/n"], [], "another model is called 'n', too; write one as NAME=p/n"),
        (["x=o/n", "x=p/n"], [], "write one as NAME=p/n"),
        (["o/n"], ["retries=1"], "--api retries=1: no model is served"),
        (["https://h/v1#a"], ["retries"], "is not of the form FIELD=VALUE"),
    ],
)
def test_what_cannot_be_meant_is_refused(words, api, said):
    with pytest.raises(InputError, match=said):
        sources(words, None, api)


def test_names_are_of_plain_characters(tmp_path):
    assert plain_name(tmp_path / "modèle 7b") == "mod-le-7b"
    assert plain_name(tmp_path / "...") == "evaluation"
