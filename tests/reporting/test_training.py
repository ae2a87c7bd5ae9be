from __future__ import annotations

import math

from biomistral.reporting.run_tables import LogLine
from biomistral.reporting.training import (
    language_table,
    perplexity_table,
    throughput_table,
    training_section,
)

LOG = [
    LogLine(0, 0, None, None, {"own": math.log(20), "general": math.log(8)}, {"own": {"en": 1.0}}),
    LogLine(5, 50, 2.5, 1e-3, {}),
    LogLine(
        9,
        90,
        None,
        None,
        {"own": math.log(5), "general": math.log(10)},
        {"own": {"en": 0.0, "fr": 2.0}},
    ),
]


def cells(table) -> dict[tuple[str, ...], list[str]]:
    num_texts = sum(column.is_text for column in table.columns)
    return {
        (row.label, *(cell.text for cell in row.cells[:num_texts])): [
            cell.text for cell in row.cells[num_texts:]
        ]
        for row in table.rows
    }


def test_perplexity_before_and_after_shows_what_was_learned_and_forgotten() -> None:
    assert cells(perplexity_table({"m": LOG, "silent": []})) == {
        ("m", "own"): ["20.00", "5.00", "−15.00"],
        ("m", "general"): ["8.00", "10.00", "+2.00"],
    }


def test_languages_have_lines_of_their_own() -> None:
    found = cells(language_table({"m": LOG}))
    assert found["m", "own", "English"] == ["2.72", "1.00", "−1.72"]
    assert found["m", "own", "French"] == ["7.39", "7.39", "0.00"]


def test_the_section_has_loss_held_out_loss_and_learning_rate() -> None:
    section = training_section({"m": LOG})
    assert [chart.id for chart in section.charts] == ["loss", "held-out-loss", "learning-rate"]
    assert "m, general" in section.charts[1].text
    assert "forgets" in section.text
    assert training_section({}).is_empty


def test_speed_is_shown_and_energy_only_where_it_was_counted() -> None:
    measured = {"seconds": 30.26, "tokens": 720_640.0, "tokens_per_second": 23_817.9}
    table = throughput_table({"m": measured, "gpu": {**measured, "energy_watt_hours": 12.34}})
    assert cells(table) == {
        ("m",): ["30.3", "720,640", "23,818", "not measured"],
        ("gpu",): ["30.3", "720,640", "23,818", "12.3"],
    }
    shown = training_section({"m": LOG}, {"m": measured})
    assert "training-speed" in [table.id for table in shown.tables]
    assert "training-speed" not in [table.id for table in training_section({"m": LOG}).tables]
