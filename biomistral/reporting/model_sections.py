"""The sections of a report on what accuracy does not show. Pure: results and records to sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from biomistral.records import Comparison, CoveragePoint, ReliabilityBin
from biomistral.reporting import figures, model_figures
from biomistral.reporting.charts import Chart
from biomistral.reporting.model_tables import (
    abstaining_table,
    calibrated_table,
    in_setting,
    matrix_table,
    pairs_table,
    positions_table,
)
from biomistral.reporting.results import AVERAGE, RANDOM_CHOICE, Results, Setting, average_of
from biomistral.reporting.samples import Sample
from biomistral.reporting.score_tables import (
    ACCURACY,
    calibration_table,
    describe,
    language_name,
)
from biomistral.reporting.tables import Table, slug

_MOST_PAIRS = 40  # of one figure


@dataclass(frozen=True)
class Version:
    """One of the texts that are shown side by side."""

    title: str
    text: str
    language: str  # ISO 639-1
    direction: str  # ltr or rtl


@dataclass(frozen=True)
class Pair:
    """Texts to be read beside each other."""

    title: str
    note: str
    versions: Sequence[Version]


@dataclass(frozen=True)
class Section:
    """One section of the report; one with nothing in it is not printed."""

    id: str
    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    folded: Sequence[Table] = ()  # shown on demand
    samples: Sequence[Sample] = ()
    pairs: Sequence[Pair] = ()
    links: Mapping[str, str] = field(default_factory=dict)  # text -> file beside the page
    links_title: str = "Model cards"

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        rows = [row for table in (*self.tables, *self.folded) for row in table.rows]
        return not (rows or self.charts or self.samples or self.pairs)


def calibration_section(results: Results, bins: Sequence[ReliabilityBin]) -> Section:
    """Whether confidence means what it says, before and after calibrating."""
    group = results.main_group
    tables = [
        make(results, group, setting)
        for make in (calibration_table, calibrated_table)
        for setting in results.main_settings
    ]
    shown = {s.scoring: s for s in reversed(results.main_settings)}  # bins do not know the shots
    charts = [
        figures.reliability_chart(
            slug("reliability", setting.language, setting.scoring, str(index)),
            f"{model} ({_bins_setting(results, setting)})",
            own,
            index,
            _bins_of(bins, model, group, setting, "temperature"),
        )
        for setting in reversed(shown.values())
        for index, model in enumerate(results.models)
        if (own := _bins_of(bins, model, group, setting))
    ]
    text = (
        "Whether a model that is 70 % sure is right 70 % of the time. On the dashed line it would "
        "be; below it the model is too sure of itself. The histogram counts answers."
    )
    if any(b.calibration for b in bins):
        text += (
            " The dotted line with hollow points is the model after temperature scaling, fitted on "
            "other questions than it is shown for."
        )
    if silent := _without_probabilities(results, group):
        text += (
            f" Not shown: {', '.join(silent)}, which answered in words and gave no probabilities."
        )
    return Section(
        "calibration",
        "Calibration",
        text,
        tables=[table for table in tables if table.rows],
        charts=charts,
    )


def _without_probabilities(results: Results, group: str) -> list[str]:
    """Models with an accuracy and no calibration error: their answers were words."""
    average = average_of(group)

    def has(model: str, metric: str) -> bool:
        return any(results.find(s, model, average, metric) for s in results.main_settings)

    measured = [m for m in results.models if results.kinds[m] != "baseline"]
    return [m for m in measured if has(m, ACCURACY) and not has(m, "ece")]


def abstaining_section(results: Results, points: Sequence[CoveragePoint]) -> Section:
    """What a model gains by leaving out what it is unsure of."""
    group = results.main_group
    charts = []
    for setting in results.main_settings:
        wanted = (AVERAGE, group, *setting)
        own = [p for p in points if (p.task, p.group, p.language, p.scoring, p.shots) == wanted]
        by_model = {m: [p for p in own if p.model == m] for m in results.models}
        curves = {model: curve for model, curve in by_model.items() if curve}
        if curves:
            chance = results.find(setting, RANDOM_CHOICE, average_of(group), ACCURACY)
            charts.append(
                model_figures.coverage_chart(
                    slug("coverage", group, *map(str, setting)),
                    f"Accuracy over the share of questions answered ({describe(setting)})",
                    curves,
                    chance.value if chance else None,
                )
            )
    return Section(
        "abstaining",
        "Abstaining",
        "How accurate a model is on the questions it is surest of: a curve that does not fall to "
        "the right is of a model that does not know when it is right. All tasks pooled, so the "
        "right end is the micro average; the dashed line is random choice.",
        tables=[abstaining_table(results, group, setting) for setting in results.main_settings],
        charts=charts,
    )


def positions_section(results: Results) -> Section:
    """Whether models prefer a letter."""
    group = results.main_group
    return Section(
        "positions",
        "Preferred letters",
        "A model that reads the question chooses each letter about as often as it is right.",
        tables=[positions_table(results, group, setting) for setting in results.main_settings],
    )


def comparison_section(results: Results, comparisons: Sequence[Comparison]) -> Section:
    """Which differences between models are more than chance."""
    titles = {task.name: task.title for task in results.tasks} | {AVERAGE: "Average"}
    tables: list[Table] = []
    folded: list[Table] = []
    charts: list[Chart] = []
    for setting in results.settings:
        own = in_setting(comparisons, results, results.main_group, setting)
        averages = [row for row in own if row.task == AVERAGE]
        by_task = [row for row in own if row.task != AVERAGE]
        main = averages or by_task
        if not main:
            continue
        name = f"{results.main_group.capitalize()} {'average' if averages else 'tasks'}"
        title = f"Models against models, {name.lower()}: {describe(setting)}"
        table = pairs_table(main, title, slug("pairs", *map(str, setting)), titles)
        is_main = setting in results.main_settings
        if averages and len({name for row in averages for name in (row.first, row.second)}) > 2:
            matrix = f"Differences, {name.lower()}: {describe(setting)}"
            id_ = slug("matrix", *map(str, setting))
            (tables if is_main else folded).append(
                matrix_table(averages, matrix, id_, results.models)
            )
        (tables if is_main else folded).append(table)
        if is_main and averages:
            if by_task:
                title = f"Models against models, task by task: {describe(setting)}"
                id_ = slug("pairs-by-task", *map(str, setting))
                folded.append(pairs_table(by_task, title, id_, titles))
            charts += _differences(averages, f"{name} ({describe(setting)})", setting)
    return Section(
        "comparisons",
        "Models against models",
        "Differences on the same questions, with tests that are corrected for their number. A "
        "filled point is shown not to be zero.",
        tables=tables,
        folded=folded,
        charts=charts,
    )


def _differences(rows: Sequence[Comparison], caption: str, setting: Setting) -> list[Chart]:
    """Every pair of models; more than fit into one figure are in several of about one size."""
    id_ = slug("differences", *map(str, setting))
    parts = -(-len(rows) // _MOST_PAIRS)
    if parts == 1:
        return [model_figures.difference_chart(id_, caption, rows)]
    size = -(-len(rows) // parts)
    return [
        model_figures.difference_chart(
            f"{id_}-part-{part + 1}",
            f"{caption}, part {part + 1} of {parts}",
            rows[part * size : (part + 1) * size],
        )
        for part in range(parts)
    ]


def _bins_setting(results: Results, setting: Setting) -> str:
    """What the bins of a scoring are of: they are kept for all its numbers of shots together."""
    same = [s for s in results.main_settings if s.scoring == setting.scoring]
    shots = f"{' and '.join(str(s.shots) for s in same)}-shot"
    return f"{language_name(setting.language)}, {setting.scoring} scoring, {shots}"


def _bins_of(
    bins: Sequence[ReliabilityBin], model: str, group: str, setting: Setting, calibration: str = ""
) -> list[ReliabilityBin]:
    wanted = (model, AVERAGE, group, setting.language, setting.scoring, calibration)
    return [
        b
        for b in bins
        if (b.model, b.task, b.group, b.language, b.scoring, b.calibration) == wanted
        and b.num_answers
    ]
