"""The eight languages of the benchmark: code, name, script and writing direction.

Knows nothing about translation or detection. Codes are ISO 639-1, scripts ISO 15924.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from biomistral.errors import InputError, did_you_mean


@dataclass(frozen=True, slots=True)
class Language:
    """One language of the benchmark."""

    code: str  # ISO 639-1, as in recipes and records
    name: str  # in English
    native_name: str  # as its readers write it
    script: str  # ISO 15924
    direction: Literal["ltr", "rtl"]  # value of HTML's dir attribute


LANGUAGES: dict[str, Language] = {
    language.code: language
    for language in (
        Language("en", "English", "English", "Latn", "ltr"),
        Language("fr", "French", "français", "Latn", "ltr"),
        Language("es", "Spanish", "español", "Latn", "ltr"),
        Language("pt", "Portuguese", "português", "Latn", "ltr"),
        Language("de", "German", "Deutsch", "Latn", "ltr"),
        Language("ru", "Russian", "русский", "Cyrl", "ltr"),
        Language("zh", "Chinese", "中文", "Hans", "ltr"),
        Language("ar", "Arabic", "العربية", "Arab", "rtl"),
    )
}


def language_of(code: str) -> Language:
    """Look up a language by its code, ignoring case and region (``pt-BR`` is ``pt``).

    Raises ``InputError`` for a language outside the benchmark.
    """
    key = code.strip().lower().replace("_", "-").split("-")[0]
    try:
        return LANGUAGES[key]
    except KeyError:
        raise InputError(
            f"language {code!r}: not one of {', '.join(LANGUAGES)}{did_you_mean(key, LANGUAGES)}"
        ) from None
