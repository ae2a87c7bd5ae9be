"""Models against models on the same questions: how far apart, and whether that can be chance.

    difference   of two accuracies, its 95 % interval and its p-value by the paired bootstrap:
                 questions and seeds are resampled for both models alike (metrics.py); p-values
                 that resamples are too few to tell are of the normal distribution with their spread
    McNemar 1947 of the questions that only one of two answers right, is the split chance? Exact
                 binomial up to 1,000 such questions, chi-square with Edwards' correction above.
                 With several seeds a question counts for the model that is right with more of them
                 (a sign test over questions; with one seed it is McNemar's)
    Holm 1979    p-values corrected over all tests of one kind in the comparison, tasks and
                 averages apart: the chance of any false finding among them stays below the level
    effect size  odds ratio of McNemar's two counts, and Cohen's g (0.05 small, 0.15 medium, 0.25
                 large)

Averages over a group have no McNemar test, for their tasks are of unequal weight. Pure.

Shapes: K models, S seeds, Q questions, R resamples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import NamedTuple, cast

import numpy as np

from biomistral.evaluation import metrics
from biomistral.evaluation.columns import Cell, CellKey, Floats
from biomistral.evaluation.score_rows import AVERAGE
from biomistral.records import Comparison, LanguageGap, Scoring

NUM_RESAMPLES = 10_000
_FEW = 10  # resamples on the other side of 0, which tell a p-value to a third
_CHUNK = 1000  # resamples held at a time
_MOST_EXACT = 1000
ENGLISH = "en"

Cells = Mapping[str, Mapping[CellKey, Cell]]


class McNemar(NamedTuple):
    """The outcome of one test."""

    p_value: float
    odds_ratio: float | None
    cohens_g: float | None


class _Resampled(NamedTuple):
    """Accuracies of the models that have a cell, by model: measured and resampled."""

    right: dict[str, Floats]  # (Q,) times right over the seeds
    accuracy: dict[str, float]
    resampled: dict[str, Floats]  # (R,)
    num_seeds: int


def compare(
    cells: Cells,
    groups: Mapping[str, str],
    *,
    seed: int = 42,
    num_resamples: int = NUM_RESAMPLES,
) -> list[Comparison]:
    """Compare every pair of models on each cell both have, and on the average of each group.

    Models must agree on the questions of each cell they share; ``groups`` has the group of each
    task. A pair has an average only if both models have all tasks that any has.
    """
    measured = _resample(cells, seed, num_resamples)
    tasks: list[Comparison] = []
    averages: list[Comparison] = []
    for first, second in itertools.combinations(cells, 2):
        for key, found in measured.items():
            if first in found.accuracy and second in found.accuracy:
                tasks.append(_task_row(first, second, key, groups[key.task], found))
        averages += _average_rows(first, second, measured, groups)
    return [*_corrected(tasks), *_corrected(averages)]


def compare_languages(
    cells: Cells,
    groups: Mapping[str, str],
    *,
    seed: int = 42,
    num_resamples: int = NUM_RESAMPLES,
) -> list[LanguageGap]:
    """Compare each model in each language with itself in English, on the questions both have.

    Tasks without a question in English under the same id have no row.
    """
    paired: dict[str, dict[CellKey, Cell]] = {}
    for model, by_key in cells.items():
        for key, cell in by_key.items():
            english = by_key.get(key._replace(language=ENGLISH))
            if key.language == ENGLISH or english is None:
                continue
            shared = sorted(set(cell.question_ids) & set(english.question_ids))
            seeds = sorted(set(cell.seeds) & set(english.seeds))
            if shared and seeds:
                paired.setdefault(model, {})[key] = cell.restricted(shared, seeds)
                paired.setdefault(f"{model} {ENGLISH}", {})[key] = english.restricted(shared, seeds)
    measured = _resample(paired, seed, num_resamples)
    tasks: list[Comparison] = []
    averages: list[Comparison] = []
    for model in filter(paired.__contains__, cells):
        pair = model, f"{model} {ENGLISH}"
        own = {key: measured[key] for key in paired[model]}
        tasks += [_task_row(*pair, key, groups[key.task], found) for key, found in own.items()]
        averages += _average_rows(*pair, own, groups)
    return [_gap(row) for row in (*_corrected(tasks), *_corrected(averages))]


def _gap(row: Comparison) -> LanguageGap:
    of_both = {f.name for f in fields(LanguageGap)} & {f.name for f in fields(Comparison)}
    return LanguageGap(model=row.first, **{name: getattr(row, name) for name in of_both})


def mcnemar(first_only: int, second_only: int) -> McNemar:
    """Test whether the questions that only one of two models answers right split evenly."""
    total = first_only + second_only
    if not total:
        return McNemar(1.0, None, None)
    if total <= _MOST_EXACT:
        p_value = _even_split(min(first_only, second_only), total)
    else:
        statistic = max(abs(first_only - second_only) - 1, 0) ** 2 / total
        p_value = math.erfc(math.sqrt(statistic / 2))
    ratio = first_only / second_only if second_only else None
    return McNemar(p_value, ratio, first_only / total - 0.5)


def bootstrap_p_value(resampled: Floats, num_questions: int) -> float:
    """Two-sided p-value of a difference of 0 from R resampled differences, over Q questions.

    Counted. Where hardly any of them lies on the other side of 0, counting cannot tell, and the tail of
    the normal distribution with their mean and spread is taken: after a correction for hundreds of
    tests nothing could be found otherwise. Never below what a sign test of Q questions can reach.
    """
    fewer = min(int((resampled <= 0).sum()), int((resampled >= 0).sum()))
    counted = min(1.0, 2 * (fewer + 1) / (len(resampled) + 1))
    if fewer >= _FEW:
        return counted
    spread = float(resampled.std())
    tail = math.erfc(abs(float(resampled.mean())) / spread / math.sqrt(2)) if spread else 0.0
    return min(counted, max(tail, 2.0 ** (1 - num_questions)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm's step-down), in the order given."""
    corrected = [0.0] * len(p_values)
    highest = 0.0
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = highest
    return corrected


def _even_split(fewer: int, total: int) -> float:
    """Two-sided p-value of a binomial with chance 1/2: as uneven as this, or more."""
    ways, tail = 1, 1
    for count in range(1, fewer + 1):
        ways = ways * (total - count + 1) // count
        tail += ways
    return min(1.0, float(2 * tail / 2**total))


def _resample(cells: Cells, seed: int, num_resamples: int) -> dict[CellKey, _Resampled]:
    """Measure and resample all cells; those of one task share their draws, which cost the most."""
    of_draws: dict[tuple[str, int], list[CellKey]] = {}
    having: dict[CellKey, dict[str, Cell]] = {}
    for model, by_key in cells.items():
        for key, cell in by_key.items():
            having.setdefault(key, {})[model] = cell
    for key, by_model in having.items():
        num_questions = len(next(iter(by_model.values())).gold)
        of_draws.setdefault((key.task, num_questions), []).append(key)
    found = {}
    for (task, num_questions), keys in of_draws.items():
        right = [
            metrics.correct(cell.logprobs, cell.gold)  # (S, Q)
            for key in keys
            for cell in having[key].values()
        ]
        means = _resampled_means(np.concatenate(right).T, num_questions, seed, task, num_resamples)
        columns = iter(np.split(means, np.cumsum([len(table) for table in right])[:-1], axis=1))
        tables = iter(right)
        for key in keys:
            num_seeds = len(next(iter(having[key].values())).seeds)
            weights = metrics.seed_weights(num_seeds, seed, task, num_resamples)
            own = {model: next(tables) for model in having[key]}
            found[key] = _Resampled(
                right={model: table.sum(axis=0) for model, table in own.items()},
                accuracy={model: float(table.mean()) for model, table in own.items()},
                resampled={model: (next(columns) * weights).sum(axis=1) for model in own},
                num_seeds=num_seeds,
            )
    return {key: found[key] for key in having}


def _resampled_means(
    values: Floats, num_questions: int, seed: int, task: str, num_resamples: int
) -> Floats:
    """Means over resampled questions, in chunks: (Q, M) to (R, M)."""
    # Sums of few ones are whole numbers, which float32 holds exactly.
    ones = values.astype(np.float32)
    means = []
    for start in range(0, num_resamples, _CHUNK):
        number = min(_CHUNK, num_resamples - start)
        label = f"{task} from {start}" if start else task
        counts = metrics.resample_counts(num_questions, seed, label, number)
        means.append((counts.astype(np.float32) @ ones).astype(np.float64) / num_questions)
    return np.concatenate(means)


def _task_row(first: str, second: str, key: CellKey, group: str, found: _Resampled) -> Comparison:
    better, worse = found.right[first], found.right[second]
    first_only, second_only = int((better > worse).sum()), int((better < worse).sum())
    test = mcnemar(first_only, second_only)
    row = _row(
        (first, second),
        key,
        group,
        found.accuracy[first] - found.accuracy[second],
        found.resampled[first] - found.resampled[second],
        len(better),
    )
    return replace(
        row,
        first_only=first_only,
        second_only=second_only,
        p_mcnemar=test.p_value,
        odds_ratio=test.odds_ratio,
        cohens_g=test.cohens_g,
        num_seeds=found.num_seeds,
    )


def _average_rows(
    first: str, second: str, measured: Mapping[CellKey, _Resampled], groups: Mapping[str, str]
) -> Iterator[Comparison]:
    members: dict[tuple[CellKey, str], list[_Resampled]] = {}
    for key, found in measured.items():
        average = (key._replace(task=AVERAGE), groups[key.task])
        members.setdefault(average, []).append(found)
    for (key, group), tasks in members.items():
        if len(tasks) < 2 or not all({first, second} <= set(task.accuracy) for task in tasks):
            continue
        row = _row(
            (first, second),
            key,
            group,
            float(np.mean([task.accuracy[first] - task.accuracy[second] for task in tasks])),
            np.mean([task.resampled[first] - task.resampled[second] for task in tasks], axis=0),
            sum(len(task.right[first]) for task in tasks),
        )
        yield replace(row, num_seeds=tasks[0].num_seeds)


def _row(
    pair: tuple[str, str],
    key: CellKey,
    group: str,
    difference: float,
    resampled: Floats,
    num_questions: int,
) -> Comparison:
    """What a row of a task and one of an average have in common."""
    low, high = metrics.interval(resampled)
    return Comparison(
        first=pair[0],
        second=pair[1],
        task=key.task,
        group=group,
        language=key.language,
        scoring=cast("Scoring", key.scoring),
        shots=key.shots,
        difference=difference,
        low=low,
        high=high,
        p_bootstrap=bootstrap_p_value(resampled, num_questions),
        p_bootstrap_holm=1.0,
        first_only=0,
        second_only=0,
        p_mcnemar=None,
        p_mcnemar_holm=None,
        odds_ratio=None,
        cohens_g=None,
        num_questions=num_questions,
        num_seeds=0,
    )


def _corrected(rows: Sequence[Comparison]) -> list[Comparison]:
    """Correct the p-values of one family of tests."""
    bootstrap = holm([row.p_bootstrap for row in rows])
    exact = holm([row.p_mcnemar for row in rows if row.p_mcnemar is not None])
    remaining = iter(exact)
    return [
        replace(
            row,
            p_bootstrap_holm=p_value,
            p_mcnemar_holm=None if row.p_mcnemar is None else next(remaining),
        )
        for row, p_value in zip(rows, bootstrap, strict=True)
    ]
