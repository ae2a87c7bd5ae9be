"""Tell the language of a text by its script and its commonest words.

Enough to tell the eight languages of the benchmark apart, and from close neighbours that must not
pass as one of them. A text in another language gives that neighbour's code or None. Needs a few
dozen words to be sure; knows nothing about what a document declares.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict

_SAMPLE_CHARACTERS = 5000  # more changes no answer on the articles it was checked on
_LEAST_SHARE = 0.12  # of a text's words that must be common words of its language
_LEAST_LEAD = 1.15  # over the next language

_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]+")
_SCRIPTS = {
    "kana": re.compile("[\u3040-\u30ff]"),
    "hangul": re.compile("[\uac00-\ud7af]"),
    "han": re.compile("[\u3400-\u4dbf\u4e00-\u9fff]"),
    "arabic": re.compile("[\u0600-\u06ff]"),
    "cyrillic": re.compile("[\u0400-\u04ff]"),
    "latin": re.compile("[A-Za-z\u00c0-\u024f]"),
}
# Letters that Persian, Urdu, Ukrainian, Bulgarian... write and Arabic, Russian do not, or the
# other way round: (letters of the neighbour, its code).
_NOT_ARABIC = re.compile("[\u067e\u0686\u0698\u06a9\u06af\u06cc\u0679\u06d2]")
_NOT_RUSSIAN = re.compile("[іїєґўјљњћђџѓќІЇЄҐЎЈ]")
_RUSSIAN_ONLY = re.compile("[ыэЫЭ]")

_COMMON_WORDS = {
    "en": "the of and in to a was were with for that is by on as from at this are be or which not "
    "an we these it have has been between than their after had but also may",
    "fr": "de la le les et des du en une un est dans par pour que qui sur au avec plus sont ne pas "
    "ou ce cette aux ont chez été être se il son à d l nous entre comme",
    "es": "de la el en y los que las del se con un una por para es al como más su no o son fue lo "
    "este esta entre sus ha pacientes también pero sobre sin cuando muy",
    "pt": "de a o que e do da em os um para com uma as dos no na se por mais das ao é foi como não "
    "são ou nos nas pela pelo entre seu sua à também pacientes foram sobre ser",
    "de": "der die und in den von zu das mit dem des ist im für auf ein eine bei als sich nicht "
    "wurde werden auch es an nach durch oder einer eines sind aus zur zum wird",
    "it": "di e il la che in del un per a della con una i le è dei nel si da sono al non alla gli "
    "delle come più anche lo dal nella degli questo ha stato",
    "nl": "de van het een en in is dat op te met voor niet zijn aan er door bij ook als naar uit "
    "wordt of om deze dan worden tot kan werd patiënten",
    "ca": "de la i el en a els les que del amb per un una és al dels es no com més són o seva "
    "aquest aquesta han entre també",
    "ro": "de și în la a cu pe din care o este un nu pentru mai sau prin fi au ale al fost sunt "
    "cele între",
    "sv": "och i att av en som är för på med den till det ett om har de inte var vid eller från",
    "pl": "w i na z do się jest nie że o to przez oraz dla od po są u jak lub które ze",
}
_LANGUAGES_OF_WORD: dict[str, list[str]] = {}
for _code, _words in _COMMON_WORDS.items():
    for _word in _words.split():
        _LANGUAGES_OF_WORD.setdefault(_word, []).append(_code)


def detect(text: str) -> str | None:
    """Two-letter code of the language of ``text``, or None if nothing is sure."""
    sample = text[:_SAMPLE_CHARACTERS]
    num_letters = len(_LETTER.findall(sample))
    if num_letters < 20:
        return None
    share = {name: len(p.findall(sample)) / num_letters for name, p in _SCRIPTS.items()}
    if share["kana"] > 0.05:
        return "ja"
    if share["hangul"] > 0.2:
        return "ko"
    if share["han"] > 0.25:  # Chinese medical text is full of Latin abbreviations
        return "zh"
    if share["arabic"] > 0.4:
        return None if len(_NOT_ARABIC.findall(sample)) > 0.02 * num_letters else "ar"
    if share["cyrillic"] > 0.4:
        return "ru" if _is_russian(sample) else None
    return _by_common_words(sample)


def _is_russian(sample: str) -> bool:
    return bool(_RUSSIAN_ONLY.search(sample)) and not _NOT_RUSSIAN.search(sample)


def _by_common_words(sample: str) -> str | None:
    """Each common word counts for the languages that have it, the less the more they are."""
    words = [word.lower() for word in _WORD.findall(sample)]
    points: defaultdict[str, float] = defaultdict(float)
    hits: Counter[str] = Counter()
    for word in words:
        languages = _LANGUAGES_OF_WORD.get(word, ())
        for code in languages:
            points[code] += 1 / len(languages)
            hits[code] += 1
    if not points:
        return None
    (best, score), *rest = sorted(points.items(), key=lambda item: (-item[1], item[0]))
    if hits[best] < _LEAST_SHARE * len(words):
        return None
    return best if not rest or score >= _LEAST_LEAD * rest[0][1] else None
