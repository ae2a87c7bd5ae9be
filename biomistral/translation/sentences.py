"""The sentences of a text, for models that are trained on one at a time and drop what comes after.

A rule, not a model: a sentence ends at a full stop, a question mark or an exclamation mark before a
blank and something that is no small letter. Where abbreviations hide an end, two sentences stay
together: that costs a little quality, and a cut within one would cost more.
"""

from __future__ import annotations

import re

_END = re.compile(
    r"\s*\n\s*"
    r"|(?<=[.!?\u061f])\s+(?=[^\sa-z\u0430-\u0451])"  # Latin, Cyrillic and Arabic
    r"|(?<=[\u3002\uff01\uff1f])\s*(?=\S)"  # Chinese
)
# A full stop after these, or after a single letter, ends no sentence: E. coli.
_ABBREVIATION = re.compile(
    r"(?:^|[^A-Za-z])(?:[A-Za-z]|Dr|Mr|Mrs|Ms|Prof|St|vs|al|e\.g|i\.e|ca|cf|Fig|No|spp?|var)\.$"
)


def split_sentences(text: str) -> tuple[list[str], list[str]]:
    """Return the sentences, and what stands between them: one fewer."""
    sentences, between, start = [], [], 0
    for match in _END.finditer(text):
        sentence = text[start : match.start()]
        if "\n" not in match[0] and _ABBREVIATION.search(sentence[-8:]):
            continue
        sentences.append(sentence)
        between.append(match[0])
        start = match.end()
    return [*sentences, text[start:]], between


def join_sentences(sentences: list[str], between: list[str], language: str) -> str:
    """Put translated sentences together: ends of lines stay, and Chinese has no blanks between."""
    joined = sentences[0]
    for gap, sentence in zip(between, sentences[1:], strict=True):
        blank = "" if language == "zh" else " "
        joined += ("\n" * min(gap.count("\n"), 2) or blank) + sentence
    return joined
