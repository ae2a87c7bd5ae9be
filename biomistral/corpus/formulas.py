"""Formulas as text: MathML where it reads correctly in one line, else TeX.

Knows nothing about articles or which formulas are wanted.
"""

from __future__ import annotations

import re

from lxml import etree

from biomistral.corpus.marks import RAISED

_MATHML = "{http://www.w3.org/1998/Math/MathML}"
# Elements of formulas that read correctly when written in one line.
LINEAR = frozenset(
    f"{_MATHML}{name}"
    for name in (
        *("math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mstyle", "mpadded"),
        *("msub", "msup", "msubsup", "mover"),
    )
)
_TEX_BODY = re.compile(r"\\begin\{document\}(.*?)\\end\{document\}", re.DOTALL)
_TEX_DISPLAY = re.compile(r"\\(?:begin|end)\{(?:equation|align|displaymath|eqnarray)\*?\}|\$\$")
# How MathML that does not read in one line is written, by its children.
_FORMS = {
    "mfrac": "({0})/({1})",
    "msub": "{0}_{1}",
    "msup": "{0}^{1}",
    "msubsup": "{0}_{1}^{2}",
    "munder": "{0}_{1}",
    "mover": "{0}^{1}",
    "munderover": "{0}_{1}^{2}",
    "mroot": "({0})^(1/{1})",
}


def linear_text(formula: etree._Element) -> str | None:
    """Text of the MathML below ``formula`` if it reads in one line, ``""`` if not, None without."""
    math = formula.find(f".//{_MATHML}math")
    if math is None:
        return None
    if any(node.tag not in LINEAR for node in math.iter(etree.Element)):
        return ""
    return _linear(math)


def formula_text(formula: etree._Element) -> str:
    """Any formula as text: the TeX that comes with it, else its MathML in one line."""
    tex = formula.find(".//tex-math")
    if tex is not None:
        text = "".join(map(str, tex.itertext()))
        found = _TEX_BODY.search(text)
        inner = " ".join(_TEX_DISPLAY.sub(" ", found[1] if found else text).split()).strip("$ ")
        return f"${inner}$" if inner else ""
    math = formula.find(f".//{_MATHML}math")
    if math is not None:
        return " ".join(_written(math).split())
    return " ".join("".join(map(str, formula.itertext())).split())


def _linear(node: etree._Element) -> str:
    if node.tag == f"{_MATHML}mspace":
        return " "
    own = node.text or ""
    # Words keep the blanks around them; between the signs of a formula they are only layout.
    parts = [own if node.tag == f"{_MATHML}mtext" else own.strip()]
    parts += [_linear(child) for child in node]
    if node.tag in {f"{_MATHML}msup", f"{_MATHML}msubsup"}:
        parts.insert(-1, RAISED)
    return "".join(parts)


def _written(node: etree._Element) -> str:
    parts = [_written(child) for child in node]
    name = str(node.tag).removeprefix(_MATHML)
    form = _FORMS.get(name)
    if form and len(parts) == form.count("{"):
        return form.format(*parts)
    text = (node.text or "").strip() + "".join(parts)
    return f"√({text})" if name == "msqrt" else text
