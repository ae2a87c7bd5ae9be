"""What every figure of a report has in common: its style, and how it becomes SVG and PDF.

Colours are those of Okabe and Ito (safe for colour-blind eyes), doubled by hatches, markers and
kinds of line. Inside a page, axes and text take the colour and the font of the page around them, so
one figure serves a light and a dark page; as a file of its own an SVG brings both, and a PDF is black
on white with its fonts inside (TrueType). The same numbers give the same bytes. Knows nothing about
what is drawn.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
HATCHES = ("", "///", "...", "xxx", "\\\\\\")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":")
INK = "#010203"  # stands for the colour of the page's text until the figure is in the page
PAPER = "#fefdfc"  # likewise for its background; on paper nobody tells it from white
LONGEST_NAME = 24  # characters of a model's name on an axis
_SHORT_LEGEND = 4  # entries

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, copied and read aloud
    "svg.hashsalt": "biomistral",
    "pdf.fonttype": 42,  # TrueType: text can be searched and edited; journals ask for it
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.unicode_minus": True,
    "hatch.linewidth": 0.5,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a model's name is one
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
# The colours of the page, which is not there.
_ALONE = (
    "<style>svg { --paper: #ffffff; color: #1b1f24; background: var(--paper); "
    "font-family: sans-serif; } @media screen and (prefers-color-scheme: dark) "
    "{ svg { --paper: #14171b; color: #e6e9ed; } }</style>"
)


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure: its caption, its SVG, and what it shows in words (in the SVG's aria-label)."""

    id: str  # also the name of its files
    caption: str
    svg: str  # to be put inside a page
    text: str
    figure: Figure = field(compare=False, repr=False)  # as it was drawn


def turn(index: int) -> int:
    """Shift by one each time the colours begin again: colour and marker do not repeat together."""
    return index + index // len(COLOURS)


def legend_columns(num_entries: int) -> int:
    """Return in how many columns a legend below a figure is set."""
    return 1 if num_entries <= _SHORT_LEGEND else 2


def legend_lines(num_entries: int) -> int:
    """Return how many lines such a legend takes."""
    return -(-num_entries // legend_columns(num_entries))


def short_name(name: str, longest: int = LONGEST_NAME) -> str:
    """Cut a long name in its middle: the ends tell models of one family apart."""
    if len(name) <= longest:
        return name
    half = (longest - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def short_names(names: Iterable[str], longest: int = LONGEST_NAME) -> dict[str, str]:
    """Cut each name as ``short_name`` does; those that could then not be told apart stay whole."""
    cut = {name: short_name(name, longest) for name in names}
    shown = list(cut.values())
    return {name: short if shown.count(short) == 1 else name for name, short in cut.items()}


def chart_style() -> Any:
    """Defaults of the library, not of the user's own settings, and our style on top."""
    style: Any = {key: value for key, value in mpl.rcParamsDefault.items() if key != "backend"}
    return mpl.rc_context(style | _STYLE)


def make_chart(figure: Figure, id_: str, caption: str, text: str) -> Chart:
    """Turn a drawn figure into one for the page."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    figure.set_layout_engine("none")  # all is in its place: a second file need not look for it
    return Chart(id_, caption, _inline(stream.getvalue(), id_, text), text, figure)


def pdf_file(chart: Chart) -> bytes:
    """Return a figure as a PDF: black on white, its fonts inside, without a date."""
    stream = io.BytesIO()
    about = {"CreationDate": None, "Creator": None, "Producer": None, "Title": chart.caption}
    with chart_style():
        chart.figure.savefig(stream, format="pdf", metadata=about)
    return stream.getvalue()


def svg_file(chart: Chart) -> str:
    """Return a figure as an SVG that stands alone, light or dark as whoever looks at it prefers."""
    start = chart.svg.index(" ")
    return f'<svg xmlns="http://www.w3.org/2000/svg"{chart.svg[start:]}'.replace(
        ">", f">{_ALONE}", 1
    )


def _inline(svg: str, prefix: str, text: str) -> str:
    """Fit a whole SVG file for the inside of a page.

    Drops its head, metadata and style sheet (it would reach over the whole page) and the ids
    nobody refers to, and makes the others distinct among several figures.
    """
    box = re.search(r'viewBox="([^"]+)"', svg)
    assert box, "matplotlib writes a viewBox"
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL
    )
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(
        r' id="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", body
    )
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-").replace(INK, "currentColor")
    body = body.replace(PAPER, "var(--paper)")
    # The page's own font: `font: 9px 'DejaVu Sans', ...` becomes its size alone.
    body = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", body)
    head = f'<svg viewBox="{box[1]}" role="img" aria-label="{_attribute(text)}">'
    return head + re.sub(r"\n\s*\n*", "\n", body).strip()


def _attribute(text: str) -> str:
    for character, entity in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, entity)
    return text
