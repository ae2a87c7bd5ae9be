"""A conversation in the terminal: history, commands, and errors that do not end it."""

from __future__ import annotations

import io
import json
import shutil

import pytest

from biomistral.advisory import ADVISORY
from biomistral.cli import chatting

TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@pytest.fixture
def chat(command, tiny_model, tmp_path, monkeypatch):
    """Return a function: lines that are typed -> what was answered and said beside it."""
    model = tmp_path / "chat-model"
    shutil.copytree(tiny_model, model)
    (model / "chat_template.jinja").write_text(TEMPLATE)

    def talk(*lines, options=()):
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
        done = command("chat", model, "--temperature", "0", "--max-tokens", "6", *options)
        assert done.status == 0, done.err
        return done

    return talk


def saved(path):
    return json.loads(path.read_text("utf-8"))


def test_the_advisory_is_said_before_the_first_question(chat):
    assert ADVISORY in chat("Rest?").err


def test_the_conversation_is_kept_and_can_be_saved_and_gone_on_with(chat, tmp_path):
    path = tmp_path / "talk.json"
    chat("Rest?", "And bark?", f"/save {path}")
    messages = saved(path)
    assert [m["role"] for m in messages] == ["user", "assistant", "user", "assistant"]
    assert messages[2]["content"] == "And bark?"
    chat(f"/load {path}", "Why?", f"/save {path}")
    assert saved(path)[:4] == messages
    assert len(saved(path)) == 6


def test_what_was_said_before_is_read_again(chat):
    first = chat("Rest?", "And bark?").err
    assert chat("And bark?").err.count("tokens read") == 1
    read = [int(line.split()[0]) for line in first.splitlines() if "tokens read" in line]
    assert read[1] > 2 * read[0] - 5


def test_reset_and_system_begin_anew(chat, tmp_path):
    path = tmp_path / "talk.json"
    chat("Rest?", "/reset", "Bark?", f"/save {path}")
    assert saved(path)[0]["content"] == "Bark?"
    chat("Rest?", "/system Be brief.", "Bark?", f"/save {path}")
    assert [(m["role"], m["content"]) for m in saved(path)][:2] == [
        ("system", "Be brief."), ("user", "Bark?")
    ]  # fmt: skip
    chat("Bark?", f"/save {path}", options=["--system", "Be kind."])
    assert saved(path)[0]["content"] == "Be kind."


def test_retry_answers_the_last_message_again(chat, tmp_path):
    path = tmp_path / "talk.json"
    chat("Rest?", "/retry", f"/save {path}")
    assert saved(path)[0]["content"] == "Rest?"
    assert len(saved(path)) == 2


def test_settings_can_be_seen_and_changed(chat):
    err = chat("/set temperature=0.5", "/set stop=a,b", "/set seed=none").err
    assert "temperature = 0.5" in err
    assert "stop = ('a', 'b')" in err
    assert "max_tokens = 6" in err


def test_a_backslash_at_the_end_goes_on_in_the_next_line(chat, tmp_path):
    path = tmp_path / "talk.json"
    chat("Rest \\", "or bark?", f"/save {path}")
    assert saved(path)[0]["content"] == "Rest \nor bark?"


def test_quit_ends_it_and_empty_lines_are_nothing(chat):
    assert chat("", "  ", "/quit", "Rest?").err.count("tokens read") == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/rset", '/rset: is no command; did you mean "/reset"?'),
        ("/set heat=1", "NAME one of max_tokens, temperature"),
        ("/set temperature=warm", "/set temperature=warm: is not a number"),
        ("/set top_p=3", "top_p is 3.0; allowed is above 0, at most 1"),
        ("/retry", "/retry: nothing was asked yet"),
        ("/save", "/save: wanted is the name of a file"),
        ("/load none.json", "none.json: cannot be read as a conversation"),
        ("/save /nowhere/at/all.json", "/nowhere/at/all.json"),
    ],
)
def test_a_wrong_command_is_explained_and_the_conversation_goes_on(chat, line, message):
    err = chat(line, "Rest?").err
    assert message in err
    assert err.count("tokens read") == 1


def test_a_file_that_is_no_conversation_is_refused(chat, tmp_path):
    (tmp_path / "other.json").write_text('{"a": 1}')
    assert "is no conversation; wanted is a list" in chat(f"/load {tmp_path}/other.json").err


def test_help_lists_every_command(chat):
    err = chat("/help").err
    assert all(name in err for name in chatting._COMMANDS)


def test_the_oldest_messages_make_room_when_the_context_is_full(chat, tmp_path):
    path = tmp_path / "talk.json"
    question = "bark and rest " * 12
    err = chat(*[question] * 9, f"/save {path}").err
    assert "messages no longer fit into the context and are left out" in err
    assert err.count("tokens read") == 9
    assert len(saved(path)) == 18


def test_a_single_message_over_the_context_is_an_error_and_not_the_end(chat):
    err = chat("bark and rest " * 300, "Rest?").err
    assert "the model's context is 512" in err
    assert err.count("tokens read") == 1


def test_ctrl_c_before_the_first_word_does_not_end_the_conversation(chat, monkeypatch):
    answer, interruptions = chatting._answer, [KeyboardInterrupt]

    def interrupted(*words):
        if interruptions:
            raise interruptions.pop()
        answer(*words)

    monkeypatch.setattr(chatting, "_answer", interrupted)
    err = chat("Rest?", "And bark?").err
    assert "stopped" in err
    assert err.count("tokens read") == 1


def test_a_model_without_a_template_is_refused_before_the_first_question(command, tiny_model):
    done = command("chat", tiny_model)
    assert done.status == 2
    assert "has no chat template; use an instruct model" in done.err
