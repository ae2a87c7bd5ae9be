"""What fine-tuning and preference tuning share: how a run is driven, watched and written down.

A thin layer over the Transformers Trainer. On a CPU the same settings and number of threads give
the same files, undisturbed or resumed. Knows nothing about losses.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PrinterCallback

from biomistral import artifacts, versions
from biomistral.artifacts import Draft, Origin
from biomistral.disk import check_space
from biomistral.errors import InputError
from biomistral.models.cards import Card, write_card
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.loading import load_tokenizer, quiet_transformers
from biomistral.models.writing import copy_companions
from biomistral.progress import Progress, ignore
from biomistral.recipe.tuning import DpoSettings, SftSettings, TuningSettings
from biomistral.records import Request
from biomistral.training import epochs, guards, memory, processes
from biomistral.training.checkpointing import newest_of_all, step_of
from biomistral.training.epochs import Epochs
from biomistral.training.evidence import forget_evidence, keep_evidence
from biomistral.training.lessons import Lesson, Preference
from biomistral.training.low_rank import num_trained, save_adapter
from biomistral.training.processes import note_machine
from biomistral.training.tracking import THROUGHPUT, Trackers
from biomistral.training.trainer import of_several_processes, run_trainer, save_whole
from biomistral.training.training_log import training_log, write_log
from biomistral.training.watching import Watch, Watcher

Item = TypeVar("Item")


def origin_of(
    settings: TuningSettings,
    model: Path,
    files: Sequence[Path],
    requests: Sequence[Request],
    test_runs: Path | None,
    seed: int,
) -> Origin:
    """What a run by itself, without a pipeline, is made from."""
    inputs = {"model": artifacts.fingerprint_of_files([model])}
    # Numbered, for files of several folders may have one name.
    marks = {f"data/{i}/{path.name}": artifacts.file_digest(path) for i, path in enumerate(files)}
    inputs |= marks
    if test_runs is not None:
        inputs["test_runs"] = artifacts.file_digest(test_runs)
    asked = [[r.prompt, *r.continuations, r.gold] for r in requests]
    return Origin(
        "adapter" if settings.makes_adapter else "model",
        settings.name,
        {**settings.model_dump(mode="json"), "run_seed": seed},
        {**inputs, "requests": artifacts.digest_of(asked)},
        versions.STEP_VERSIONS["sft" if isinstance(settings, SftSettings) else "dpo"],
    )


def rows_a_step(settings: TuningSettings) -> int:
    """Rows (of preference tuning: pairs) of an optimizer step, of all processes together."""
    return settings.rows_per_step * settings.accumulation_steps


@dataclass(frozen=True)
class Run:
    """A tuning run as it is known once its examples are."""

    settings: TuningSettings
    out: Path
    order: Epochs
    num_tokens: Sequence[int]  # of each row or pair
    sources: Sequence[Sequence[str]]  # where the examples of each are from
    seed: int
    board: Path | None = None  # folder for TensorBoard

    @functools.cached_property
    def _totals(self) -> list[int]:
        return self.order.totals_after(self.num_tokens)

    def tokens_after(self, step: int) -> int:
        """Tokens of examples that have gone through the model in so many steps."""
        return self._totals[step]

    def examples_of_step(self, step: int) -> dict[str, list[str]]:
        """Where the examples of an optimizer step, counted from 1, are from."""
        rows = self.order.of_step(step)
        return {"examples": [source for row in rows for source in self.sources[row]]}


def plan(
    settings: TuningSettings,
    out: Path,
    examples: Sequence[Sequence[Lesson]] | Sequence[Preference],
    seed: int,
    board: Path | None = None,
) -> Run:
    """Lay out a run over rows of examples, or over pairs."""
    is_dpo = isinstance(settings, DpoSettings)
    order = epochs.line_up(
        *(len(examples), rows_a_step(settings)),
        epochs=settings.epochs,
        seed=seed,
        repeat=is_dpo,  # TRL takes the mean over the pairs of a forward pass
    )
    parts = [[item] if isinstance(item, Preference) else item for item in examples]
    sizes = [
        sum(p.num_read_tokens if isinstance(p, Preference) else len(p.ids) for p in row)
        for row in parts
    ]
    sources = [[part.source for part in row] for row in parts]
    return Run(settings, out, order, sizes, sources, seed, board)


def arguments_of(run: Run, work: Path, learner: Any) -> dict[str, Any]:
    """What ``TrainingArguments`` are made of."""
    settings, steps = run.settings, run.order.num_steps
    constant = settings.schedule == "constant"
    rows, forward_passes = memory.split_step(
        settings.rows_per_step, settings.accumulation_steps, processes.num_processes()
    )
    # Adapters are small: each process has its own. Whole models are sharded, where that is possible.
    sharding = "none" if settings.makes_adapter else "full"
    return {
        "output_dir": str(work),
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": forward_passes,
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if constant else settings.schedule,
        "warmup_steps": round(settings.warmup_fraction * steps),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_gradient_norm,
        "bf16": settings.precision == "mixed",
        # Each step, or a resumed run would average over other steps than an undisturbed one.
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # would hide a loss that is not a number
        "save_steps": settings.save_every_steps,
        "save_total_limit": settings.keep_checkpoints,
        # Of dropout: another one in each process.
        "seed": run.seed + processes.rank(),
        "remove_unused_columns": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        **of_several_processes(learner, sharding=sharding),
    }


def limit_of(settings: TuningSettings, learner: Any) -> tuple[int, str]:
    """Most tokens of an example, and why not more; rows of several may be longer than the context."""
    context = getattr(learner.config, "max_position_embeddings", None)
    if context is not None and context < settings.sequence_length:
        return context, "longer than the model's context"
    return settings.sequence_length, "longer than sequence_length"


def short_enough(
    items: Sequence[Item], length_of: Callable[[Item], int], limit: int, name: str
) -> list[Item]:
    """Leave out what is longer than ``limit``. Raises ``InputError`` if nothing is left."""
    kept = [item for item in items if length_of(item) <= limit]
    if not kept:
        shortest = min(map(length_of, items), default=0)
        raise InputError(
            f"{name}: there is nothing to learn from that fits into {limit} tokens "
            f"({len(items)} examples, the shortest of {shortest}); raise sequence_length, or take a model with a "
            "longer context"
        )
    return kept


def watcher(run: Run, progress: Progress) -> Watcher:
    """What watches a run: progress, whole checkpoints, and a stop at a loss that is wrong."""
    return Watcher(
        Watch(
            progress if processes.is_first() else ignore,
            tokens_seen=lambda state: run.tokens_after(state.global_step),
            largest_loss_rise=run.settings.largest_loss_rise,
            keep_evidence=functools.partial(
                keep_evidence, run.out, "examples", run.examples_of_step
            ),
        )
    )


def check_room(settings: TuningSettings, model: Path, out: Path, num_rows: int) -> None:
    """Refuse what surely does not fit into memory or onto the disk, before a model is loaded."""
    shape = memory.shape_of(Checkpoint(model).config)
    if shape is None:
        return
    needed = memory.estimate_tuning(settings, shape, processes.num_processes())
    memory.check_fits(needed, memory.device_bytes(), settings)
    if processes.is_first():
        steps = epochs.num_steps(num_rows, rows_a_step(settings), settings.epochs)
        size = memory.tuning_disk_bytes(settings, shape, steps)
        check_space(out, size, f"{settings.name} and its checkpoints")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries, and their warnings of each other's old names, for a while."""
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def train(run: Run, trainer: Any, learner: Any, watching: Watcher) -> None:
    """Train, from the newest whole checkpoint if there is one."""
    settings = run.settings
    odd = guards.odd_rate(settings.learning_rate, num_trained(learner))
    if odd and processes.is_first():
        warnings.warn(f"{settings.name}: {odd}", stacklevel=2)
    trainer.remove_callback(PrinterCallback)
    trainer.args._n_gpu = min(1, trainer.args.n_gpu)  # else a second GPU would double the rows
    start = newest_of_all(Path(trainer.args.output_dir))
    trackers = Trackers(settings, step_of(start), run.board) if processes.is_first() else None
    watching.watch.trackers = trackers
    try:
        with quiet():
            run_trainer(trainer, start)
    finally:
        if trackers is not None:
            trackers.close()


def finish(
    run: Run,
    trainer: Any,
    learner: Any,
    base: Path,
    draft: Draft,
    card: Card,
    *,
    watching: Watcher,
    measures: Mapping[str, str] | None = None,
) -> None:
    """Write what was trained, its log and its card; ``measures`` are logged values to keep."""
    settings = run.settings
    if settings.makes_adapter:
        guards.check_weights(learner)
        if processes.is_first():
            save_adapter(learner, base, draft.folder)
    else:
        with quiet_transformers():
            in_bfloat16 = settings.precision == "mixed"
            save_whole(trainer, learner, draft.folder, in_bfloat16=in_bfloat16)
    if not processes.is_first():
        return
    if not settings.makes_adapter and not copy_companions(base, draft.folder):
        load_tokenizer(base).save_pretrained(draft.folder)
    state = trainer.state
    log = training_log(
        state.log_history, state.max_steps, lambda e: run.tokens_after(e["step"]), measures
    )
    write_log(draft.folder, log)
    artifacts.write_json(draft.folder / THROUGHPUT, watching.meter.facts())
    write_card(draft.folder, card)
    note_machine(draft)
    draft.counts.update(
        trained_parameters=num_trained(learner),
        steps=state.global_step,
        tokens=log[-1]["tokens"],
        processes=processes.num_processes(),
        final_loss=log[-1]["loss"],
    )
    forget_evidence(run.out)


def card_of(
    settings: TuningSettings, description: str, details: Mapping[str, str], **more: Any
) -> Card:
    """The card of a tuned model or adapter."""
    adapter = {
        "Adapter": f"LoRA, rank {settings.rank}, alpha {settings.alpha:g}, on "
        f"{', '.join(settings.target_names)}",
        "Base while training": f"{settings.bits} bits (bitsandbytes)"
        if settings.method == "qlora"
        else "",
    }
    return Card(
        name=settings.name,
        base_models=(settings.model,),
        relation="adapter" if settings.makes_adapter else "finetune",
        description=description,
        details={
            **details,
            **(adapter if settings.makes_adapter else {"Method": "all weights trained"}),
            "Epochs": f"{settings.epochs:g}",
            "Peak learning rate": f"{settings.learning_rate:g}, {settings.schedule}",
            "Rows per optimizer step": str(rows_a_step(settings)),
        },
        **more,
    )
