"""What the compiled loops give is what Python and NumPy give, to the last bit."""

from __future__ import annotations

import random
import re
import unicodedata

import numpy as np
import pytest

from biomistral.corpus import compiled, documents, marks, pieces, quality, sketches

needs_compiler = pytest.mark.skipif(compiled.library() is None, reason="no C compiler")


def texts() -> list[str]:
    rng = random.Random(3)
    letters = (
        "abcxyzÄÖ×÷ÀÿĀɏɐḀỿἀ病人のア٣²½ \n\n\t.,;-(§)€🩺\u200b\uffff\U00020000'"
        + " " * 15
        + "aeiou" * 6
    )
    made = ["".join(rng.choices(letters, k=rng.randint(0, 200))) for _ in range(400)]
    words = ["".join(rng.choices("abcdef", k=4)) for _ in range(5000)]
    return [*made, "", " ", "\n", "  \n  ", " ".join(words), "x" * 5000]


@needs_compiler
@pytest.mark.parametrize("way", range(len(pieces._CUTS)))
def test_pieces_are_cut_and_numbered_alike(way: int) -> None:
    fast = pieces._CompiledNumbers(compiled.library(), way)
    plain = pieces._Numbers(pieces._CUTS[way])
    for text in texts():
        assert fast.of(text).tolist() == plain.of(text).tolist(), repr(text)
        assert fast.take_new() == plain.take_new()
    assert len(fast) == len(plain) > 100


@needs_compiler
def test_many_pieces_are_kept_apart() -> None:
    fast = pieces._CompiledNumbers(compiled.library(), 0)
    words = [f" w{'abcdefghij'[i % 10]}{chr(97 + i // 10 % 26)}{chr(97 + i // 260 % 26)}x{chr(97 + i // 6760 % 26)}" for i in range(100_000)]  # fmt: skip
    distinct = list(dict.fromkeys(words))
    numbers = fast.of("".join(words))
    assert len(fast) == len(distinct) > 2**14  # more than there was room for at first
    assert numbers.tolist() == fast.of("".join(words)).tolist()
    assert fast.take_new() == distinct


@needs_compiler
def test_sketches_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = [sketches.sketch(text) for text in texts()]
    monkeypatch.setattr(sketches, "library", lambda: None)
    plain = [sketches.sketch(text) for text in texts()]
    assert [digest for digest, _ in fast] == [digest for digest, _ in plain]
    assert (np.stack([s for _, s in fast]) == np.stack([s for _, s in plain])).all()


def test_without_a_compiler_the_encoder_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "library", lambda: None)
    encoder = pieces.PieceEncoder.__new__(pieces.PieceEncoder)
    encoder._way = 0
    encoder._forget()
    assert isinstance(encoder._numbers, pieces._Numbers)


@needs_compiler
def test_marks_are_taken_out_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    signs = "()[]()[]    ,;.-–—‐:389+−^A_x病é٣Öſ\x85\xa0\u2028\u0301\u00ad🩺" + "\0\1\2\3\2\4\5" * 2
    words = [
        "and",
        "see",
        "Refs",
        "e.g.",
        "E.g.",
        "i.e.",
        "cf.",
        "a",
        "an",
        "in",
        "by",
        "described",
        "taken",
        "elsewhere",
        "from",
        "for",
        "or3",
        "\x001\x01",
        "\x002,3\x01",
        "\x00Silva\x01",
        "(\x001\x01)",
        "10\x036",
        "[\x004\x01,\x005\x01]",
    ]
    raws = ["".join(rng.choices([*signs, *words], k=rng.randint(0, 40))) for _ in range(5000)]
    raw = "\x05".join([*raws, ""])
    fast = list(marks._cleaned(raw.encode()))
    monkeypatch.setattr(marks, "marks_library", lambda: None)
    plain = list(marks._cleaned(raw.encode()))
    assert len(fast) == len(plain) == raw.count("\x05")
    for source, one, other in zip(raw.split("\x05"), fast, plain, strict=False):
        assert one == other, repr(source)


@needs_compiler
def test_plain_characters_are_as_they_are_in_every_text() -> None:
    loops = compiled.marks_library()
    assert loops is not None
    # The second half of a pair that one character stands for may join the character before it.
    halves = set()
    for code in range(0x30000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and "<" not in parts[0]:
            halves.add(int(parts[1], 16))
    plain = [chr(code) for code in range(0x110000) if loops.marks_is_plain(code)]
    assert len(plain) > 20_000
    for character in plain:
        assert unicodedata.normalize("NFC", character) == character
        assert unicodedata.combining(character) == 0
        assert ord(character) not in halves
        assert not documents._INVISIBLE.search(character)
        # No other letter is taken for a Latin one where case does not matter.
        assert character.isascii() or not re.fullmatch("[a-z]", character, re.IGNORECASE)


@needs_compiler
def test_words_and_letters_are_counted_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [*texts(), *(f"a{blank}b" for blank in map(chr, range(0x3100)) if blank.isspace())]
    made += ["発熱のある患者。カタカナ text 豈 a", "٣ _x _ 4", "\ufb00\u2028"]
    documents.count_words.cache_clear()
    fast = [(documents.count_words(text), quality._count_letters(text)) for text in made]
    documents.count_words.cache_clear()
    for module in (documents, quality):
        monkeypatch.setattr(module, "library", lambda: None)
    assert fast == [(documents.count_words(text), quality._count_letters(text)) for text in made]
    documents.count_words.cache_clear()
