"""What ``biomistral generate`` writes, and where to."""

from __future__ import annotations

import io
import shutil

import pytest

from biomistral.advisory import ADVISORY
from biomistral.cli import generating
from biomistral.cli.generating import Settings, Source, stream
from biomistral.models.conversations import plain_ids
from biomistral.models.generating import Engine
from biomistral.models.loading import load_model, load_tokenizer

PROMPT = "The fever of the river"


@pytest.fixture(scope="module")
def engine(tiny_model):
    model = load_model(tiny_model, precision="float32")
    with Engine(model, load_tokenizer(tiny_model), max_batch=1) as engine:
        yield engine


def test_the_answer_goes_out_and_the_advisory_beside_it(command, tiny_model):
    done = command("generate", tiny_model, PROMPT, "--max-tokens", "7")
    assert done.status == 0
    assert ADVISORY not in done.out
    assert ADVISORY in done.err
    assert "tokens read, 7 written in" in done.err
    assert "cut at its longest length" in done.err


def test_a_seed_says_the_same_again(command, tiny_model):
    words = ("generate", tiny_model, PROMPT, "--temperature", "1", "--max-tokens", "12", "--seed")
    assert command(*words, "3").out == command(*words, "3").out != command(*words, "4").out


def test_the_prompt_may_come_from_a_pipe(command, tiny_model, monkeypatch):
    typed = command("generate", tiny_model, PROMPT, "--max-tokens", "7")
    for words in ([], ["-"]):
        monkeypatch.setattr("sys.stdin", io.StringIO(PROMPT + "\n"))
        assert command("generate", tiny_model, *words, "--max-tokens", "7").out == typed.out


def test_a_prompt_over_the_context_is_refused(command, tiny_model):
    done = command("generate", tiny_model, "fever " * 600)
    assert done.status == 2
    assert "the model's context is 512; shorten the prompt" in done.err


def test_a_system_message_without_chat_is_refused(command, tiny_model):
    done = command("generate", tiny_model, "x", "--system", "Be brief.")
    assert (done.status, "--system has no effect without --chat" in done.err) == (2, True)


def test_models_without_a_template_cannot_chat(command, tiny_model):
    done = command("generate", tiny_model, "x", "--chat")
    assert done.status == 2
    assert "its tokenizer has no chat template" in done.err


def test_models_without_a_tokenizer_are_said(command, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    for path in (tmp_path / "model").glob("tokenizer*"):
        path.unlink()
    done = command("generate", tmp_path / "model", "x")
    assert done.status == 2
    assert "tokenizer" in done.err


def test_a_template_is_used_when_asked_for(tiny_model, tmp_path, capsys):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    )
    source = Source(str(tmp_path / "model"), precision="float32")
    settings = Settings(max_tokens=8)
    generating.generate(source, "Rest?", settings, chat=True, system="Be brief.")
    chatted = capsys.readouterr().out
    written = "system: Be brief.\nuser: Rest?\n"
    generating.generate(source, written, settings, chat=False, system=None)
    # The tokenizer puts <s> before a plain text, the template does not, so only the form is alike.
    assert capsys.readouterr().out
    assert chatted.endswith("\n")


def test_ctrl_c_ends_an_answer_and_keeps_what_was_said(engine):
    written = []

    def write(text):
        written.append(text)
        if len(written) == 5:
            raise KeyboardInterrupt

    ids = plain_ids(engine._tokenizer, PROMPT)
    answer = stream(engine, ids, Settings(max_tokens=300), write)
    assert (answer.finish, answer.num_tokens) == ("cancelled", 5)
    assert answer.text == "".join(written)
    assert stream(engine, ids, Settings(max_tokens=3), written.append).num_tokens <= 3


def test_an_answer_is_as_long_as_there_is_room_for(engine):
    assert Settings().sampling(room=100).max_new_tokens == 100
    assert Settings().sampling(room=10_000).max_new_tokens == 512
    assert Settings(max_tokens=7).sampling(room=3).max_new_tokens == 7  # the engine refuses it
