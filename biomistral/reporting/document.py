"""What a report says, before it is printed in any format: sections of tables and figures.

Pure: from records, manifests and logs to a ``Document``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from biomistral.records import (
    Comparison,
    CoveragePoint,
    LanguageGap,
    LayerDistance,
    ReliabilityBin,
    TaskOverlap,
)
from biomistral.reporting import figures
from biomistral.reporting.charts import Chart
from biomistral.reporting.corpora import corpora_section
from biomistral.reporting.cost_tables import Cost, cost_section
from biomistral.reporting.distances import distances_section
from biomistral.reporting.language_tables import languages_section
from biomistral.reporting.model_sections import (
    Section,
    abstaining_section,
    calibration_section,
    comparison_section,
    positions_section,
)
from biomistral.reporting.provenance import Made, made_of
from biomistral.reporting.published import published_section
from biomistral.reporting.quantization import quantization_section
from biomistral.reporting.results import (
    RANDOM_CHOICE,
    TRUTHFULNESS,
    Results,
    Setting,
    average_of,
)
from biomistral.reporting.run_tables import (
    Artefact,
    LogLine,
    benchmark_table,
    makings_of,
    parents_of,
    provenance_table,
    versions_table,
)
from biomistral.reporting.samples import Sample
from biomistral.reporting.score_tables import (
    ACCURACY,
    accuracy_table,
    describe,
    groups_table,
    top_token_table,
)
from biomistral.reporting.summary import findings
from biomistral.reporting.tables import Table, slug, unique_names
from biomistral.reporting.training import training_section
from biomistral.reporting.translation_tables import translations_section
from biomistral.reporting.tuned import tuning_section


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    facts: Mapping[str, str]  # label -> number: the run at a glance
    findings: Sequence[str]
    sections: Sequence[Section]
    made: Sequence[Made] = ()  # the artefacts that all of it is from

    @property
    def tables(self) -> list[Table]:
        """All tables in order, folded ones included."""
        return [table for s in self.sections for table in (*s.tables, *s.folded)]

    @property
    def charts(self) -> list[Chart]:
        """All figures in order."""
        return [chart for s in self.sections for chart in s.charts]


@dataclass(frozen=True)
class Material:
    """Everything a report is made from, already read."""

    results: Results
    reliability: Sequence[ReliabilityBin] = ()
    coverage: Sequence[CoveragePoint] = ()
    comparisons: Sequence[Comparison] = ()
    gaps: Sequence[LanguageGap] = ()
    models: Sequence[Artefact] = ()
    corpora: Sequence[Artefact] = ()
    others: Sequence[Artefact] = ()  # questions, predictions, scores
    costs: Sequence[Cost] = ()
    logs: Mapping[str, Sequence[LogLine]] = field(default_factory=dict)
    throughputs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by model
    # Name -> totals.json of translations that were asked, and the pages that show them.
    translations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    translation_pages: Mapping[str, str] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    overlaps: Mapping[str, Sequence[TaskOverlap]] = field(default_factory=dict)  # by corpus
    distances: Mapping[str, Sequence[LayerDistance]] = field(default_factory=dict)  # by model
    runs: Table | None = None  # where there are several


def compose(title: str, material: Material) -> Document:
    """Arrange the material into a document."""
    results = material.results
    sections = [
        Section("runs", "Runs", tables=[material.runs] if material.runs else []),
        _medical(results),
        _by_task(results),
        tuning_section(results, material.models),
        _groups(results, material.models),
        _truthfulness(results),
        languages_section(results, material.gaps, material.others),
        translations_section(material.translations, material.translation_pages),
        published_section(results),
        quantization_section(results, material.comparisons, material.models),
        comparison_section(results, material.comparisons),
        calibration_section(results, material.reliability),
        abstaining_section(results, material.coverage),
        positions_section(results),
        cost_section(material.costs),
        training_section(material.logs, material.throughputs),
        distances_section(material.distances, _remarks(material.others)),
        corpora_section(material.corpora, material.overlaps, results),
        _benchmark(results, material.samples),
        _provenance(material),
    ]
    return Document(
        title=title,
        facts=_facts(results),
        findings=findings(
            results, parents_of(material.models), list(material.logs), material.comparisons
        ),
        sections=[section for section in map(_filled, sections) if not section.is_empty],
        made=made_of((*material.corpora, *material.models, *material.others)),
    )


def _remarks(artefacts: Sequence[Artefact]) -> list[str]:
    """What could not be compared, as the steps that compared models said it."""
    return [
        str(remark)
        for artefact in artefacts
        if artefact.role == "distances"
        for remark in artefact.counts.get("remarks", [])
    ]


def _filled(section: Section) -> Section:
    """Leave out tables without a column or a row: not every group is asked in every setting."""
    return replace(
        section,
        tables=[table for table in section.tables if table.columns and table.rows],
        folded=[table for table in section.folded if table.columns and table.rows],
    )


def _facts(results: Results) -> dict[str, str]:
    evaluated = [m for m in results.models if results.kinds[m] != "baseline"]
    answered = [
        results.num_questions(task, code) or 0
        for task in results.tasks
        for code in results.languages
    ]
    seeds = max((score.num_seeds for score in results.scores.values()), default=0)
    numbers = {
        "models": len(evaluated),
        "tasks": len(results.tasks),
        "languages": len(results.languages),
        "questions": sum(answered),
        "seeds": seeds,
    }
    return {label: f"{number:,}" for label, number in numbers.items() if number}  # absent is not 0


def _medical(results: Results) -> Section:
    group = results.main_group
    main = [accuracy_table(results, group, setting) for setting in results.main_settings]
    others = [s for s in results.settings if s not in results.main_settings]
    return Section(
        "accuracy",
        f"{group.capitalize()} tasks",
        tables=[*main, *(top_token_table(results, group, s) for s in results.main_settings)],
        folded=[accuracy_table(results, group, setting) for setting in others],
    )


def _by_task(results: Results) -> Section:
    """One row of charts for each scoring of the main language; each says which it shows."""
    charts = [
        chart
        for setting in results.main_settings
        for group in results.groups
        for chart in _bar_charts(results, group, setting)
    ]
    text = (
        "Whiskers are 95 % intervals (no whisker at 0 or 100 %: resampling cannot show doubt "
        "there); the dashed line is random choice."
    )
    return Section("tasks", "Task by task", text, charts=charts)


def _bar_charts(results: Results, group: str, setting: Setting) -> list[Chart]:
    charts = []
    tasks = results.tasks_of(group, setting)
    average = (average_of(group),) if len(tasks) > 1 else ()
    for task in (*average, *tasks):
        scores = {m: results.find(setting, m, task, ACCURACY) for m in results.models}
        chance = scores.pop(RANDOM_CHOICE, None)
        if any(scores.values()):
            title = f"{group.capitalize()} average" if task in average else task.title
            id_ = slug("bars", group, task.name, *map(str, setting))
            line = chance.value if chance else None
            caption = f"{title} ({describe(setting)})"
            charts.append(figures.accuracy_chart(id_, caption, scores, line))
    return charts


def _groups(results: Results, models: Sequence[Artefact]) -> Section:
    """Medical against the rest: what specialising cost. Nothing to say with one group alone."""
    if len(results.groups) < 2:
        return Section("groups", "")
    settings = results.main_settings
    parents, makings = parents_of(models), makings_of(models)
    return Section(
        "groups",
        "Gained and forgotten",
        "What training on medical text did to everything else.",
        tables=[groups_table(results, setting, parents, makings) for setting in settings],
        folded=[
            accuracy_table(results, group, setting)
            for group in results.groups[1:]
            if group != TRUTHFULNESS
            for setting in settings
        ],
    )


def _truthfulness(results: Results) -> Section:
    """Whether models repeat what people believe wrongly: the paper's table of its own."""
    asked = TRUTHFULNESS in results.groups and results.main_group != TRUTHFULNESS
    return Section(
        "truthfulness",
        "Truthfulness",
        tables=[accuracy_table(results, TRUTHFULNESS, s) for s in results.settings if asked],
    )


def _benchmark(results: Results, samples: Sequence[Sample]) -> Section:
    text = ""
    if samples:
        text = (
            "The questions below were drawn by a hash of their ids, whatever was answered to them. "
            "Bars are the probabilities of the choices, renormalised over them and averaged over "
            "seeds."
        )
    return Section(
        "benchmark", "Benchmark", text, tables=[benchmark_table(results)], samples=samples
    )


def _provenance(material: Material) -> Section:
    artefacts = (*material.corpora, *material.models, *material.others)
    versions = versions_table(artefacts)
    stems = unique_names([model.name for model in material.models])
    return Section(
        "provenance",
        "Provenance",
        tables=[provenance_table(artefacts)],
        folded=[versions] if versions.rows else [],
        links={name: f"cards/{stem}.md" for name, stem in stems.items()},
    )
