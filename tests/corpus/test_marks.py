"""Sentences stay whole where citation marks go. Brackets are written here as they are in files."""

from __future__ import annotations

import re

import pytest

from biomistral.corpus.marks import (
    CLOSE,
    END,
    GONE,
    OPEN,
    RAISED,
    clean,
    paragraphs_from,
    without_marks,
)


def marked(text: str) -> str:
    """Text with citations written {like this}, and * where something was left out."""
    return re.sub(r"\{(.*?)\}", rf"{OPEN}\1{CLOSE}", text).replace("*", GONE)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("so [{1}, {2}]. Then", "so. Then"),
        ("by Silva et al. [{1}]. Then", "by Silva et al. Then"),
        ("rice, etc. {1}. Then", "rice, etc. Then"),
        ("in wheat [{28}].The cycle", "in wheat. The cycle"),
        ("a dose of 2 [{28}].5 mg", "a dose of 2.5 mg"),
        ("wheat (reviewed in [{4}]). Then", "wheat. Then"),
        ("wheat (e.g. [{4}, {5}]). Then", "wheat. Then"),
        ("wheat (for a review, see [{4}]) is", "wheat is"),
        ("wheat (see [{4}] and references therein) is", "wheat is"),
        ("wheat (For reviews see {4}) is", "wheat is"),
        ("as described by [{6}]. Then", "as described. Then"),
        ("were measured as shown in {6}.", "were measured as shown."),
        ("as described in {6} and here", "as described in and here"),
        ("what we believe in. Then [{6}] more", "what we believe in. Then more"),
        ("(Table 1; {6}) we", "(Table 1) we"),
        ("mean* and sum*, total*.", "mean and sum, total."),
        ("no marks ( here ) , at all .", "no marks (here), at all."),
    ],
)
def test_citation_marks_go_with_what_led_up_to_them(source: str, text: str) -> None:
    assert clean(marked(source)) == text


@pytest.mark.parametrize(
    "source", ["as {Silva (2001)} showed", "the {Silva 2001; Reyes 2003} model", "see {Silva}."]
)
def test_names_stay(source: str) -> None:
    assert clean(marked(source)) == source.replace("{", "").replace("}", "")


def test_no_mark_is_ever_left() -> None:
    odd = ["{1", "1}", "{a {1} b}", f"({GONE}", f"{GONE})", f"{RAISED}", f"2{RAISED}x"]
    odd += [f"{OPEN * 3}{CLOSE}", f"{OPEN}ab{OPEN}cd{CLOSE}ef{CLOSE}"]
    for text in odd:
        assert not set(clean(marked(text))) & {OPEN, CLOSE, GONE, RAISED}, text


def test_text_may_be_taken_as_it_stands() -> None:
    assert without_marks(marked("so [{1}]*.")) == "so [1]."


@pytest.mark.timeout(60)  # quadratic work would take hours
@pytest.mark.parametrize(
    "piece",
    [
        "{1}",
        "*",
        "x*",
        "({1}",
        "(see ",
        "[{1},",
        ",",
        "(",
        " {1} , ",
        "as described in *. ",
        "(in by ",
    ],
)
def test_long_runs_of_anything_are_no_trap(piece: str) -> None:
    text = marked(piece * 100_000)
    assert len(clean(text)) <= len(piece) * 100_000
    assert paragraphs_from(f"{text}{END}".encode()) == list(filter(None, [clean(text)]))
