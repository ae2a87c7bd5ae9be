"""The cost table: numbers as measured, times relative to the first model."""

from __future__ import annotations

from biomistral.reporting.cost_tables import cost_section, cost_table

COSTS = [
    {
        "model": "base", "device": "CPU", "threads": 2, "prompt_tokens": 512, "batch": 8,
        "weight_bytes": 2_000_000, "memory_bytes": 3_000_000, "load_seconds": 1.5,
        "reading_tokens_per_second": 100.0, "writing_tokens_per_second": 10.0,
        "batched_tokens_per_second": 40.0,
    }
]  # fmt: skip
COSTS.append(
    {
        **COSTS[0],
        "model": "awq",
        "reading_tokens_per_second": 80.0,
        "writing_tokens_per_second": 25.0,
    }
)


def test_times_are_relative_to_the_first_model():
    base, awq = cost_table(COSTS).rows
    assert [cell.text for cell in base.cells] == [
        "2.0", "3", "1.5", "100", "1.00", "10.0", "1.00", "40.0"
    ]  # fmt: skip
    assert (awq.cells[4].text, awq.cells[6].text) == ("1.25", "0.40")


def test_the_section_says_where_it_was_measured():
    assert "on a CPU, 2 threads" in cost_section(COSTS).text
    assert "on a CPU, 1 thread)" in cost_section([{**COSTS[0], "threads": 1}]).text
    assert "NVIDIA X" in cost_section([{**COSTS[0], "device": "NVIDIA X"}]).text


def test_there_is_no_section_without_numbers():
    assert cost_section([]).is_empty
