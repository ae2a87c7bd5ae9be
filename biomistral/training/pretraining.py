"""Continued pre-training: packed rows of tokens and a model to a further trained model.

A thin layer over the Transformers Trainer, whose overhead is nil: it decides how rows become
batches, what is logged, and from where an interrupted run goes on. On a CPU the same settings and
number of threads give the same files, undisturbed or resumed, however often checkpoints are saved.

Knows nothing about where rows or models come from. Published settings: arXiv 2402.10373, section 3.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomistral import artifacts
from biomistral.artifacts import Draft, Origin
from biomistral.disk import check_space
from biomistral.errors import InputError, ModelError
from biomistral.models.cards import Card, write_card
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.loading import (
    Precision,
    load_model,
    load_tokenizer,
    quiet_transformers,
)
from biomistral.models.rows import PackedRows
from biomistral.models.vocabulary import check_rows_fit
from biomistral.models.writing import copy_companions
from biomistral.progress import Progress, ignore
from biomistral.recipe.settings import PretrainSettings
from biomistral.training import guards, memory, processes
from biomistral.training.checkpointing import newest_of_all, step_of
from biomistral.training.collation import collate
from biomistral.training.evidence import forget_evidence, keep_evidence
from biomistral.training.held_out import held_out_loss
from biomistral.training.ordering import Line, RowsInLine, check_same_length, line_up
from biomistral.training.schedule import Course
from biomistral.training.tracking import THROUGHPUT, Trackers
from biomistral.training.trainer import make_trainer, run_trainer, save_whole
from biomistral.training.training_log import training_log, write_log
from biomistral.training.watching import Watch, Watcher


def pretrain(
    settings: PretrainSettings,
    model: Path,
    corpus: Path,
    out: Path,
    *,
    others: Mapping[str, Path] | None = None,
    seed: int = 42,
    origin: Origin | None = None,
    progress: Progress = ignore,
    board: Path | None = None,
) -> Path:
    """Train ``model`` on the rows of ``corpus`` and write the ``model`` artefact ``out``.

    ``others`` are the further corpora that the settings mix in or measure, by name. Interrupted runs
    go on from their last checkpoint. ``seed`` orders the rows unless the settings name one.
    ``board`` is a folder for TensorBoard, unless the settings name one. Called in several processes,
    all train and the first one writes.

    Raises ``InputError`` if a corpus has no rows or the disk no room, ``ModelError`` if tokens do not
    fit the model, the device is surely too small, or the loss is not a number or explodes.
    """
    others = others or {}
    run = _plan(settings, corpus, others, settings.seed if settings.seed is not None else seed)
    origin = origin or _origin_of_files(settings, model, corpus, others, seed)
    _check_room(run, model, out)
    processes.connect()
    with processes.shared_draft(out, origin) as draft:
        progress(0, None, "loading the model")
        kept_in: Precision = "bfloat16" if settings.precision == "bfloat16" else "float32"
        learner = load_model(model, precision=kept_in)
        tokenizer = load_tokenizer(model)
        for rows in (run.rows, *run.further.values()):
            check_rows_fit(rows, tokenizer, learner.get_input_embeddings().weight.shape[0])
        _check_context(run.rows, learner)
        odd = guards.odd_rate(settings.learning_rate, sum(p.numel() for p in learner.parameters()))
        if odd and processes.is_first():
            warnings.warn(f"{settings.name}: {odd}", stacklevel=2)
        start = newest_of_all(draft.work)
        watcher = Watcher(_watch(run, out, progress, start, board))
        trainer = make_trainer(
            settings,
            learner,
            run.dataset(processes.num_processes()),
            functools.partial(collate, cross_document=settings.cross_document_attention),
            course=run.course,
            work=draft.work,
            seed=run.seed,
            callbacks=[watcher],
            start=load_model(model, precision=kept_in) if settings.jeffreys_weight else None,
        )
        with quiet_transformers():
            try:
                run_trainer(trainer, start)
            finally:
                if watcher.watch.trackers is not None:
                    watcher.watch.trackers.close()
            in_bfloat16 = settings.precision != "float32"
            save_whole(trainer, learner, draft.folder, in_bfloat16=in_bfloat16)
        if processes.is_first():
            if not copy_companions(model, draft.folder):
                tokenizer.save_pretrained(draft.folder)
            _finish(run, draft, trainer.state, watcher)
            forget_evidence(out)
    return out


@dataclass(frozen=True)
class Run:
    """A training run as it is known before a model is opened."""

    settings: PretrainSettings
    rows: PackedRows
    mixed: tuple[PackedRows, ...]
    further: Mapping[str, PackedRows]  # by name, those only measured included
    line: Line
    course: Course
    seed: int

    @property
    def rows_a_step(self) -> int:
        """Rows of an optimizer step, of all processes together."""
        return self.settings.rows_per_step * self.settings.accumulation_steps

    def tokens_after(self, step: int) -> int:
        """Tokens, padding included, that have gone through the model in so many steps."""
        return min(step * self.rows_a_step, len(self.line)) * self.rows.sequence_length

    def dataset(self, num_processes: int) -> RowsInLine:
        """The rows in order; for several processes, filled up to a whole last step."""
        length = len(self.line)
        if num_processes > 1:
            length = self.course.num_steps * self.rows_a_step
        return RowsInLine((self.rows, *self.mixed), self.line, length)

    def rows_of_step(self, step: int) -> dict[str, Any]:
        """Corpus, row and documents of each row of an optimizer step, counted from 1."""
        corpora = (self.rows, *self.mixed)
        first, last = (step - 1) * self.rows_a_step, min(step * self.rows_a_step, len(self.line))
        listed = [
            {
                "corpus": _name_of(rows.folder),
                "row": int(self.line.rows[place]),
                "documents": list(rows.documents(int(self.line.rows[place]))),
            }
            for place in range(first, last)
            for rows in [corpora[self.line.corpora[place]]]
        ]
        return {"rows": listed}


def _plan(settings: PretrainSettings, corpus: Path, others: Mapping[str, Path], seed: int) -> Run:
    rows = PackedRows(corpus)
    further = {name: PackedRows(others[name]) for name in settings.further_corpora}
    mixed = tuple(further[part.corpus] for part in settings.mix)
    check_same_length((rows, *mixed))
    shares = [part.share for part in settings.mix]
    shares = [1 - sum(shares), *shares]
    if settings.tokens is not None:
        num_rows = settings.tokens / rows.sequence_length
    else:
        num_rows = settings.epochs * len(rows) / shares[0]
    # 1.1 x 10 is more than 11 in binary.
    line = line_up(
        [len(rows), *map(len, mixed)], shares, max(1, math.ceil(round(num_rows, 6))), seed
    )
    steps = math.ceil(len(line) / (settings.rows_per_step * settings.accumulation_steps))
    course = Course(
        steps,
        round(settings.warmup_fraction * steps),
        settings.schedule,
        settings.minimum_learning_rate_fraction,
        settings.warmup_start_fraction,
    )
    return Run(settings, rows, mixed, further, line, course, seed)


def _origin_of_files(
    settings: PretrainSettings, model: Path, corpus: Path, others: Mapping[str, Path], seed: int
) -> Origin:
    values = {**settings.model_dump(mode="json"), "run_seed": seed}
    inputs = {"model": model, "corpus": corpus, **{f"corpus {k}": v for k, v in others.items()}}
    fingerprints = {key: artifacts.fingerprint_of_files([path]) for key, path in inputs.items()}
    return Origin("model", settings.name, values, fingerprints)


def _check_room(run: Run, model: Path, out: Path) -> None:
    """Refuse what surely does not fit into memory or onto the disk, before anything is loaded."""
    if run.settings.jeffreys_weight and processes.num_processes() > 1:
        raise InputError(
            f"{run.settings.name}: jeffreys_weight keeps a second model that several processes do "
            "not share; train in one process, or leave it out"
        )
    shape = memory.shape_of(Checkpoint(model).config)
    if shape is None:
        return
    settings = run.settings
    needed = memory.estimate(settings, shape, run.rows.sequence_length, processes.num_processes())
    memory.check_fits(needed, memory.device_bytes(), settings)
    if processes.is_first():
        size = memory.disk_bytes(settings, shape.num_parameters, run.course.num_steps)
        check_space(out, size, f"the model {settings.name} and its checkpoints")


def _watch(
    run: Run, out: Path, progress: Progress, start: Path | None, board: Path | None
) -> Watch:
    settings = run.settings
    measured = {_name_of(run.rows.folder): run.rows, **run.further}
    held_out = {name: PackedRows(rows.folder, "held_out") for name, rows in measured.items()}
    is_first = processes.is_first()
    return Watch(
        progress if is_first else ignore,
        lambda state: run.tokens_after(state.global_step),
        measure={
            name: functools.partial(
                held_out_loss,
                rows=rows,
                rows_per_batch=settings.rows_per_step,
                cross_document=settings.cross_document_attention,
            )
            for name, rows in held_out.items()
            if len(rows)
        },
        measure_every=max(1, round(run.course.num_steps / settings.held_out_measurements)),
        largest_loss_rise=settings.largest_loss_rise,
        keep_evidence=functools.partial(keep_evidence, out, "documents", run.rows_of_step),
        trackers=Trackers(settings, step_of(start), board) if is_first else None,
    )


def _finish(run: Run, draft: Draft, state: Any, watcher: Watcher) -> None:
    """Write log, card and timings, and say in the manifest what was done."""
    log = training_log(
        state.log_history, state.max_steps, lambda entry: run.tokens_after(entry["step"])
    )
    write_log(draft.folder, log)
    write_card(draft.folder, _card(run))
    artifacts.write_json(draft.folder / THROUGHPUT, watcher.meter.facts())
    processes.note_machine(draft)
    draft.counts.update(
        steps=state.global_step,
        tokens=run.tokens_after(state.global_step),
        processes=processes.num_processes(),
        final_loss=next((line["loss"] for line in reversed(log) if "loss" in line), None),
        parameters=_num_parameters(draft.folder),
    )


def _num_parameters(folder: Path) -> int:
    """Number of weights in a checkpoint folder."""
    tensors = Checkpoint(folder).tensors.values()
    return sum(math.prod(tensor.shape) for tensor in tensors)


def _check_context(rows: PackedRows, model: Any) -> None:
    """Refuse rows longer than the model's context."""
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and rows.sequence_length > context:
        raise ModelError(
            f"{rows.folder}: has rows of {rows.sequence_length} tokens, the model's context is "
            f"{context}; lower corpus.sequence_length"
        )


def _card(run: Run) -> Card:
    settings = run.settings
    corpora = [run.rows, *run.mixed]
    names = [_name_of(rows.folder) for rows in corpora]
    counts = [_counts(rows.folder) for rows in corpora]
    licences: dict[str, int] = {}
    for each in counts:
        for name, number in (each.get("by_licence") or {}).items():
            licences[name] = licences.get(name, 0) + number
    languages = dict.fromkeys(code for each in counts for code in each.get("by_language") or ())
    shares = ", ".join(f"{part.corpus} {part.share:g}" for part in settings.mix)
    course = run.course
    floor = f", to {course.floor_fraction:g} of it" if course.floor_fraction else ""
    return Card(
        name=settings.name,
        base_models=(settings.model,),
        relation="finetune",
        description=f"Further pre-trained on the corpus {names[0]} with the next-token loss.",
        details={
            "Corpus": names[0],
            "Mixed in, share of rows": shares,
            "Licences of its documents": ", ".join(f"{k} {v}" for k, v in licences.items()),
            "Tokens": f"{run.tokens_after(course.num_steps):,}",
            "Peak learning rate": f"{settings.learning_rate:g}, {settings.schedule}{floor}",
            "Rows per optimizer step": str(run.rows_a_step),
        },
        languages=tuple(languages) or ("en",),
        datasets=tuple(names),
    )


def _counts(corpus: Path) -> dict[str, Any]:
    return dict((artifacts.read_manifest(corpus) or {}).get("counts", {}))


def _name_of(corpus: Path) -> str:
    """Name of a corpus, from its manifest."""
    return str((artifacts.read_manifest(corpus) or {}).get("name", corpus.name))
