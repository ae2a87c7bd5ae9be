"""Few rules for text that is no prose: each has a name, a bound and its source.

    repeated_lines  more than 30 % of the characters are in lines that came before
                    (Gopher, arXiv 2112.11446, table A1, has 20-30 % for lines and paragraphs)
    few_letters     less than 60 % of the characters, blanks apart, are letters: numbers, sequences,
                    tables read as text (Gopher asks for letters in 80 % of the words; articles have
                    more numbers in their sentences)
    word_length     words have fewer than 3 or more than 12 letters on average (Gopher: 3 to 10; of
                    scripts that put blanks between words; German needs the room)
    symbols         more than one hash or ellipsis in ten words (Gopher)

The bounds drop none of 480 real articles looked at (benchmarks/results/corpus_real_files.md). Knows
nothing about languages wanted or files.
"""

from __future__ import annotations

import re

from biomistral.corpus.compiled import library
from biomistral.corpus.marks import kinds_of_characters

_MOST_REPEATED = 0.30
_LEAST_LETTERS = 0.60
_WORD_LENGTHS = (3.0, 12.0)
_MOST_SYMBOLS = 0.1
_SAMPLE_CHARACTERS = 4_000  # in the middle; enough for shares, and a long article costs no more
_LEAST_CHARACTERS = 200  # a share of less says nothing

_NOT_LETTERS = re.compile(r"[\W\d_]+")
_SYMBOL = re.compile(r"#|\.\.\.|…")
_WITHOUT_BLANKS = frozenset({"zh", "ja", "th"})


def fault(text: str, language: str | None) -> str:
    """Name of the first rule that ``text`` breaks, or ``""``."""
    if len(text) < _LEAST_CHARACTERS:
        return ""
    if repeated_share(text) > _MOST_REPEATED:
        return "repeated_lines"
    start = max(0, (len(text) - _SAMPLE_CHARACTERS) // 2)
    sample = text[start : start + _SAMPLE_CHARACTERS]
    words = sample.split()
    num_letters = _count_letters(sample)
    if num_letters < _LEAST_LETTERS * sum(map(len, words)):
        return "few_letters"
    shortest, longest = (bound * len(words) for bound in _WORD_LENGTHS)
    if language not in _WITHOUT_BLANKS and not shortest <= num_letters <= longest:
        return "word_length"
    return "symbols" if len(_SYMBOL.findall(sample)) > _MOST_SYMBOLS * len(words) else ""


def repeated_share(text: str) -> float:
    """Share of the characters in lines that came before; 0 for an empty text."""
    lines = text.split("\n")
    total = sum(map(len, lines))
    return 1 - sum(map(len, dict.fromkeys(lines))) / total if total else 0.0


def _count_letters(text: str) -> int:
    loops = library()
    if loops:
        data = text.encode("utf-8", "replace")
        num_letters = int(loops.count_letters(data, len(data), kinds_of_characters()))
        if num_letters >= 0:
            return num_letters
    return len(_NOT_LETTERS.sub("", text))
