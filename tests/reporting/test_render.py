from __future__ import annotations

import csv
import io
import re

import pytest

from biomistral.reporting.document import Document
from biomistral.reporting.model_sections import Section
from biomistral.reporting.render import (
    escape_latex,
    render_latex,
    table_csv,
    table_latex,
    table_markdown,
)
from biomistral.reporting.tables import Cell, Column, Row, Table, text_cell

TABLE = Table(
    "id",
    "A title",
    "Model",
    (Column("50 % & more", "higher"), Column("Note_|", is_text=True)),
    (
        Row(
            "a|b_c <i>",
            (Cell("50.0", 50.04, 1.0, 45.0, 55.0, mark="best"), text_cell('say "x", {y}')),
        ),
        Row("second", (Cell("49.0", 49.0, mark="second"), text_cell(""))),
        Row("chance", (Cell(), text_cell("~^\\$#")), "baseline"),
    ),
)


def test_markdown_marks_and_escapes() -> None:
    lines = table_markdown(TABLE).splitlines()
    assert lines[0] == r"| Model | 50 % & more | Note\_\| |"
    assert lines[1] == "| --- | ---: | --- |"
    assert lines[2] == r'| a\|b\_c \<i\> | **50.0** ± 1.0 | say "x", {y} |'
    assert lines[3] == "| second | *49.0* | – |"


def test_latex_marks_escapes_and_sets_baselines_apart() -> None:
    lines = table_latex(TABLE).splitlines()
    assert lines[0] == r"\begin{tabular}{lrl}"
    assert lines[2] == r"Model & 50 \% \& more & Note\_\textbar{} \\"
    first = r"a\textbar{}b\_c \textless{}i\textgreater{} & \textbf{50.0} $\pm$ 1.0 & "
    assert lines[4] == first + r'say "x", \{y\} \\'
    assert lines[5] == r"second & \underline{49.0} & -- \\"
    assert lines[6] == r"\midrule"
    assert lines[7].startswith("chance & -- & ")


def test_a_table_longer_than_a_page_is_cut_into_parts_that_fit() -> None:
    rows = tuple(Row(f"m{n}", (Cell(f"{n}.0", n), text_cell(""))) for n in range(100))
    table = Table("id", "A title", "Model", TABLE.columns, (*rows, TABLE.rows[-1]), "A note.")
    text = render_latex(Document("t", {}, ["f"], [Section("s", "S", tables=[table, TABLE])]))
    parts = re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.DOTALL)
    assert [part.count(" \\\\\n") - 1 for part in parts] == [34, 34, 33, 3]
    assert re.findall(r"^m(\d+) &", text, re.MULTILINE) == [str(n) for n in range(100)]
    assert [r"\label{tab:id}" in part for part in parts] == [True, False, False, True]
    assert r"\addtocounter{table}{-1}\caption{A title, continued.}" in parts[2]
    assert "chance & " in parts[2]


def test_every_special_character_of_latex_is_escaped() -> None:
    assert escape_latex(r"\{}&%$#_~^") == (
        r"\textbackslash{}\{\}\&\%\$\#\_\textasciitilde{}\textasciicircum{}"
    )


def test_csv_has_unrounded_numbers_intervals_and_empty_fields() -> None:
    rows = list(csv.reader(io.StringIO(table_csv(TABLE))))
    assert rows[0] == [
        "Model",
        "50 % & more",
        "50 % & more low",
        "50 % & more high",
        "50 % & more deviation",
        "Note_|",
    ]
    assert rows[1] == ["a|b_c <i>", "50.04", "45", "55", "1", 'say "x", {y}']
    assert rows[2] == ["second", "49", "", "", "", ""]
    assert rows[3][1:5] == ["", "", "", ""]


@pytest.mark.parametrize("render", [table_markdown, table_latex, table_csv])
def test_a_table_without_rows_is_only_its_head(render) -> None:
    table = Table("id", "t", "Model", (Column("c"),), ())
    assert "Model" in render(table)
