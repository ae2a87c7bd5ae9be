"""How each family of translation models is told the languages: by codes in its vocabulary.

NLLB (fra_Latn), mBART-50 (fr_XX), M2M-100 (__fr__), MADLAD (<2fr>), Opus-MT (>>fra<<), as their cards
and the documentation of Transformers say. Knows nothing about texts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Codes of languages in NLLB (FLORES-200), mBART-50 and the multilingual models of Opus-MT (ISO 639-3).
_FLORES = {
    "en": "eng_Latn",
    "fr": "fra_Latn",
    "es": "spa_Latn",
    "pt": "por_Latn",
    "de": "deu_Latn",
    "ru": "rus_Cyrl",
    "zh": "zho_Hans",
    "ar": "arb_Arab",
}
_MBART = {
    "en": "en_XX",
    "fr": "fr_XX",
    "es": "es_XX",
    "pt": "pt_XX",
    "de": "de_DE",
    "ru": "ru_RU",
    "zh": "zh_CN",
    "ar": "ar_AR",
}
_OPUS = {
    "en": ">>eng<<",
    "fr": ">>fra<<",
    "es": ">>spa<<",
    "pt": ">>por<<",
    "de": ">>deu<<",
    "ru": ">>rus<<",
    "zh": ">>cmn_Hans<<",
    "ar": ">>ara<<",
}


@dataclass(frozen=True)
class Steering:
    """How a model is told the languages."""

    prefix: str = ""  # before each text
    source_code: str = ""  # for the tokenizer
    first_token: str = ""  # that the translation must begin with


def steering(knows: Callable[[str], bool], source: str, language: str) -> Steering | None:
    """Return how a model that knows these tokens is told the language; None if it cannot be."""
    if knows(_FLORES[language]):
        return Steering("", _FLORES[source], _FLORES[language])
    if knows(_MBART[language]):
        return Steering("", _MBART[source], _MBART[language])
    if knows(f"__{language}__"):
        return Steering("", source, f"__{language}__")
    if knows(f"<2{language}>"):
        return Steering(f"<2{language}> ")
    for token in (_OPUS[language], f">>{language}<<"):
        if knows(token):
            return Steering(f"{token} ")
    return None
