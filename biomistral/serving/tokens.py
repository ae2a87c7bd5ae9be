r"""Single tokens as text and bytes, as an API shows them beside log-probabilities.

A token can be part of a character: its text is then ``bytes:\xe6`` and so on, as OpenAI writes it.
Byte-level vocabularies (GPT-2, Llama 3) write bytes as printable characters; SentencePiece ones
(Mistral v0.1) write ``▁`` for a blank and ``<0xE6>`` for a byte. Knows nothing about models.
"""

from __future__ import annotations

import codecs
import functools
import json
import re
from collections.abc import Sequence
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>\Z")


class TokenTexts:
    """The tokens of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # Tokenizers without a backend (in Python, not Rust) are SentencePiece's.
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = json.loads(backend.to_str())["decoder"] if backend else None
        self._is_byte_level = "ByteLevel" in json.dumps(decoder)
        self._strips_first_blank = tokenizer.decode(tokenizer.encode("a")[-1:]) == "a"
        special = {int(i) for i in tokenizer.all_special_ids}
        self._control = special | {
            int(i) for i, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._bytes = functools.lru_cache(maxsize=65536)(self._bytes_of)

    def is_control(self, token: int) -> bool:
        """Whether a token stands for no text, such as ``</s>``."""
        return token in self._control

    def raw(self, token: int) -> bytes:
        """UTF-8 bytes of a token, those of its name if it is a control token."""
        return self._bytes(token)

    def text(self, token: int) -> str:
        """Text of a token."""
        return text_of(self._bytes(token))

    def offsets(self, tokens: Sequence[int], *, begins_text: bool) -> list[int]:
        """Place in the text of the whole at which each token starts, in characters.

        Control tokens have no place of their own. Where the tokens begin a text, the blank that
        some vocabularies put before its first word is none of the text's.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        places, place, is_first = [], 0, begins_text and self._strips_first_blank
        for token in tokens:
            places.append(place)
            if self.is_control(token):
                continue
            text = decoder.decode(self._bytes(token))
            place += len(text.removeprefix(" ") if is_first else text)
            is_first = False
        return places

    def _bytes_of(self, token: int) -> bytes:
        name = self._tokenizer.convert_ids_to_tokens(token)
        if name is None:  # an embedding may have more rows than the vocabulary has tokens
            return f"<token {token}>".encode()
        if self.is_control(token):
            return str(name).encode()
        if self._is_byte_level:
            table = _byte_of_character()
            if all(character in table for character in name):
                return bytes(table[character] for character in name)
            return str(name).encode()
        if match := _BYTE.match(name):
            return bytes([int(match[1], 16)])
        return str(name).replace("▁", " ").encode()


def text_of(raw: bytes) -> str:
    """Bytes as text, or written out where they are no whole characters."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


@functools.cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes: those of Latin-1 that print, then 256 and on."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    table = {chr(byte): byte for byte in printing}
    return table | {chr(256 + number): byte for number, byte in enumerate(others)}
