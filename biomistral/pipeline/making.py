"""How each step calls its room: one small function per kind of step.

Each returns the ``make`` of a step: a function of the output folder, its origin and a listener.
Rooms are imported when a step runs, so that planning stays light.
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.pipeline.digests import NAME as DIGESTS
from biomistral.pipeline.digests import FileDigests
from biomistral.pipeline.places import Place, Served
from biomistral.pipeline.steps import Make, board_of
from biomistral.progress import Progress
from biomistral.recipe.settings import (
    BenchmarkSettings,
    CorpusSettings,
    EnsembleSettings,
    EvaluateSettings,
    FreshModel,
    MergeSettings,
    PretrainSettings,
    QuantizeSettings,
)

FindFiles = Callable[[], Iterable[tuple[str, Path]]]  # path below the data folder, path to open


def fresh(
    source: FreshModel, corpora: Sequence[CorpusSettings], seed: int, questions: Path
) -> Make:
    """A random model with a tokenizer trained on the kept documents of ``corpora``."""

    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.corpus import iterate_texts
        from biomistral.models.cards import Card, write_card
        from biomistral.models.fresh import save_fresh_model

        texts = (
            text
            for settings in corpora
            for text in iterate_texts(settings, _runs(settings, questions))
        )
        progress(0, None, "training a tokenizer")
        with artifacts.create(out, origin) as draft:
            save_fresh_model(
                source.architecture, texts, source.tokenizer.vocabulary_size, draft.folder, seed
            )
            details = {"Architecture": "Mistral", "Weights": f"random, seed {seed}"}
            description = "A model that has learned nothing yet; a start for pre-training."
            write_card(draft.folder, Card(origin.name, (), None, description, details))

    return make


def _runs(settings: CorpusSettings, questions: Path) -> Path | None:
    """The runs of words that no document of a corpus may contain, if so set."""
    return questions / "runs.parquet" if settings.exclude_overlap_with else None


def corpus_files(settings: CorpusSettings) -> FindFiles:
    """Find the files of a corpus, when called."""

    def find() -> Iterable[tuple[str, Path]]:
        from biomistral.corpus import source_files

        return source_files(settings)

    return find


def corpus(settings: CorpusSettings, tokenizer: Place, seed: int, questions: Path) -> Make:
    """Packed rows of tokens; without documents that overlap with ``questions``, if so set."""

    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.corpus import build_corpus

        folder = tokenizer.folder()
        build_corpus(
            settings,
            folder,
            out,
            seed=seed,
            excluded=_runs(settings, questions),
            origin=origin,
            progress=progress,
        )

    return make


def pretrain(
    settings: PretrainSettings, model: Place, tokens: Path, others: Mapping[str, Path], seed: int
) -> Make:
    """A further trained model; ``others`` are the corpora that are mixed in or measured, by name."""

    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.training import pretrain

        pretrain(
            settings,
            model.folder(),
            tokens,
            out,
            others=others,
            seed=seed,
            origin=origin,
            progress=progress,
            board=board_of(out),
        )

    return make


def merge(settings: MergeSettings, models: Mapping[str, Place], seed: int) -> Make:
    """A merged model."""

    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.merging import MergeOptions, merge

        folders = {name: place.folder() for name, place in models.items()}
        options = MergeOptions(seed=seed)
        merge(settings, out, models=folders, options=options, origin=origin, progress=progress)

    return make


def quantize(
    settings: QuantizeSettings, model: Place, texts: Mapping[str, Path], seed: int
) -> Make:
    """A quantized model; ``texts`` are the tokens for calibration and held-out ones, by those names."""

    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.quantization import quantize

        quantize(
            settings,
            model.folder(),
            out,
            calibration=texts.get("calibration"),
            held_out=texts.get("held_out"),
            seed=seed,
            origin=origin,
            progress=progress,
        )

    return make


def shots_needed(settings: EvaluateSettings) -> int:
    """Examples a task must have, so that no two seeds need to share one."""
    return settings.shots * len(settings.seeds)


def question_files(benchmark: BenchmarkSettings, settings: EvaluateSettings) -> FindFiles:
    """Find the files of the benchmark, when called."""

    def find() -> list[tuple[str, Path]]:
        from biomistral.benchmark import find_question_files

        return list(find_question_files(benchmark, settings.tasks, settings.languages))

    return find


def questions(benchmark: BenchmarkSettings, settings: EvaluateSettings) -> Make:
    """The questions to ask and those that serve as worked examples."""

    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.benchmark import load_questions

        progress(0, None, "reading questions")
        load_questions(
            benchmark,
            settings.tasks,
            settings.languages,
            out,
            limit=settings.limit,
            shots_needed=shots_needed(settings),
            origin=origin,
        )

    return make


def overlap(settings: CorpusSettings, tokenizer: Place, tokens: Path, questions: Path) -> Make:
    """How many test questions stand in the rows of a corpus."""

    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.benchmark import find_overlap

        find_overlap(
            questions,
            tokens,
            tokenizer.folder(),
            out,
            workers=settings.workers,
            origin=origin,
            progress=progress,
        )

    return make


def predict(
    settings: EvaluateSettings, name: str, model: Place | Served, questions: Path, units: Path
) -> Make:
    """One model's log-probabilities for every question, seed and scoring.

    ``units`` is the folder of answers that are kept from run to run.
    """

    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.benchmark import build_requests, build_validation_requests
        from biomistral.evaluation import Asked, Keeping, predict
        from biomistral.models.chat import message_renderer
        from biomistral.records import Question, Request, read_records

        asked = list(read_records(questions / "questions.parquet", Question))
        render = None
        if settings.template == "chat" and isinstance(model, Place):
            render = message_renderer(model.folder())

        def with_shots(shots: int) -> list[Request]:
            return build_requests(asked, settings.model_copy(update={"shots": shots}), render)

        def to_validate(shots: int) -> list[Request]:
            return build_validation_requests(asked, settings, render, shots=shots)

        progress(0, None, "reading the model")
        digests = FileDigests(units, f"{name}.{DIGESTS}")
        predict(
            settings,
            model.settings if isinstance(model, Served) else model.folder(),
            with_shots(settings.shots),
            out,
            name=name,
            fewer_shots=with_shots,
            validation=Asked(to_validate(settings.shots), to_validate),
            keeping=Keeping(units, digests),
            origin=origin,
            progress=progress,
        )
        digests.save()

    return make


def ensemble(settings: EnsembleSettings, members: Mapping[str, Path]) -> Make:
    """The mean of several models' probabilities."""

    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.evaluation import ensemble

        progress(0, None, "combining predictions")
        ensemble(settings, members, out, origin=origin)

    return make


def score(
    predictions: Mapping[str, Path],
    questions: Path,
    ensembles: Sequence[str],
    seed: int,
    made: Mapping[str, Path],
    saved: Mapping[str, Path],
) -> Make:
    """Accuracy, calibration and intervals of every model.

    ``saved`` are files of what calibrates models already. ``made`` are the folders of the models that
    the run made itself: what calibrates them is put into these, too. Folders of the user are left as
    they are.
    """

    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.evaluation import score
        from biomistral.evaluation.scores import calibration_file

        progress(0, None, "scoring")
        for folder in made.values():
            with contextlib.suppress(OSError):  # after a kill there is none, and no outdated one
                (folder / artifacts.CALIBRATION).unlink()
        score(
            predictions,
            questions,
            out,
            seed=seed,
            ensembles=ensembles,
            saved=saved,
            origin=origin,
        )
        for name, folder in made.items():
            _put_calibration(calibration_file(out, name), folder)

    return make


def _put_calibration(file: Path, folder: Path) -> None:
    """Put what calibrates a model beside it, whole or not at all; one that is read only stays so."""
    draft = folder / f"calibration{artifacts.VOLATILE_SUFFIX}"  # no part of the model, if left over
    try:
        shutil.copyfile(file, draft)
        draft.replace(folder / artifacts.CALIBRATION)
    except OSError as error:
        warnings.warn(
            f"{folder / artifacts.CALIBRATION}: cannot be written ({error.strerror}); make the folder "
            f"writable and copy {file} there, or the model is used as it was calibrated before, if it was",
            stacklevel=2,
        )


def cost(settings: EvaluateSettings, models: Mapping[str, Place]) -> Make:
    """Memory and speed of every model."""

    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.evaluation import measure_costs

        folders = {name: place.folder() for name, place in models.items()}
        measure_costs(settings, folders, out, origin=origin, progress=progress)

    return make


def report(
    title: str,
    *,
    root: Path,
    questions: Path,
    models: Mapping[str, Place],
    corpora: Mapping[str, Path],
    adapters: Mapping[str, Path],
    predictions: Mapping[str, Path],
    overlaps: Mapping[str, Path],
    distances: Mapping[str, Path],
    translations: Mapping[str, tuple[Path, Path]],
    has_costs: bool,
    texts: Literal["open", "all", "none"],
) -> Make:
    """Tables, figures and model cards."""

    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.reporting import report

        progress(0, None, "drawing tables and figures")
        report(
            out,
            title=title,
            scores=root / "scores/scores",
            questions=questions,
            models={name: place.folder() for name, place in models.items()},
            corpora=corpora,
            adapters=adapters,
            predictions=predictions,
            overlaps=overlaps,
            distances=distances,
            translations=translations,
            costs=root / "scores/cost" if has_costs else None,
            texts=texts,
            origin=origin,
        )

    return make
