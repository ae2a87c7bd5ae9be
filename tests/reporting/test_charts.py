from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest
from matplotlib.figure import Figure

from biomistral.reporting.charts import (
    INK,
    PAPER,
    Chart,
    chart_style,
    legend_columns,
    legend_lines,
    make_chart,
    pdf_file,
    short_name,
    short_names,
    svg_file,
)

_IN_ANOTHER_PROCESS = """
import hashlib, runpy, sys
here = runpy.run_path(sys.argv[1])
print(here["digest_of_files"](here["draw"]()))
"""


def draw() -> Chart:
    with chart_style():
        figure = Figure(figsize=(2, 2), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=INK, marker="o", markerfacecolor=PAPER)
        axes.bar([1, 2], [3, 4], hatch="///")
        axes.set_xlabel("$x$ & <y>")
        return make_chart(figure, "id", "A caption, été", 'Words > "others" & more.')


def digest_of_files(chart: Chart) -> str:
    return hashlib.sha256(pdf_file(chart) + svg_file(chart).encode()).hexdigest()


@pytest.fixture(scope="module")
def chart() -> Chart:
    return draw()


def test_a_pdf_has_its_fonts_inside_and_no_date(chart: Chart) -> None:
    content = pdf_file(chart)
    assert content.startswith(b"%PDF-")
    assert b"/FontFile2" in content  # TrueType
    assert b"/Type3" not in content
    assert b"Date" not in content
    assert b"/Title" in content


def test_files_are_the_same_bytes_in_another_process(chart: Chart) -> None:
    """Not even the order of sets, which differs from process to process, has a say."""
    environment = {"PYTHONHASHSEED": "random", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _IN_ANOTHER_PROCESS, __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest_of_files(chart)


def test_a_figure_file_has_the_colours_that_a_page_would_give_it(chart: Chart) -> None:
    text = svg_file(chart)
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("aria-label") == chart.text
    style = root.find("{http://www.w3.org/2000/svg}style")
    assert style is not None
    assert "--paper" in str(style.text)
    assert "prefers-color-scheme: dark" in str(style.text)
    assert "var(--paper)" in text
    assert not re.search(r"http(?!://www\.w3\.org/2000/svg)", text)


def test_a_legend_of_many_entries_is_set_in_two_columns() -> None:
    assert [legend_columns(n) for n in (1, 4, 5)] == [1, 1, 2]
    assert [legend_lines(n) for n in (1, 4, 5, 6, 7)] == [1, 4, 3, 3, 4]


def test_a_long_name_is_cut_in_its_middle() -> None:
    assert short_name("abcdefghij", 7) == "abc…hij"
    assert short_name("abcdefg", 7) == "abcdefg"


def test_names_that_could_not_be_told_apart_stay_whole() -> None:
    names = ["abc-1-xyz", "abc-2-xyz", "a long other name"]
    assert short_names(names, 7) == {**{n: n for n in names[:2]}, names[2]: "a l…ame"}
