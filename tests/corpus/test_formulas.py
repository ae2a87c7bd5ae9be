from __future__ import annotations

import pytest
from lxml import etree

from biomistral.corpus.formulas import formula_text, linear_text


def formula(inner: str) -> etree._Element:
    return etree.fromstring(
        f"<disp-formula xmlns:m='http://www.w3.org/1998/Math/MathML'>{inner}</disp-formula>"
    )


def math(inner: str) -> etree._Element:
    return formula(f"<m:math>{inner}</m:math>")


A, B, C = (f"<m:mi>{name}</m:mi>" for name in "abc")


def test_a_formula_without_mathml_has_no_linear_text() -> None:
    assert linear_text(formula("E = mc")) is None


def test_a_fraction_does_not_read_in_one_line() -> None:
    assert linear_text(math(f"<m:mfrac>{A}{B}</m:mfrac>")) == ""
    assert linear_text(math(f"{A}<m:mo>=</m:mo>{B}")) == "a=b"


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        (f"<m:mfrac>{A}<m:mrow>{B}<m:mo>+</m:mo>{C}</m:mrow></m:mfrac>", "(a)/(b+c)"),
        (f"<m:msub>{A}{B}</m:msub><m:msup>{A}{B}</m:msup>", "a_ba^b"),
        (f"<m:munderover>{A}{B}{C}</m:munderover>", "a_b^c"),
        (f"<m:msqrt>{A}{B}</m:msqrt>", "√(ab)"),
        ("<m:mi>{}</m:mi>", "{}"),
        (f"<m:mfrac>{A}</m:mfrac>", "a"),  # not what MathML allows
    ],
)
def test_mathml_is_written_in_one_line(inner: str, text: str) -> None:
    assert formula_text(math(inner)) == text


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        (
            r"\documentclass{minimal}\begin{document}$$a = \frac{b}{c}$$\end{document}",
            r"$a = \frac{b}{c}$",
        ),
        (r"\begin{equation*} a \end{equation*}", "$a$"),
        ("$x$", "$x$"),
        ("", ""),
    ],
)
def test_tex_comes_without_the_document_around_it(tex: str, text: str) -> None:
    assert formula_text(formula(f"<alternatives><tex-math>{tex}</tex-math></alternatives>")) == text


def test_plain_text_is_what_is_left() -> None:
    assert formula_text(formula("E = <italic>mc</italic>")) == "E = mc"
