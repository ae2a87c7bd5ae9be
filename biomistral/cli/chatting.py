"""What ``biomistral chat`` does: a conversation in the terminal.

Lines that begin with / are commands, the table below. Ctrl-C ends the answer that is being given and
not the program; Ctrl-D or /quit ends that. Knows nothing about how tokens are chosen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from biomistral.advisory import ADVISORY
from biomistral.cli.generating import Settings, Source, cost, errors, load, stream, write_now
from biomistral.errors import BiomistralError, InputError, did_you_mean

if TYPE_CHECKING:
    from biomistral.models.generating import Engine

_YOU, _MORE = "> ", ". "


@dataclass
class Conversation:
    """What was said so far, and how answers are drawn."""

    settings: Settings
    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)

    def all(self) -> list[dict[str, str]]:
        """Return the messages, what the model is told first of all before them."""
        told = [{"role": "system", "content": self.system}] if self.system is not None else []
        return told + self.messages


def chat(source: Source, settings: Settings, *, system: str | None) -> None:
    """Talk until the end of the input."""
    settings.sampling(1)  # wrong values are said before the model is loaded
    engine, tokenizer = load(source)
    talk = Conversation(settings, system)
    console = errors()
    _check_template(tokenizer, talk, source.model)
    console.print(ADVISORY, style="bold")
    console.print(f"{source.model}; /help lists the commands, Ctrl-D ends it", style="dim")
    with engine:
        while (line := _read(console)) is not None:
            try:
                message = _obey(line, talk, console) if line.startswith("/") else line
                if message == _QUIT:
                    break
                if message:
                    _answer(engine, tokenizer, talk, message, source.model, console)
            except BiomistralError as error:  # one question fails, the conversation goes on
                console.print(f"error: {error}", style="red")
            except KeyboardInterrupt:  # before the first word, or after the last
                console.print("stopped", style="dim")


def _check_template(tokenizer: Any, talk: Conversation, where: str) -> None:
    """Say at once, not after the first question, that a model cannot chat."""
    from biomistral.models.conversations import conversation_ids

    trial = Conversation(talk.settings, talk.system, [{"role": "user", "content": "?"}])
    conversation_ids(tokenizer, trial.all(), where=where)


def _answer(
    engine: Engine,
    tokenizer: Any,
    talk: Conversation,
    message: str,
    where: str,
    console: Console,
) -> None:
    """Answer a message; both become part of the conversation, unless there is an error."""
    from biomistral.models.conversations import conversation_ids

    asked = Conversation(talk.settings, talk.system, [*talk.messages, _user(message)])
    ids = conversation_ids(tokenizer, asked.all(), where=where)
    num_left_out = 0
    wanted = talk.settings.max_tokens or 1
    while engine.room(len(ids)) < wanted and len(asked.messages) > 2:
        del asked.messages[:2]
        num_left_out += 2
        ids = conversation_ids(tokenizer, asked.all(), where=where)
    if num_left_out:
        console.print(
            f"the first {num_left_out} messages no longer fit into the context and are left out",
            style="dim",
        )
    answer = stream(engine, ids, talk.settings, write_now, bare_start=True)
    write_now("\n")
    talk.messages += [_user(message), {"role": "assistant", "content": answer.text.rstrip()}]
    console.print(cost(answer), style="dim")


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _read(console: Console) -> str | None:
    """Return what is typed, lines that end in a backslash joined; None at the end of the input."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - lines can be edited and called back

    text, prompt = "", _YOU
    while True:
        try:
            line = input(prompt) if sys.stdin.isatty() else _piped()
        except EOFError:
            return text or None
        except KeyboardInterrupt:
            console.print("\n/quit or Ctrl-D ends the conversation", style="dim")
            text, prompt = "", _YOU
            continue
        if line.endswith("\\"):
            text, prompt = text + line[:-1] + "\n", _MORE
            continue
        if text + line.strip():
            return text + line


def _piped() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


# --- commands -------------------------------------------------------------------------------------

_QUIT = "/quit"


def _obey(line: str, talk: Conversation, console: Console) -> str | None:
    """Do what a command says; return a message to answer, if it asks for one."""
    name, _, rest = line.partition(" ")
    command = _COMMANDS.get(name)
    if command is None:
        raise InputError(f"{name}: is no command{did_you_mean(name, _COMMANDS)}; /help lists them")
    return command[1](talk, rest.strip(), console)


def _help(_talk: Conversation, _rest: str, console: Console) -> None:
    for name, (meaning, _) in _COMMANDS.items():
        console.print(f"{name:10} {meaning}", style="dim")


def _reset(talk: Conversation, _rest: str, console: Console) -> None:
    talk.messages.clear()
    console.print("the conversation begins anew", style="dim")


def _system(talk: Conversation, rest: str, console: Console) -> None:
    talk.system = rest or None
    _reset(talk, rest, console)


def _retry(talk: Conversation, _rest: str, _console: Console) -> str:
    asked = [place for place, each in enumerate(talk.messages) if each["role"] == "user"]
    if not asked:
        raise InputError("/retry: nothing was asked yet")
    message = talk.messages[asked[-1]]["content"]
    del talk.messages[asked[-1] :]
    return message


def _set(talk: Conversation, rest: str, console: Console) -> None:
    """Change a setting; without one, show all."""
    fields = {each.name: each for each in dataclasses.fields(Settings)}
    if rest:
        name, sign, value = rest.partition("=")
        if not sign or name.strip() not in fields:
            raise InputError(
                f"/set {rest}: wanted is NAME=VALUE, NAME one of {', '.join(fields)}"
                f"{did_you_mean(name, fields)}"
            )
        changed = dataclasses.replace(talk.settings, **{name.strip(): _value(name, value)})
        changed.sampling(1)
        talk.settings = changed
    for name in fields:
        console.print(f"{name} = {getattr(talk.settings, name)}", style="dim")


def _value(name: str, text: str) -> Any:
    name, text = name.strip(), text.strip()
    if name == "stop":
        return tuple(word for word in text.split(",") if word)
    if name in {"max_tokens", "seed"} and text.lower() in {"", "none"}:
        return None
    kind = int if name in {"max_tokens", "top_k", "seed"} else float
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"/set {name}={text}: is not a number") from None


def _save(talk: Conversation, rest: str, console: Console) -> None:
    path = Path(_named(rest, "/save"))
    try:
        path.write_text(json.dumps(talk.all(), ensure_ascii=False, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); name another file"
        ) from None
    console.print(f"{path}: {len(talk.messages)} messages", style="dim")


def _load(talk: Conversation, rest: str, console: Console) -> None:
    path = Path(_named(rest, "/load"))
    try:
        messages = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a conversation ({error})") from None
    if not (isinstance(messages, list) and all(_is_message(each) for each in messages)):
        raise InputError(
            f"{path}: is no conversation; wanted is a list of messages with role and content, as "
            "/save writes it"
        )
    told = [m["content"] for m in messages if m["role"] == "system"]
    talk.system = told[0] if told else None
    talk.messages = [m for m in messages if m["role"] != "system"]
    console.print(f"{path}: {len(talk.messages)} messages", style="dim")


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(k), str) for k in ("role", "content")
    )


def _named(rest: str, command: str) -> str:
    if not rest:
        raise InputError(f"{command}: wanted is the name of a file, such as {command} talk.json")
    return rest


def _quit(_talk: Conversation, _rest: str, _console: Console) -> str:
    return _QUIT


_Command = Callable[[Conversation, str, Console], str | None]
_COMMANDS: Mapping[str, tuple[str, _Command]] = {
    "/help": ("list the commands", _help),
    "/reset": ("forget what was said", _reset),
    "/retry": ("answer the last message once more", _retry),
    "/system": ("TEXT: what the model is told before all else; begins anew", _system),
    "/set": ("NAME=VALUE: change how answers are drawn; alone: show it", _set),
    "/save": ("FILE: write the conversation, as JSON", _save),
    "/load": ("FILE: go on with a conversation that was saved", _load),
    _QUIT: ("end (also Ctrl-D); Ctrl-C only ends an answer", _quit),
}
