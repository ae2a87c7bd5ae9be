from __future__ import annotations

import subprocess
import sys

import pytest

from biomistral.errors import RecipeError
from biomistral.recipe.yaml_text import read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("2E-5", 2e-5),
        ("2.0e-5", 2e-5),
        (".5", 0.5),
        ("1", 1),
        ("010", 10),
        ("-3", -3),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("0x1F", "0x1F"),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("'1'", "1"),
        ("~", None),
    ],
)
def test_scalars_are_read_as_yaml_1_2_has_them(text: str, value: object) -> None:
    read = read_yaml(f"key: {text}", "recipe")["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", r"thing: is not valid YAML: the key 'a' is given twice \(line 2\)"),
        ("a: [", r"thing: is not valid YAML: .* \(line 1, column 5\)"),
        ("a: 1\n---\na: 2", "thing: is not valid YAML: but found another document"),
        ("!!python/object:os.system x", "thing: is not valid YAML: could not determine"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_yaml(text, "thing")


def test_reading_yaml_loads_no_settings() -> None:
    code = "import sys, biomistral.recipe.yaml_text; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
