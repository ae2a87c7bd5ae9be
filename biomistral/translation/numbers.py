"""Numbers in texts of any of the languages, and which of them a translation lacks.

A number is compared by its value: 1.5 may become 1,5 or ١٫٥, and 1,000 become 1 000 or 1.000. What
can be read in two ways (1.500 in a German text: fifteen hundred, or one and a half with zeros) is
given the benefit of the doubt; English is not ambiguous. Ordinals in digits (2nd) do not count: many
languages write them in words.

Knows nothing about units or about questions.
"""

from __future__ import annotations

import re
import unicodedata

_DECIMALS = ".,\u066b\u060c"  # the last two: decimal separator and comma of Arabic
_THOUSANDS = ".,\u066c'\u2019\u00a0\u202f "
_SUPERSCRIPTS = {ord(char): str(digit) for digit, char in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")} | {0x207B: "-"}
# Digits with marks between them. A hyphen after a letter, digit or bracket is no minus: IL-6, 5-10.
_RUN = re.compile(
    r"(?:(?<![A-Za-z\u00c0-\u06ff\d.,)\]])-)?(?<![A-Za-z\d.,])"
    rf"\d+(?:[{_DECIMALS}\u066c]\d+|['\u2019\u00a0\u202f ]\d{{3}}(?!\d))*(?!\d)"
)
_ORDINAL = re.compile(r"(?<![\w.,])\d+(?:st|nd|rd|th)\b")


def numbers_of(text: str) -> list[str]:
    """List the numbers of an English text, as they stand there."""
    return [
        part
        for run in _RUN.finditer(_ORDINAL.sub(" ", plain_digits(text)))
        for part in _split(run[0])
    ]


def lost_numbers(source: str, translated: str) -> list[str]:
    """List the numbers of English ``source`` that ``translated`` lacks, each as often as it does."""
    given = [
        readings(part) for run in _RUN.finditer(plain_digits(translated)) for part in _split(run[0])
    ]
    given.sort(key=len)  # what has one reading is taken first
    lost = []
    for number in numbers_of(source):
        value = english_value(number)
        found = next((each for each in given if value in each), None)
        if found is None:
            lost.append(number)
        else:
            given.remove(found)
    return lost


def english_value(number: str) -> str:
    """Return the value of a number as English writes it: 1,500.50 is 1500.5."""
    found = readings(number)
    if len(found) == 1:
        return found[0]
    with_thousands, with_decimals = found
    return with_decimals if "." in number else with_thousands


def readings(number: str) -> tuple[str, ...]:
    """Return the values that a number can have: that with thousands first, if there are two."""
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
    groups = re.split(r"\D", digits)
    marks = re.findall(r"\D", digits)
    found = []
    if _are_thousands(groups, marks):
        found.append(_value("".join(groups), ""))
    if marks and marks[-1] in _DECIMALS and _are_thousands(groups[:-1], marks[:-1], marks[-1]):
        found.append(_value("".join(groups[:-1]), groups[-1]))
    return tuple(f"{sign}{value}" if value != "0" else value for value in found)


def plain_digits(text: str) -> str:
    """Write the digits of all scripts as 0 to 9, powers as 10^6 and a minus as a hyphen."""
    text = text.replace("\u2212", "-")
    text = re.sub(
        r"(?<=\d)[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda found: "^" + found[0].translate(_SUPERSCRIPTS), text
    )
    return "".join(
        str(unicodedata.digit(char)) if char.isdecimal() and not char.isascii() else char
        for char in text
    )


def _split(run: str) -> list[str]:
    """One number, or those of a list without blanks: 1,2,3."""
    return [run] if readings(run) else re.findall(r"\d+", run)


def _are_thousands(groups: list[str], marks: list[str], other: str = "") -> bool:
    """Whether all marks can be those of thousands, which are of one kind, and not ``other``."""
    if not marks:
        return True
    return (
        len(set(marks)) == 1
        and marks[0] in _THOUSANDS
        and marks[0] != other
        and len(groups[0]) <= 3
        and not groups[0].startswith("0")
        and all(len(group) == 3 for group in groups[1:])
    )


def _value(whole: str, fraction: str) -> str:
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole
