"""What of an article becomes text, rule by rule."""

from __future__ import annotations

import pytest
from lxml import etree

from biomistral.corpus.jats_text import line_of, paragraphs_of, rules_for


def body(inner: str) -> list[str]:
    return paragraphs_of(
        etree.fromstring(f"<body xmlns:m='http://www.w3.org/1998/Math/MathML'>{inner}</body>")
    )


def p(inner: str) -> str:
    (text,) = body(f"<p>{inner}</p>")
    return text


def bibr(text: str) -> str:
    return f"<xref ref-type='bibr'>{text}</xref>"


def test_headings_and_paragraphs_come_in_order_and_items_are_lines() -> None:
    assert body(
        "<sec><title>Methods</title><p>First.</p><sec><title>Diet</title><p>Bark:"
        "<list><list-item><p>boiled</p></list-item><list-item><label>b</label><p>raw</p></list-item>"
        "</list>each day.</p></sec></sec><disp-quote><p>Well!</p></disp-quote>"
    ) == ["Methods", "First.", "Diet", "Bark:", "boiled\nraw", "each day.", "Well!"]


def test_inline_text_stays_in_order_without_new_blanks() -> None:
    assert p(
        "In <italic>B. <bold>va</bold>llis</italic>, so-<named-content>called</named-content>\n x."
    ) == ("In B. vallis, so-called x.")


@pytest.mark.parametrize(
    "element",
    [
        "<table-wrap><caption><p>T</p></caption><table><tr><td>1</td></tr></table></table-wrap>",
        "<fig><label>F</label><caption><p>T</p></caption></fig>",
        "<disp-formula>E=mc2</disp-formula>",
        "<fn><p>note</p></fn>",
        "<supplementary-material><p>file</p></supplementary-material>",
        "<xref ref-type='fn'>a</xref>",
        "<preformat preformat-type='pmc-ocr-text'>s c a n</preformat>",
    ],
)
def test_what_is_left_out_leaves_its_paragraph_whole(element: str) -> None:
    assert p(f"Before {element} after.") == "Before after."


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (f"so [{bibr('1')}]. Then", "so. Then"),
        (f"so [{bibr('1')}, {bibr('2')}–{bibr('4')}] and", "so and"),
        (f"so<sup>{bibr('1')},{bibr('2')}</sup>. Then", "so. Then"),
        (f"so [{bibr('1')}]–[{bibr('3')}]. Then", "so. Then"),
        (f"so ({bibr('Silva, 2001')}; {bibr('Reyes et al., 2003')}).", "so."),
        (f"so (see {bibr('Silva, 2001')}).", "so."),
        (f"as {bibr('Silva (2001)')} showed", "as Silva (2001) showed"),
        (f"as Silva [{bibr('7')}] showed", "as Silva showed"),
        (f"so (bark, {bibr('3')}) now", "so (bark) now"),
        (f"so ({bibr('3')}, bark) now", "so (bark) now"),
        ("so (<xref ref-type='fig'>Figure 1</xref>) now", "so (Figure 1) now"),
        ("in <xref ref-type='table'>Table 2</xref> we", "in Table 2 we"),
        ("dose<xref ref-type='table-fn'>a</xref> given", "dose given"),
        ("an empty () pair [] of ours", "an empty () pair [] of ours"),
    ],
)
def test_citation_marks_go_and_sentences_stay(source: str, text: str) -> None:
    assert p(source) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("10<sup>6</sup> cells", "10^6 cells"),
        ("3 × 10<sup>−4</sup> mol", "3 × 10^−4 mol"),
        ("H<sub>2</sub>O and Ca<sup>2+</sup>", "H2O and Ca2+"),
        ("5 cm<sup>2</sup>, the 4<sup>th</sup>", "5 cm2, the 4th"),
    ],
)
def test_a_raised_number_is_no_digit_of_its_base(source: str, text: str) -> None:
    assert p(source) == text


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        ("<m:math><m:mi>p</m:mi><m:mo>&lt;</m:mo><m:mn>0.05</m:mn></m:math>", "(p<0.05)"),
        ("<m:math><m:msup><m:mn>10</m:mn><m:mn>6</m:mn></m:msup></m:math>", "(10^6)"),
        ("<italic>n</italic> = 5", "(n = 5)"),
        ("<alternatives><tex-math>\\frac</tex-math></alternatives>", ""),
        ("<m:math><m:mfrac><m:mi>a</m:mi><m:mi>b</m:mi></m:mfrac></m:math>", ""),
    ],
)
def test_inline_formulas_are_kept_if_they_read_in_one_line(formula: str, text: str) -> None:
    assert p(f"so (<inline-formula>{formula}</inline-formula>).") == (
        f"so {text}." if text else "so."
    )


def kept(inner: str, *keep: str) -> list[str]:
    element = etree.fromstring(f"<body xmlns:m='http://www.w3.org/1998/Math/MathML'>{inner}</body>")
    return paragraphs_of(element, rules_for(keep))


TABLE = (
    "<table-wrap><label>Table 1</label><caption><title>Doses.</title><p>By week.</p></caption>"
    "<table><thead><tr><th>Bark</th><th>Days</th></tr></thead><tbody><tr><td>grey"
    f"<xref ref-type='table-fn'>a</xref></td><td><p>3</p><p>(4 g{bibr('1')})</p></td></tr>"
    "<tr><td/><td>5</td></tr></tbody></table><table-wrap-foot><p>Foot.</p></table-wrap-foot></table-wrap>"
)
FIGURE = "<fig><label>Figure 2.</label><caption><p>A leaf.</p></caption><graphic/></fig>"


@pytest.mark.parametrize(
    ("keep", "paragraphs"),
    [
        ((), ["Text."]),
        (("captions",), ["Table 1. Doses.", "By week.", "Figure 2. A leaf.", "Text."]),
        (("tables",), ["Table 1. Doses.", "By week.", "Bark | Days\ngrey | 3 (4 g)\n| 5", "Text."]),
        (
            ("tables", "captions"),
            [
                "Table 1. Doses.",
                "By week.",
                "Bark | Days\ngrey | 3 (4 g)\n| 5",
                "Figure 2. A leaf.",
                "Text.",
            ],
        ),
    ],
)
def test_tables_and_captions_are_kept_if_asked_for(
    keep: tuple[str, ...], paragraphs: list[str]
) -> None:
    assert kept(f"{TABLE}{FIGURE}<p>Text.</p>", *keep) == paragraphs


def test_formulas_are_kept_if_asked_for() -> None:
    tex = "<alternatives><tex-math>$$a$$</tex-math><graphic/></alternatives>"
    source = f"<p>If <inline-formula>{tex}</inline-formula> then <disp-formula>{tex}</disp-formula> so.</p>"
    assert kept(source) == ["If then so."]
    assert kept(source, "formulas") == ["If $a$ then", "$a$", "so."]


def test_citations_are_kept_as_they_stand_if_asked_for() -> None:
    source = f"<p>so [{bibr('1')}, {bibr('2')}]. Dose<xref ref-type='fn'>a</xref> x</p>"
    assert kept(source, "citations") == ["so [1, 2]. Dose x"]


def test_back_matter_is_kept_if_asked_for() -> None:
    source = "<sec><title>Funding</title><p>None.</p></sec><ack><p>Thanks.</p></ack>"
    assert kept(source) == []
    assert kept(source, "back_matter") == ["Funding", "None.", "Thanks."]


def test_a_definition_is_one_line() -> None:
    item = "<def-item><term>AB</term><def><p>a bark</p></def></def-item>"
    assert body(f"<def-list>{item}{item}</def-list>") == ["AB: a bark\nAB: a bark"]


@pytest.mark.parametrize(
    "section",
    [
        "<sec><title>7. Authors’ contributions</title><p>All.</p></sec>",
        "<sec><title>Conflict of Interest:</title><p>None.</p></sec>",
        "<sec sec-type='supplementary-material'><title>More</title><p>File.</p></sec>",
    ],
)
def test_back_matter_in_the_body_goes(section: str) -> None:
    assert body(f"<p>Text.</p>{section}") == ["Text."]


def test_a_title_is_one_line() -> None:
    title = etree.fromstring(
        "<article-title>Bark<xref ref-type='fn'>*</xref>\n and <italic>rest</italic></article-title>"
    )
    assert line_of(title) == "Bark and rest"
    assert line_of(None) == ""


@pytest.mark.timeout(60)  # quadratic work would take hours
def test_long_runs_of_blanks_and_commas_are_no_trap() -> None:
    text = p(f"so {' ' * 200_000}x{',' * 200_000}x{'(' * 50_000}{bibr('1')} end")
    assert text.startswith("so x,,")
