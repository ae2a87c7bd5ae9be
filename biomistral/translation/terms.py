"""What a translation must keep as it is: numbers, units, genes, names of drugs.

Numbers are compared by value, so that 1.5 may become 1,5 and 1,000 become 1 000 or ١٠٠٠. Units
may take the form they have in a language (mg, мг, 毫克); genes are kept letter for letter. Names of drugs are found by the stems that the World Health
Organization gives to international nonproprietary names ("The use of stems in the selection of
INN", 2018); they differ a little from language to language (heparin, heparina, Гепарин), so they
are looked for by their likeness, and only where the script is Latin.

Knows nothing about questions.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from biomistral.languages import language_of

Kind = Literal["number", "unit", "gene", "drug"]

_NUMBER = re.compile(
    r"(?<![A-Za-z\d.,])[-\u2212]?\d+(?:[.,\u066b\u066c\u00a0\u202f' ]\d+)*(?![\d])"
)
_UNIT = re.compile(
    r"(?<=\d)[\s\u00a0]?("
    r"mm\s?Hg|mmol|µmol|umol|nmol|pmol|mEq|mOsm|mIU|kU|IU|cm|mm|µm|nm|"
    r"[mµunp]?g|[kmc]g|[dmµu]?[Ll]|[mkMG]?Hz|[mk]?Pa|[mk]?V|kcal|kJ|°C|°F|%"
    r")(?:/(?:kg|[dmµu]?[Ll]|min|h|hr|day|m2|m²|mol|mmol|g|s))*(?![A-Za-z])"
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
    r"platin|rubicin|taxel|profen|coxib|sone|solone|lukast|terol|tropium|dronate|metformin"
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
        "de": "IE=IU; Tag=day",
        "ru": "мкг=µg; мг=mg; нг=ng; пг=pg; кг=kg; г=g; мкл=µL; мл=mL; дл=dL; л=L; см=cm; мм=mm; "
        "мкмоль=µmol; ммоль=mmol; нмоль=nmol; мэкв=mEq; МЕ=IU; мм рт. ст.=mmHg; мм рт.ст.=mmHg; "
        "мм рт ст=mmHg; мин=min; ч=h; сут=day; ккал=kcal; кДж=kJ; кПа=kPa; Гц=Hz; м²=m2; м2=m2; °С=°C",
        "zh": "微克=µg; 毫克=mg; 纳克=ng; 皮克=pg; 克=g; 千克=kg; 公斤=kg; 微升=µL; 毫升=mL; "
        "分升=dL; 升=L; 厘米=cm; 毫米=mm; 微摩尔=µmol; 毫摩尔=mmol; 纳摩尔=nmol; 毫米汞柱=mmHg; "
        "国际单位=IU; 分钟=min; 小时=h; 日=day; 天=day; 千卡=kcal; 摄氏度=°C; ℃=°C; 华氏度=°F; ℉=°F; 毫当量=mEq; 平方米=m2",
        "ar": "ملغ=mg; مجم=mg; ملجم=mg; ميكروغرام=µg; ميكروجرام=µg; غرام=g; جرام=g; غ=g; جم=g; "
        "كغ=kg; كجم=kg; كلغ=kg; مل=mL; دل=dL; ديسيلتر=dL; لتر=L; ل=L; سم=cm; ملم=mm; مم=mm; "
        "مليمول=mmol; ملي مول=mmol; وحدة دولية=IU; ملم زئبق=mmHg; ملم زئبقي=mmHg; مم زئبق=mmHg; "
        "دقيقة=min; يوم=day; درجة مئوية=°C; °م=°C; درجة فهرنهايت=°F; °ف=°F; ملي مكافئ=mEq; م2=m2; م²=m2",
    }.items()
}
# Ends like the stem of a drug and is none.
_NO_DRUGS = frozenset({"cholesterol", "ergosterol", "phytosterol", "unisone"})
_LIKENESS = 0.72  # of two spellings of one name: rifampicin, rifampicine; below it others begin


@dataclass(frozen=True, slots=True)
class Term:
    """Something in a text that its translation must have, too."""

    kind: Kind
    text: str  # as in the original


def protected_terms(text: str) -> list[Term]:
    """List the terms of a text in their order within each kind, repeated as often as they stand."""
    numbers = [Term("number", match[0].strip()) for match in _NUMBER.finditer(text)]
    units = [Term("unit", match[0].strip()) for match in _UNIT.finditer(text)]
    genes = [Term("gene", match[0]) for match in _GENE.finditer(text)]
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
    terms = protected_terms(source)
    kept = Counter(number_value(match[0]) for match in _NUMBER.finditer(_latin_digits(translated)))
    lost = []
    for term in terms:
        if term.kind == "number":
            value = number_value(term.text)
            if not kept[value]:
                lost.append(term)
            kept[value] -= 1
        elif not _keeps(term, translated, language):
            lost.append(term)
    return lost


def num_checked(terms: list[Term], language: str) -> int:
    """Return how many of these terms ``lost_terms`` looks for in a language."""
    latin = language_of(language).script == "Latn"
    return sum(latin or term.kind != "drug" for term in terms)


def number_value(text: str) -> str:
    """Return a number in one form for all ways to write it: 1,500.50 and 1 500,5 are 1500.5.

    One separator with three digits after it can be either kind; it counts as that of thousands
    unless the number begins with 0.
    """
    text = _latin_digits(text).replace("\u2212", "-")
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    groups = re.split(r"[.,\u066b\u066c\u00a0\u202f' ]", digits)
    marks = re.findall(r"[.,\u066b\u066c\u00a0\u202f' ]", digits)
    whole, fraction = groups[0], ""
    for index, (mark, group) in enumerate(zip(marks, groups[1:], strict=True)):
        is_last = index == len(marks) - 1
        thousands = len(group) == 3 and whole.lstrip("0") and (not is_last or _groups(marks))
        if is_last and not thousands and mark != " ":
            fraction = group
        else:
            whole += group
    value = whole.lstrip("0") or "0"
    fraction = fraction.rstrip("0")
    return f"{sign}{value}.{fraction}" if fraction else f"{sign}{value}"


def _groups(marks: list[str]) -> bool:
    """Whether the last mark can be one of thousands: it is the only kind there is."""
    return len(set(marks)) == 1


def _keeps(term: Term, translated: str, language: str) -> bool:
    if term.kind == "drug":
        if language_of(language).script != "Latn":
            return True
        words = re.findall(r"[^\W\d_]{3,}", _plain(translated))
        wanted = _plain(term.text)
        return any(
            difflib.SequenceMatcher(None, wanted, word).ratio() >= _LIKENESS for word in words
        )
    wanted = _unit_form(term.text) if term.kind == "unit" else term.text
    text = _unit_form(_in_english(translated, language)) if term.kind == "unit" else translated
    if wanted == "%":
        return "%" in text or "٪" in text
    before = "A-Za-zµ" if term.kind == "unit" else "A-Za-z0-9"
    return re.search(rf"(?<![{before}]){re.escape(wanted)}(?![A-Za-z0-9])", text) is not None


def _in_english(text: str, language: str) -> str:
    """Put the symbols of units that a language has of its own in the English form."""
    forms = _UNIT_FORMS.get(language)
    if forms is None:
        return text
    every = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.sub(rf"(?<=[\d/٫\s])(?:{every})", lambda match: forms[match[0]], _latin_digits(text))


def _unit_form(text: str) -> str:
    """One way to write what stands apart, micro and litre."""
    text = re.sub(r"\s*/\s*", "/", re.sub(r"mm\s?Hg", "mmHg", text)).replace("/hr", "/h")
    text = text.replace("\N{GREEK SMALL LETTER MU}", "µ").replace("²", "2")
    return re.sub(r"(?<=[dmµu/])l(?![a-z])", "L", text)


def _latin_digits(text: str) -> str:
    return "".join(
        str(unicodedata.digit(char)) if char.isdecimal() and not char.isascii() else char
        for char in text
    )


def _plain(text: str) -> str:
    """Lower case without accents."""
    parts = unicodedata.normalize("NFKD", text.lower())
    return "".join(char for char in parts if not unicodedata.combining(char))
