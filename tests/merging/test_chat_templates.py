"""The chat template of a merge: the most frequent, or the one that is given."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import AutoTokenizer

from biomistral.errors import RecipeError
from biomistral.merging.chat_templates import (
    check_chat_template,
    choose_chat_template,
    read_chat_template,
    write_chat_template,
)
from biomistral.models.checkpoints import Checkpoint

ONE, OTHER = "{{ messages[0].content }}", "{% for m in messages %}{{ m.content }}!{% endfor %}"


@pytest.fixture
def models(tiny_model, tmp_path):
    """Return a function from templates by name to opened copies of a model that have them."""

    def make(**templates):
        opened = {}
        for name, template in templates.items():
            folder = shutil.copytree(tiny_model, tmp_path / name)
            if template:
                (folder / "chat_template.jinja").write_text(template)
            opened[name] = Checkpoint(folder)
        return opened

    return make


def test_auto_takes_the_most_frequent(models):
    found = models(a=ONE, base=None, b=OTHER, c=f"\n{OTHER} ")
    assert choose_chat_template("auto", found, "base") == OTHER


def test_of_equally_frequent_ones_the_base_wins_and_then_the_first(models):
    found = models(a=ONE, base=OTHER, b=None)
    assert choose_chat_template("auto", found, "base") == OTHER
    assert choose_chat_template("auto", found, "b") == ONE


def test_auto_without_any_template_is_none(models):
    assert choose_chat_template("auto", models(a=None, b=None), "a") is None


def test_a_text_is_taken_as_it_is(models):
    assert choose_chat_template(ONE, models(a=OTHER), "a") == ONE


def test_a_name_is_refused_by_name():
    with pytest.raises(RecipeError, match=r"chat_template 'chatml' is a name.*allowed are auto"):
        check_chat_template("chatml")
    check_chat_template("auto")


@pytest.mark.parametrize(
    "value", [ONE, [{"name": "x", "template": "no"}, {"name": "default", "template": ONE}]]
)
def test_templates_in_the_old_place_are_found(models, value):
    folder = models(a=None)["a"].folder
    change_config(folder, value)
    assert read_chat_template(folder) == ONE
    (folder / "chat_template.jinja").write_text(OTHER)  # Transformers prefers this one
    assert (
        read_chat_template(folder) == OTHER == AutoTokenizer.from_pretrained(folder).chat_template
    )


def change_config(folder, value):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": value}))


def test_a_written_template_is_the_only_one(models):
    folder = models(a=None)["a"].folder
    change_config(folder, OTHER)
    write_chat_template(ONE, folder)
    assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Fever?"}], tokenize=False)
    assert text == "Fever?"
