"""``generate`` and ``chat`` as they are typed: their options reach the room that answers."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("name", ["generate", "chat"])
def test_every_setting_of_an_answer_is_an_option(command, name):
    done = command(name, "--help")
    for option in ("max-tokens", "temperature", "top-p", "top-k", "min-p", "seed", "stop"):
        assert f"--{option}" in done.out, option


@pytest.mark.parametrize("name", ["generate", "chat"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "-1"], "temperature is -1.0; allowed is 0 to 100"),
        (["--top-p", "0"], "top_p is 0.0; allowed is above 0"),
        (["--stop", ""], "wanted are texts of one character or more"),
        (["--precision", "int3"], "--precision int3: is not known; allowed is bfloat16 or float32"),
    ],
)
def test_wrong_settings_are_said_at_once(command, tiny_model, name, options, message):
    done = command(name, tiny_model, *options)
    assert done.status == 2
    assert message in done.err


def test_a_model_that_is_not_there_is_said(command, tmp_path):
    done = command("generate", tmp_path / "none", "x")
    assert done.status == 2
    assert "there is no such folder" in done.err
