"""A message in the chat template of a model."""

from __future__ import annotations

import shutil

import pytest

from biomistral.errors import ModelError
from biomistral.models.chat import message_renderer
from biomistral.models.control_tokens import mark
from biomistral.models.loading import load_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
    "{% if add_generation_prompt %}>{% endif %}"
)


def saved(tiny_model, folder, template):
    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def test_the_message_is_rendered_up_to_the_answer_and_without_the_opening_token(
    tiny_model, tmp_path
):
    render = message_renderer(saved(tiny_model, tmp_path, TEMPLATE))
    assert render("Which herb?") == "[INST] Which herb? [/INST]>"


def test_a_model_without_a_chat_template_is_refused(tiny_model):
    with pytest.raises(ModelError, match="has no chat template; evaluate an instruct model"):
        message_renderer(tiny_model)


def test_a_template_that_fails_is_said(tiny_model, tmp_path):
    broken = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ModelError, match=r"its chat template fails .roles must alternate"):
        message_renderer(saved(tiny_model, tmp_path, broken))


def test_control_tokens_of_the_template_are_marked_and_those_of_the_message_are_not(
    tiny_model, tmp_path
):
    render = message_renderer(saved(tiny_model, tmp_path, TEMPLATE + "{{ eos_token }}"))
    bos, eos = mark("<s>"), mark("</s>")
    assert render("What is </s>?") == f"{bos}[INST] What is </s>? [/INST]>{eos}"


@pytest.mark.parametrize("change", ["| upper", "| replace('?', '!')", "* 2"])
def test_a_template_that_changes_the_message_is_refused(tiny_model, tmp_path, change):
    template = TEMPLATE.replace("m['content']", f"m['content'] {change}")
    with pytest.raises(ModelError, match="changes the message that it is given, or repeats it"):
        message_renderer(saved(tiny_model, tmp_path, template))("Which herb?")


def test_blanks_that_a_template_cuts_are_no_change(tiny_model, tmp_path):
    template = TEMPLATE.replace("m['content']", "m['content'] | trim")
    assert message_renderer(saved(tiny_model, tmp_path, template))(" x ") == "[INST] x [/INST]>"


def test_what_a_message_quotes_is_left_alone(tiny_model, tmp_path):
    render = message_renderer(saved(tiny_model, tmp_path, TEMPLATE))
    assert render("</s>?") == "[INST] </s>? [/INST]>"
