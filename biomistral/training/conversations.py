"""Files of conversations and of preference pairs: JSON lines, checked line by line.

    {"messages": [{"role": "system"|"user"|"assistant", "content": "..."}, ...]}
    {"prompt": "..." or messages, "chosen": "..." or messages, "rejected": "..." or messages}

The field's usual forms (as TRL reads them). A system message may stand first; user and assistant
take turns, and the assistant has the last word. Other keys of a line are left alone. Knows nothing
about tokens (``conversation_tokens``).
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomistral.errors import InputError

Messages = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Spot:
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        """As errors say it."""
        return f"{self.file}, line {self.line}"

    def wrong(self, what: str) -> InputError:
        """An error that says where."""
        return InputError(f"{self}: {what}")


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with a better and a worse answer: texts, or messages."""

    prompt: str | Messages
    chosen: str | Messages
    rejected: str | Messages


def find_data_files(patterns: Sequence[str]) -> list[tuple[str, Path]]:
    """List the files that patterns match: name to show, and path.

    Raises ``InputError`` for a pattern without a file.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        matches = sorted(p for p in glob.glob(pattern, recursive=True) if Path(p).is_file())  # noqa: PTH207
        if not matches:
            raise InputError(f"{pattern}: there is no such file; name files of JSON lines")
        for match in matches:
            found[Path(match).name if len(matches) == 1 else match] = Path(match)
    return sorted(found.items())


def read_conversations(files: Sequence[Path]) -> list[tuple[Spot, Messages]]:
    """Read conversations, each with its place. Raises ``InputError`` at the first wrong line."""
    found = []
    for spot, record in _lines(files):
        if "messages" not in record:
            raise spot.wrong(f"has no messages (keys: {', '.join(record) or 'none'})")
        messages = _messages(record["messages"], "messages", spot)
        _check_turns(messages, spot)
        found.append((spot, messages))
    return found


def read_pairs(files: Sequence[Path]) -> list[tuple[Spot, Pair]]:
    """Read preference pairs, each with its place. Raises ``InputError`` at the first wrong line."""
    found = []
    for spot, record in _lines(files):
        if missing := [key for key in ("prompt", "chosen", "rejected") if key not in record]:
            raise spot.wrong(f"has no {missing[0]}; prompt, chosen and rejected are due")
        parts = [_text_or_messages(record[k], k, spot) for k in ("prompt", "chosen", "rejected")]
        if len({type(part) for part in parts}) > 1:
            raise spot.wrong(
                "mixes texts and messages; prompt, chosen and rejected are of one form"
            )
        pair = Pair(*parts)
        if pair.chosen == pair.rejected:
            raise spot.wrong("chosen and rejected are the same; one has to be better")
        if isinstance(pair.prompt, list):
            assert isinstance(pair.chosen, list)
            assert isinstance(pair.rejected, list)
            for answer in (pair.chosen, pair.rejected):
                _check_turns([*pair.prompt, *answer], spot)
        found.append((spot, pair))
    return found


def _lines(files: Sequence[Path]) -> Iterator[tuple[Spot, dict[str, Any]]]:
    for file in files:
        count = 0
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read as text in UTF-8 ({error})") from None
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            spot = Spot(str(file), number)
            try:
                record = json.loads(line)
            except ValueError as error:
                raise spot.wrong(f"is not JSON ({error}); one object a line is due") from None
            if not isinstance(record, dict):
                raise spot.wrong(f"holds a {type(record).__name__}; an object is due")
            count += 1
            yield spot, record
        if not count:
            raise InputError(f"{file}: is empty; one JSON object a line is due")


_ROLES = ("system", "user", "assistant")


def _messages(value: Any, key: str, spot: Spot) -> Messages:
    if not isinstance(value, list) or not value:
        raise spot.wrong(f"{key} is {value!r:.60}; a list of messages is due")
    messages = []
    for number, message in enumerate(value, start=1):
        where = f"message {number} of {key}"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            raise spot.wrong(f"{where} has the role {role!r}; allowed are {', '.join(_ROLES)}")
        content = message.get("content")
        if not isinstance(content, str) or not content.strip():
            raise spot.wrong(f"{where} ({role}) is empty or no text: {content!r:.60}")
        messages.append({"role": role, "content": content})
    return messages


def _check_turns(messages: Messages, spot: Spot) -> None:
    """User and assistant in turn, after at most one system message; the assistant ends."""
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    due = ["user", "assistant"] * ((len(turns) + 1) // 2)
    if not turns or turns != due:
        raise spot.wrong(
            f"the roles are {', '.join(roles)}; after a system message, if there is one, user and "
            "assistant take turns, and the assistant has the last word"
        )


def _text_or_messages(value: Any, key: str, spot: Spot) -> Any:
    if isinstance(value, list):
        return _messages(value, key, spot)
    if not isinstance(value, str) or not value.strip():
        raise spot.wrong(f"{key} is empty or no text: {value!r:.60}")
    return value
