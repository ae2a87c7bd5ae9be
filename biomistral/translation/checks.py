"""What is wrong with a translation, as far as a program can tell: a list of faults in words.

A translation with a fault is tried again, and at the end listed and left out: never is English taken
for it. Faults are told to the translator that tries again, so they read like instructions.
Knows nothing about who translates.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import combinations

from biomistral.languages import language_of
from biomistral.translation.parts import Parts
from biomistral.translation.terms import lost_terms

# Characters of a translation per character of English: from a corpus of questions in these
# languages the means are 0.33 (zh) to 1.25 (fr); beyond these bounds something is missing or added.
LENGTH_BOUNDS = {"zh": (0.12, 1.0), "ar": (0.4, 2.0)}
DEFAULT_BOUNDS = (0.5, 2.5)
_LONG_ENOUGH = 40  # characters from which a ratio of lengths says something
_WORDS_TO_TELL = 6  # words from which function words tell a language
_ORDINARY_WORDS_TO_TELL = 2  # in small letters, in a script that has none of them

_SCRIPTS = {"Cyrl": "CYRILLIC", "Hans": "CJK UNIFIED", "Arab": "ARABIC"}
_LEAST_IN_SCRIPT = 0.3  # of the letters: names and abbreviations may stay Latin

# Words that are common in one of these languages and hardly occur in English, or the other way.
_FUNCTION_WORDS = {
    "en": "the of and which with is are was were this that following who has had would most from by for",
    "fr": "le la les des du une un est et dans pour avec qui que sur par ce cette au aux son sa",
    "es": "el la los las de del una un es y en para con que por se su al lo como cual",
    "pt": "o a os as de do da uma um é e em para com que por se seu sua ao no na",
    "de": "der die das und ist in den dem ein eine einer mit von zu auf für nicht sich des im",
}
# With letters of options: Both A and C.
_BETWEEN_LETTERS = frozenset({"and", "or", "nor", "both", "all", "of", "only", "options"})
_ENGLISH = frozenset(_FUNCTION_WORDS["en"].split())


def faults(source: Parts, translated: Parts, language: str) -> list[str]:
    """List what is wrong with a translation of an English question; empty if nothing is."""
    return [
        *collisions(source, translated),
        *_letters(source, translated),
        *_language(source, translated, language),
        *_lengths(source, translated, language),
        *_terms(source, translated, language),
    ]


def collisions(source: Parts, translated: Parts) -> Iterator[str]:
    """Two options that differ must differ; in more than case, unless that is all there is (Aa, AA)."""
    named = list(zip(source.texts(), translated.texts(), strict=True))
    options = [(name, text, other) for (name, text), (_, other) in named if len(name) == 1]
    for (one, text, first), (other, text_of_other, second) in combinations(options, 2):
        by_case = _same(text, text_of_other)
        equal = text.split() == text_of_other.split()
        if not equal and (first.split() == second.split() if by_case else _same(first, second)):
            yield f"options {one} and {other} read the same ({first!r:.60}); they differ in English"


def _letters(source: Parts, translated: Parts) -> Iterator[str]:
    """The letter of an option is no part of its text."""
    for (name, text), (_, other) in zip(source.texts(), translated.texts(), strict=True):
        letter = re.compile(rf"\(?{name}\s?[).:\uff09\uff1a\u3001]")
        if len(name) == 1 and letter.match(other) and not letter.match(text):
            yield f"option {name} begins with its letter; give its text alone"
        named = _letters_named(text)
        if len(name) == 1 and named and _letters_in(other, named[0]) != named:
            yield f"option {name} names other options; keep their letters: {', '.join(named)}"


def _letters_named(option: str) -> list[str]:
    """The options that an option names, as in "Both A and C" or "b, a, d"; none if it says more."""
    words = re.findall(r"\w+", option)
    case = "ABCDE" if any(letter in words for letter in "ABCDE") else "abcde"
    letters = [word for word in words if len(word) == 1 and word in case]
    others = {word.lower() for word in words if word not in letters}
    return letters if len(letters) > 1 and others <= _BETWEEN_LETTERS else []


def _letters_in(text: str, like: str) -> list[str]:
    """Letters of options that stand alone, in the case of ``like``: Spanish has a word e, no word E."""
    letters = "A-E" if like.isupper() else "a-e"
    return re.findall(rf"(?<![A-Za-zÀ-ɏ])[{letters}](?![A-Za-zÀ-ɏ]|['’]\w)", text)


def _language(source: Parts, translated: Parts, language: str) -> Iterator[str]:
    wanted = language_of(language)
    is_latin = wanted.script == "Latn"
    for (name, text), (_, other) in zip(source.texts(), translated.texts(), strict=True):
        if _same(text, other) and _tells_english(text, is_latin=is_latin):
            yield f"{name} is still in English"
    text = translated.joined()
    if not is_latin:
        share = _share_in(_SCRIPTS[wanted.script], translated.stem + translated.context)
        if share < _LEAST_IN_SCRIPT:
            yield f"only {share:.0%} of the letters are {wanted.name}; translate into {wanted.name}"
    elif language in _FUNCTION_WORDS:
        words = re.findall(r"[^\W\d_]+", text.lower())
        own = frozenset(_FUNCTION_WORDS[language].split())
        num_own, num_english = (sum(word in few for word in words) for few in (own, _ENGLISH))
        if len(words) >= _WORDS_TO_TELL and num_english > num_own:
            yield f"it reads as English, not as {wanted.name}"


def _tells_english(text: str, *, is_latin: bool) -> bool:
    """Whether a text that stayed as it was cannot be of the other language, too.

    Names of drugs, germs and muscles are written alike in many languages (Lisinopril, Escherichia
    coli, flexor digitorum superficialis).
    """
    words = re.findall(r"[^\W\d_]+", text)
    if len(words) >= _WORDS_TO_TELL or not _ENGLISH.isdisjoint(word.lower() for word in words):
        return True
    ordinary = [word for word in words if word.islower() and len(word) > 2]
    return not is_latin and len(ordinary) >= _ORDINARY_WORDS_TO_TELL


def _lengths(source: Parts, translated: Parts, language: str) -> Iterator[str]:
    low, high = LENGTH_BOUNDS.get(language, DEFAULT_BOUNDS)
    for (name, text), (_, other) in zip(source.texts(), translated.texts(), strict=True):
        ratio = len(other) / len(text)
        if len(text) >= _LONG_ENOUGH and not low <= ratio <= high:
            what = "shorter" if ratio < low else "longer"
            yield f"{name} is much {what} than in English ({ratio:.2f} of its characters)"


def _terms(source: Parts, translated: Parts, language: str) -> Iterator[str]:
    for (name, text), (_, other) in zip(source.texts(), translated.texts(), strict=True):
        if lost := lost_terms(text, other, language):
            shown = ", ".join(f"{term.kind} {term.text}" for term in lost[:5])
            yield f"{name} lacks what must stay as it is: {shown}"


def _share_in(script: str, text: str) -> float:
    letters = [char for char in text if char.isalpha()]
    inside = sum(unicodedata.name(char, "").startswith(script) for char in letters)
    return inside / len(letters) if letters else 1.0


def _same(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()
