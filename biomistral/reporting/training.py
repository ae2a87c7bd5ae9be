"""The training section: curves of every training run, and perplexity on what it was not trained on.

Pure functions of training logs. What a run took in time and energy is kept beside the model
(``throughput.volatile.json``) and printed only in a report that shows measured costs anyway: any
other is the same bytes wherever it is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from biomistral.reporting import figures
from biomistral.reporting.model_sections import Section
from biomistral.reporting.run_tables import LogLine, training_table
from biomistral.reporting.score_tables import language_name
from biomistral.reporting.tables import (
    Cell,
    Column,
    Row,
    Table,
    count_cell,
    number_cell,
    text_cell,
)

Logs = Mapping[str, Sequence[LogLine]]
# Of each trained model: seconds, tokens, tokens_per_second and, where counted, energy_watt_hours.
Throughputs = Mapping[str, Mapping[str, float]]


def training_section(logs: Logs, throughputs: Throughputs | None = None) -> Section:
    """Loss, learning rate and held-out loss of every training run; speed and energy if given."""
    tables = (training_table(logs), throughput_table(throughputs or {}), perplexity_table(logs))
    charts = (
        figures.loss_chart("loss", "Training loss over tokens", logs),
        figures.held_out_chart("held-out-loss", "Held-out loss over tokens", logs),
        figures.rate_chart("learning-rate", "Learning rate over tokens", logs),
    )
    text = ""
    if any(len(_corpora(log)) > 1 for log in logs.values()):
        text = (
            "Held-out loss on a corpus that a model is not trained on shows what it forgets: a curve "
            "that rises while that of its own corpus falls."
        )
    return Section(
        "training",
        "Training",
        text,
        tables=[table for table in tables if table.rows],
        charts=[chart for chart in charts if chart is not None],
        folded=[table for table in (language_table(logs),) if table.rows],
    )


def throughput_table(throughputs: Throughputs) -> Table:
    """What each training run took."""
    rows = []
    for model, facts in throughputs.items():
        energy = facts.get("energy_watt_hours")
        cells = (
            number_cell(facts.get("seconds"), 1),
            count_cell(int(facts["tokens"]) if "tokens" in facts else None),
            count_cell(round(facts["tokens_per_second"]) if "tokens_per_second" in facts else None),
            text_cell("not measured") if energy is None else number_cell(energy, 1),
        )
        rows.append(Row(model, cells))
    heads = ("Seconds", "Tokens", "Tokens a second", "Energy, Wh")
    return Table(
        "training-speed",
        "Speed and energy of training",
        "Model",
        tuple(map(Column, heads)),
        tuple(rows),
        note="Of a run that was interrupted, its last part. Tokens of pre-training with padding, of "
        "tuning without. Energy of the GPUs, else of the processors, as their counters tell it; all "
        "that runs on them is in it.",
    )


def perplexity_table(logs: Logs) -> Table:
    """Held-out perplexity of each model on each corpus, before and after training."""
    rows = [
        Row(model, (text_cell(corpus), *_ends([x.held_out_loss.get(corpus) for x in log])))
        for model, log in logs.items()
        for corpus in _corpora(log)
    ]
    columns = (Column("Corpus", is_text=True), *map(Column, ("Before", "After", "Change")))
    return Table(
        "perplexity",
        "Held-out perplexity before and after training",
        "Model",
        columns,
        tuple(rows),
        note="Per token of the model's own tokenizer; a change above 0 on a corpus that was not "
        "trained on is forgetting.",
    )


def language_table(logs: Logs) -> Table:
    """The same, language by language, where a corpus has several."""
    rows = []
    for model, log in logs.items():
        by_place = [x.held_out_by_language for x in log if x.held_out_by_language]
        known = dict.fromkeys(
            (corpus, code) for found in by_place for corpus in found for code in found[corpus]
        )
        for corpus, code in known:
            losses = [found.get(corpus, {}).get(code) for found in by_place]
            cells = (text_cell(corpus), text_cell(language_name(code)), *_ends(losses))
            rows.append(Row(model, cells))
    texts = (Column("Corpus", is_text=True), Column("Language", is_text=True))
    return Table(
        "perplexity-by-language",
        "Held-out perplexity, language by language",
        "Model",
        (*texts, *map(Column, ("Before", "After", "Change"))),
        tuple(rows),
    )


def _corpora(log: Sequence[LogLine]) -> list[str]:
    return list(dict.fromkeys(corpus for line in log for corpus in line.held_out_loss))


def _ends(losses: Sequence[float | None]) -> tuple[Cell, Cell, Cell]:
    """Perplexity at both ends, and its change."""
    known = [math.exp(min(loss, 700)) for loss in losses if loss is not None]
    if not known:
        return number_cell(None), number_cell(None), number_cell(None)
    first, last = known[0], known[-1]
    return number_cell(first, 2), number_cell(last, 2), number_cell(last - first, 2, signed=True)
