from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from biomistral.errors import ModelError
from biomistral.models.chat import chat_prompt
from biomistral.models.loading import load_tokenizer

MISTRAL = "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"


@pytest.fixture
def with_template(tiny_model, tmp_path):
    """Return a function: template -> folder of a model with it."""

    def make(template: str) -> Path:
        folder = Path(shutil.copytree(tiny_model, tmp_path / "chat"))
        tokenizer = load_tokenizer(folder)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
        return folder

    return make


def test_the_message_is_in_the_form_of_the_template_without_the_opening_token(with_template):
    prompt = chat_prompt(with_template(MISTRAL))
    assert prompt("Which bark?") == "[INST] Which bark? [/INST]"


def test_what_a_message_quotes_is_left_alone(with_template):
    prompt = chat_prompt(with_template(MISTRAL))
    assert prompt("</s> {{ bos_token }}") == "[INST] </s> {{ bos_token }} [/INST]"


def test_a_model_without_a_template_is_refused(tiny_model):
    with pytest.raises(ModelError, match="its tokenizer has no chat template"):
        chat_prompt(tiny_model)


def test_a_template_of_control_tokens_is_refused(with_template):
    folder = with_template("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}")
    with pytest.raises(ModelError, match=r"writes the control tokens \['</s>'\]"):
        chat_prompt(folder)
