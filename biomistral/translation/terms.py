"""What a translation must keep as it is: numbers, units, genes, names of drugs.

Numbers are compared by value (see ``numbers``). Units may take the form they have in a language (mg,
мг, 毫克); genes are kept letter for letter. Names of drugs are found by the stems that the World
Health Organization gives to international nonproprietary names ("The use of stems in the selection
of INN", 2018); they differ a little from language to language (heparin, heparina, Гепарин), so they
are looked for by their likeness, and only where the script is Latin.

Knows nothing about questions.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from biomistral.languages import language_of
from biomistral.translation.numbers import lost_numbers, numbers_of, plain_digits

Kind = Literal["number", "unit", "gene", "drug"]

_UNIT = re.compile(
    r"(?<=\d)[\s\u00a0]?("
    r"mm\s?Hg|mmol|µmol|umol|nmol|pmol|mEq|mOsm|mIU|kU|IU|U(?=/[A-Za-zµ])|[cmµn]?m[23²³]?|"
    r"[mµunp]?g|[kmc]g|[dmµu]?[Ll]|[mkMG]?Hz|[mk]?Pa|[mk]?V|kcal|kJ|°C|°F|%"
    r")(?:/(?:kg|[dmµu]?[Ll]|min|h|hr|day|m2|m²|mol|mmol|g|s))*(?![A-Za-z0-9])"
)
# Capitals and digits, as in BRCA1, TP53, HLA-B27, IL-6, CD4: of two characters at least, one a digit.
_GENE = re.compile(
    r"(?<![\w-])(?=[A-Z0-9-]*[A-Z])(?=[A-Z0-9-]*\d)[A-Z]{1,6}(?:-?[A-Z0-9]+)*\+?(?![\w])"
)
_DRUG = re.compile(
    r"(?<![\w-])[A-Za-z]{2,}(?:"
    r"pril(?:at)?|sartan|olol|dipine?|statin|azole|cillin|mycin|micin|floxacin|cycline|penem|"
    r"tinib|zumab|ximab|umab|omab|parin|gliptin|gliflozin|glitazone|prazole|tidine|setron|triptan|"
    r"barbital|azepam|azolam|caine|curonium|oxetine|triptyline|thiazide|semide|vir|vudine|"
    r"platin|rubicin|taxel|profen|coxib|sone|solone|lukast|(?<!s)terol|tropium|dronate|metformin"
    r")(?![\w])",
    re.IGNORECASE,
)
# Symbols that a language has of its own, each with the English one.
_UNIT_FORMS = {
    language: dict(pair.split("=") for pair in pairs.split("; "))
    for language, pairs in {
        "fr": "UI=IU; jour=day; j=day; degrés Celsius=°C",
        "es": "UI=IU; día=day",
        "pt": "UI=IU; dia=day",
        "de": "IE=IU; E=U; Tag=day",
        "ru": "мкг=µg; мг=mg; нг=ng; пг=pg; кг=kg; г=g; мкл=µL; мл=mL; дл=dL; л=L; см=cm; мм=mm; "
        "мкмоль=µmol; ммоль=mmol; нмоль=nmol; мэкв=mEq; МЕ=IU; Ед=U; ЕД=U; ед=U; мм рт. ст.=mmHg; мм рт.ст.=mmHg; "
        "мм рт ст=mmHg; мин=min; ч=h; сут=day; ккал=kcal; кДж=kJ; кПа=kPa; Гц=Hz; м²=m2; м2=m2; °С=°C",
        "zh": "微克=µg; 毫克=mg; 纳克=ng; 皮克=pg; 克=g; 千克=kg; 公斤=kg; 微升=µL; 毫升=mL; "
        "分升=dL; 升=L; 厘米=cm; 毫米=mm; 微摩尔=µmol; 毫摩尔=mmol; 纳摩尔=nmol; 毫米汞柱=mmHg; "
        "国际单位=IU; 单位=U; 平方厘米=cm2; 立方厘米=cm3; 立方毫米=mm3; 分钟=min; 小时=h; 日=day; 天=day; 千卡=kcal; 摄氏度=°C; ℃=°C; 华氏度=°F; ℉=°F; 毫当量=mEq; 平方米=m2",
        "ar": "ملغ=mg; مجم=mg; ملجم=mg; ميكروغرام=µg; ميكروجرام=µg; غرام=g; جرام=g; غ=g; جم=g; "
        "كغ=kg; كجم=kg; كلغ=kg; مل=mL; دل=dL; ديسيلتر=dL; لتر=L; ل=L; سم=cm; ملم=mm; مم=mm; "
        "مليمول=mmol; ملي مول=mmol; وحدة دولية=IU; وحدة=U; ملم زئبق=mmHg; ملم زئبقي=mmHg; مم زئبق=mmHg; "
        "دقيقة=min; يوم=day; درجة مئوية=°C; °م=°C; درجة فهرنهايت=°F; °ف=°F; ملي مكافئ=mEq; م2=m2; م²=m2",
    }.items()
}
# Ends like the stem of a drug and is none.
_NO_DRUGS = frozenset({"unisone"})
# Names in the United States that are unlike the international one.
_INTERNATIONAL = {"albuterol": "salbutamol", "levalbuterol": "levosalbutamol"}
# Letters of Russian that are written like Latin ones: витамин В12.
_LOOK_ALIKES = str.maketrans("АВЕКМНОРСТХ", "ABEKMHOPCTX")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_LIKENESS = 0.72  # of two spellings of one name: rifampicin, rifampicine; below it others begin


@dataclass(frozen=True, slots=True)
class Term:
    """Something in a text that its translation must have, too."""

    kind: Kind
    text: str  # as in the original


def protected_terms(text: str) -> list[Term]:
    """List the terms of a text in their order within each kind, repeated as often as they stand."""
    numbers = [Term("number", number) for number in numbers_of(text)]
    units = [Term("unit", match[0].strip()) for match in _UNIT.finditer(text)]
    genes = [Term("gene", match[0]) for match in _GENE.finditer(text.translate(_SUBSCRIPTS))]
    drugs = [
        Term("drug", match[0])
        for match in _DRUG.finditer(text)
        if match[0].lower() not in _NO_DRUGS
    ]
    return [*numbers, *units, *genes, *drugs]


def lost_terms(source: str, translated: str, language: str) -> list[Term]:
    """List the terms of ``source`` that ``translated``, a text in ``language``, does not keep.

    A number that stands twice must stand twice. Names of drugs are not looked for outside the Latin
    script, so none of them is lost there.
    """
    numbers = [Term("number", number) for number in lost_numbers(source, translated)]
    others = [term for term in protected_terms(source) if term.kind != "number"]
    return [*numbers, *(term for term in others if not _keeps(term, translated, language))]


def num_checked(terms: list[Term], language: str) -> int:
    """Return how many of these terms ``lost_terms`` looks for in a language."""
    latin = language_of(language).script == "Latn"
    return sum(latin or term.kind != "drug" for term in terms)


def _keeps(term: Term, translated: str, language: str) -> bool:
    if term.kind == "drug":
        return _keeps_drug(term.text, translated, language)
    if term.kind == "unit":
        return _keeps_unit(_unit_form(term.text), _unit_form(_in_english(translated, language)))
    text = translated.translate(_SUBSCRIPTS)
    text = text.translate(_LOOK_ALIKES) if language == "ru" else text
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(term.text)}(?![A-Za-z0-9])", text) is not None


def _keeps_unit(unit: str, text: str) -> bool:
    if unit == "%":
        return "%" in text or "٪" in text
    return re.search(rf"(?<![A-Za-zµ]){re.escape(unit)}(?![A-Za-z0-9])", text) is not None


def _keeps_drug(name: str, translated: str, language: str) -> bool:
    if language_of(language).script != "Latn":
        return True
    words = re.findall(r"[^\W\d_]{3,}", _plain(translated))
    names = {_plain(name), _INTERNATIONAL.get(_plain(name), _plain(name))}
    return any(
        difflib.SequenceMatcher(None, wanted, word).ratio() >= _LIKENESS
        for wanted in names
        for word in words
    )


def _in_english(text: str, language: str) -> str:
    """Put the symbols of units that a language has of its own in the English form."""
    forms = _UNIT_FORMS.get(language)
    if forms is None:
        return text
    every = "|".join(_form(form) for form in sorted(forms, key=len, reverse=True))
    return re.sub(rf"(?<=[\d/٫\s])(?:{every})", lambda match: forms[match[0]], plain_digits(text))


def _form(form: str) -> str:
    """A pattern. Short forms are whole words: л is a litre, and лет are years."""
    ends = len(form) <= 3 and "\u0400" <= form[0] <= "\u06ff"
    return re.escape(form) + (r"(?![\u0400-\u052f\u0621-\u064a])" if ends else "")


def _unit_form(text: str) -> str:
    """One way to write what stands apart, micro and litre."""
    text = re.sub(r"\s*/\s*", "/", re.sub(r"mm\s?Hg", "mmHg", text)).replace("/hr", "/h")
    text = text.replace("\N{GREEK SMALL LETTER MU}", "µ").replace("²", "2").replace("³", "3")
    return re.sub(r"(?<=[dmµu/])l(?![a-z])", "L", text)


def _plain(text: str) -> str:
    """Lower case without accents."""
    parts = unicodedata.normalize("NFKD", text.lower())
    return "".join(char for char in parts if not unicodedata.combining(char))
