"""Print a document as HTML, Markdown, LaTeX and CSV. The same numbers stand in all four.

Every text that comes from outside (names, questions, licences) is escaped for its format.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import replace

import jinja2
from markupsafe import Markup

from biomistral.advisory import ADVISORY
from biomistral.models.cards import escape_markdown
from biomistral.records import LETTERS
from biomistral.reporting.document import Document
from biomistral.reporting.provenance import questions_behind, sources_of
from biomistral.reporting.samples import shortened
from biomistral.reporting.tables import DASH, Cell, Row, Table

_MARKDOWN_MARKS = {"": "{}", "best": "**{}**", "second": "*{}*"}
_LATEX_MARKS = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}
_LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "–": "--",
    "\N{MINUS SIGN}": "$-$",
    "…": r"\ldots{}",
}
_LATEX_ROWS = 45  # that fit on a page of the head below, caption included
_LATEX_HEAD = r"""\documentclass{article}
\usepackage{iftex}
\ifpdftex\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}\else\usepackage{fontspec}\fi
\usepackage[margin=2cm]{geometry}
\usepackage{adjustbox,booktabs,float}
"""


def render_html(document: Document, *, figures: str = "", browser: str = "") -> str:
    """One page that needs no other file and no network.

    ``figures`` is the folder beside the page that has the figures as files, ``browser`` the page of
    the questions, if there are such.
    """
    environment = _environment()
    environment.filters["safe_svg"] = Markup  # our own figures; their texts are escaped there
    environment.filters["shortened"] = shortened
    return environment.get_template("report.html").render(
        document=document,
        figures=figures,
        browser=browser,
        sources=lambda section, table, row: sources_of(section.id, table, row, document.made),
        asked=lambda row, cell: (
            questions_behind(cell.score) if browser and row.kind != "baseline" else ""
        ),
        advisory=ADVISORY,
        letters=LETTERS,
        formats={"Markdown": table_markdown, "LaTeX": table_latex, "CSV": table_csv},
        grouped=grouped_rows,
    )


def render_browser(title: str) -> str:
    """The page of the question browser; its data lie in scripts beside it."""
    return _environment().get_template("questions.html").render(title=title, advisory=ADVISORY)


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("biomistral.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def render_markdown(document: Document) -> str:
    """Findings and tables as GitHub Markdown; figures are in the HTML page only."""
    parts = [f"# {escape_markdown(document.title)}", f"> **{ADVISORY}**"]
    parts.append("\n".join(f"- {escape_markdown(text)}" for text in document.findings))
    for section in document.sections:
        tables = [table for table in (*section.tables, *section.folded) if table.rows]
        if tables:
            parts.append(f"## {escape_markdown(section.title)}")
        for table in tables:
            parts += [f"### {escape_markdown(table.title)}", table_markdown(table)]
            if note := _note(table, "best bold, second best italic"):
                parts.append(escape_markdown(note))
        if section.links:
            links = [f"[{escape_markdown(name)}]({path})" for name, path in section.links.items()]
            parts.append(f"{section.links_title}: {', '.join(links)}")
    return "\n\n".join(parts) + "\n"


def render_latex(document: Document) -> str:
    """Findings and tables as a LaTeX file with booktabs, to compile or to copy from."""
    parts = [
        _LATEX_HEAD + r"\begin{document}",
        rf"\section*{{{escape_latex(document.title)}}}",
        rf"\noindent\fbox{{\parbox{{0.97\linewidth}}{{\textbf{{{escape_latex(ADVISORY)}}}}}}}",
    ]
    items = "\n".join(rf"\item {escape_latex(text)}" for text in document.findings)
    parts.append(f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}")
    parts += [
        _latex_float(part, first=not i)
        for table in document.tables
        if table.rows
        for i, part in enumerate(_latex_parts(table))
    ]
    return "\n\n".join([*parts, r"\end{document}"]) + "\n"


def table_markdown(table: Table) -> str:
    """One table as GitHub Markdown."""
    head = [table.head, *(column.title for column in table.columns)]
    rule = ["---", *("---" if column.is_text else "---:" for column in table.columns)]
    lines = [map(escape_markdown, head), rule]
    for row in table.rows:
        cells = [_marked(cell, escape_markdown, _MARKDOWN_MARKS) for cell in row.cells]
        lines.append([escape_markdown(row.label), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _latex_parts(table: Table) -> list[Table]:
    """Cut a table that is longer than a page into parts of about one length."""
    rows = [row for group in grouped_rows(table) for row in group]
    parts = -(-len(rows) // _LATEX_ROWS)
    size = -(-len(rows) // parts)
    return [replace(table, rows=tuple(rows[i : i + size])) for i in range(0, len(rows), size)]


def table_latex(table: Table) -> str:
    """One table as a LaTeX tabular with booktabs; baselines below a rule of their own."""
    columns = "".join("l" if column.is_text else "r" for column in table.columns)
    head = [table.head, *(column.title for column in table.columns)]
    lines = [rf"\begin{{tabular}}{{l{columns}}}", r"\toprule", _latex_line(map(escape_latex, head))]
    for rows in grouped_rows(table):
        lines.append(r"\midrule")
        for row in rows:
            cells = [_marked(cell, escape_latex, _LATEX_MARKS) for cell in row.cells]
            lines.append(_latex_line([escape_latex(row.label), *cells]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def table_csv(table: Table) -> str:
    """One table as CSV (RFC 4180), numbers unrounded and in the unit that is printed.

    Where a column has them, ``low``, ``high`` and ``deviation`` follow in columns of their own.
    An absent number is an empty field.
    """
    extras = [
        [e for e in ("low", "high", "deviation") if any(getattr(c, e) is not None for c in cells)]
        for cells in zip(*(row.cells for row in table.rows), strict=True)
    ]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = [table.head]
    for column, names in zip(table.columns, extras or [[]] * len(table.columns), strict=True):
        head += [column.title, *(f"{column.title} {name}" for name in names)]
    writer.writerow(head)
    for row in table.rows:
        line = [row.label]
        for cell, names in zip(row.cells, extras, strict=True):
            line += [_csv_text(cell), *(_csv_number(getattr(cell, name)) for name in names)]
        writer.writerow(line)
    return stream.getvalue()


def grouped_rows(table: Table) -> list[list[Row]]:
    """Rows as they are set apart: models and ensembles, then baselines."""
    models = [row for row in table.rows if row.kind != "baseline"]
    baselines = [row for row in table.rows if row.kind == "baseline"]
    return [rows for rows in (models, baselines) if rows]


def escape_latex(text: str) -> str:
    """Make ``text`` plain inside LaTeX."""
    return "".join(_LATEX_ESCAPES.get(character, character) for character in text)


def _latex_float(table: Table, *, first: bool) -> str:
    """A table with its caption; a part that is not the first has the number of the first."""
    note = escape_latex(" ".join([table.title + ".", _note(table, "best bold, second underlined")]))
    caption = rf"\caption{{{note.strip()}}}\label{{tab:{table.id}}}"
    if not first:
        caption = (
            rf"\addtocounter{{table}}{{-1}}\caption{{{escape_latex(table.title)}, continued.}}"
        )
    return "\n".join(
        [
            r"\begin{table}[H]\centering",
            caption,
            r"\begin{adjustbox}{max width=\linewidth}%",
            table_latex(table),
            r"\end{adjustbox}",
            r"\end{table}",
        ]
    )


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _note(table: Table, marks: str) -> str:
    sentence = f"{marks.capitalize()}; numbers that print the same share a mark."
    return " ".join(part for part in (table.note, sentence if table.is_marked else "") if part)


def _marked(cell: Cell, escape: Callable[[str], str], marks: dict[str, str]) -> str:
    text = marks[cell.mark].format(escape(cell.text))
    return f"{text} {escape(cell.spread)}" if cell.spread else text


def _csv_text(cell: Cell) -> str:
    if cell.value is not None:
        return _csv_number(cell.value)
    return "" if cell.text == DASH else cell.text


def _csv_number(value: float | None) -> str:
    """Ten digits: all that is measured, none of the noise of binary fractions."""
    return "" if value is None else f"{value:.10g}"
