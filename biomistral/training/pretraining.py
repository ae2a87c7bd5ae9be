"""Continued pre-training: packed rows of tokens and a model to a further trained model.

A thin layer over the Transformers Trainer, whose overhead is nil: it decides how rows become
batches, what is logged, and from where an interrupted run goes on. On a CPU the same settings and
number of threads give the same files, undisturbed or resumed, however often checkpoints are saved.

Knows nothing about where rows or models come from. Published settings: arXiv 2402.10373, section 3.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.errors import InputError, ModelError
from biomistral.models.cards import Card, write_card
from biomistral.models.loading import (
    Precision,
    load_model,
    load_tokenizer,
    pick_device,
    quiet_transformers,
)
from biomistral.models.rows import PackedRows
from biomistral.models.vocabulary import check_rows_fit
from biomistral.models.writing import copy_companions
from biomistral.progress import Progress, ignore
from biomistral.recipe.settings import PretrainSettings
from biomistral.training.attention import keep_documents_apart
from biomistral.training.checkpointing import mark_complete, newest_complete
from biomistral.training.collation import Row, collate
from biomistral.training.cross_entropy import use_blocked_loss
from biomistral.training.held_out import held_out_loss

TRAINING_LOG = "training_log.jsonl"
_LOGS_A_RUN = 60  # points on a training curve
_MEASUREMENTS_A_RUN = 6  # of the held-out loss, besides the one before the first step


def pretrain(
    settings: PretrainSettings,
    model: Path,
    corpus: Path,
    out: Path,
    *,
    seed: int = 42,
    origin: Origin | None = None,
    progress: Progress = ignore,
) -> Path:
    """Train ``model`` on the rows of ``corpus`` and write the ``model`` artefact ``out``.

    Interrupted runs go on from their last checkpoint. ``seed`` orders the rows unless the settings
    name one. Raises ``InputError`` if the corpus has no rows, ``ModelError`` if its tokens do not
    fit the model or the loss is not a number.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            f"training: was started in {os.environ['WORLD_SIZE']} processes (WORLD_SIZE), and this "
            "version trains in one; start it without torchrun or accelerate launch"
        )
    rows = PackedRows(corpus)
    if len(rows) == 0:
        raise InputError(
            f"{corpus}: has no rows to train on; see the reasons for dropped documents in its "
            "manifest"
        )
    origin = origin or _origin_of_files(settings, model, corpus, seed)
    with artifacts.create(out, origin, resume=True) as draft:
        progress(0, None, "loading the model")
        kept_in: Precision = "bfloat16" if settings.precision == "bfloat16" else "float32"
        learner = load_model(model, precision=kept_in)
        tokenizer = load_tokenizer(model)
        check_rows_fit(rows, tokenizer, learner.get_input_embeddings().weight.shape[0])
        _check_context(rows, learner)
        watcher = _Watcher(progress, *_measurements(settings, rows))
        trainer = _trainer(settings, learner, rows, draft.work, seed, watcher)
        start = newest_complete(draft.work)
        with quiet_transformers():
            _train(trainer, start)
            _check_weights(learner)
            learner.config.use_cache = True
            if settings.precision == "mixed":
                learner.to(torch.bfloat16)
            learner.save_pretrained(draft.folder)
            if not copy_companions(model, draft.folder):
                tokenizer.save_pretrained(draft.folder)
        log = _training_log(trainer.state, settings, rows)
        _write_log(draft.folder / TRAINING_LOG, log)
        write_card(draft.folder, _card(settings, corpus))
        draft.device = str(pick_device())
        draft.threads = torch.get_num_threads()
        if draft.device != "cpu":
            draft.not_deterministic = "GPU kernels of the backward pass add in varying order"
        draft.counts.update(
            steps=trainer.state.global_step,
            tokens=_tokens_after(trainer.state.global_step, settings, rows),
            parameters=sum(p.numel() for p in learner.parameters()),
            final_loss=next((line["loss"] for line in reversed(log) if "loss" in line), None),
        )
    return out


def _train(trainer: Trainer, start: Path | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"training: the device is out of memory ({str(error).splitlines()[0]}); lower "
            "rows_per_step and raise accumulation_steps by the same factor, or set "
            "gradient_checkpointing: true, and run again"
        ) from error


def _origin_of_files(settings: PretrainSettings, model: Path, corpus: Path, seed: int) -> Origin:
    values = {**settings.model_dump(mode="json"), "run_seed": seed}
    inputs = {"model": model, "corpus": corpus}
    fingerprints = {key: artifacts.fingerprint_of_files([path]) for key, path in inputs.items()}
    return Origin("model", settings.name, values, fingerprints)


class _Rows(Dataset[Row]):
    """Rows of a corpus as the data loader wants them."""

    def __init__(self, packed: PackedRows) -> None:
        self.packed = packed

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: int) -> Row:
        return self.packed[index]


class _Watcher(TrainerCallback):
    """Report progress, measure the held-out loss, mark whole checkpoints, stop at what is no number.

    What it measures goes to the Trainer's own history, which checkpoints keep.
    """

    def __init__(
        self, progress: Progress, measure: Callable[[Any], float] | None, measure_every: int
    ) -> None:
        self.progress = progress
        self.measure = measure
        self.measure_every = measure_every
        self.text = "steps"

    def on_train_begin(self, *event: Any, **objects: Any) -> None:
        _, state, _ = event
        if state.global_step == 0:
            self._measure(state, objects["model"])

    def on_step_end(self, *event: Any, **objects: Any) -> None:
        _, state, control = event
        self.progress(state.global_step, state.max_steps, self.text)
        is_last = state.global_step >= state.max_steps
        if is_last or state.global_step % self.measure_every == 0:
            self._measure(state, objects["model"])
        if is_last:
            # The Trainer would save here; resuming from it would add a step, and nothing is left.
            control.should_save = False

    def on_log(self, *event: Any, **facts: Any) -> None:
        _, state, _ = event
        loss = facts["logs"].get("loss")
        if loss is not None:
            _check_number("loss", loss, state.global_step)
            self.text = f"steps, loss {loss:.3f}"

    def on_save(self, *event: Any, **_: Any) -> None:
        args, state, _ = event
        mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def _measure(self, state: Any, model: Any) -> None:
        if self.measure is not None:
            loss = self.measure(model)
            _check_number("held-out loss", loss, state.global_step)
            state.log_history.append({"step": state.global_step, "held_out_loss": loss})


def _measurements(
    settings: PretrainSettings, rows: PackedRows
) -> tuple[Callable[[Any], float] | None, int]:
    """How the held-out loss is measured (None: nothing is held out), and every how many steps."""
    every = max(1, round(_total_steps(settings, rows) / _MEASUREMENTS_A_RUN))
    held_out = PackedRows(rows.folder, "held_out")
    measure = functools.partial(
        held_out_loss,
        rows=held_out,
        rows_per_batch=settings.rows_per_step,
        cross_document=settings.cross_document_attention,
    )
    return measure if len(held_out) else None, every


def _trainer(
    settings: PretrainSettings,
    model: Any,
    rows: PackedRows,
    work: Path,
    seed: int,
    watcher: _Watcher,
) -> Trainer:
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.config.use_cache = False  # with a cache, documents of one row would see each other
    if not settings.cross_document_attention:
        keep_documents_apart(model)
    use_blocked_loss(model)
    steps = _total_steps(settings, rows)
    arguments = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=settings.rows_per_step,
        gradient_accumulation_steps=settings.accumulation_steps,
        max_steps=steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=(
            "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
        ),
        warmup_steps=round(settings.warmup_fraction * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_gradient_norm,
        optim="adamw_torch_fused",
        bf16=settings.precision == "mixed",
        # Each step, or a resumed run would average over other steps than an undisturbed one.
        logging_steps=1,
        logging_nan_inf_filter=False,  # would hide a loss that is not a number
        save_steps=settings.save_every_steps,
        save_total_limit=2,
        seed=settings.seed if settings.seed is not None else seed,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # else a second GPU would double the rows of a step
    with quiet_transformers():
        trainer = Trainer(
            model=model.train(),
            args=arguments,
            train_dataset=_Rows(rows),
            data_collator=functools.partial(
                collate, cross_document=settings.cross_document_attention
            ),
            callbacks=[watcher],
        )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _rows_a_step(settings: PretrainSettings) -> int:
    return settings.rows_per_step * settings.accumulation_steps


def _steps_an_epoch(settings: PretrainSettings, rows: PackedRows) -> int:
    """Optimizer steps in which every row is seen once; the last one may have fewer rows."""
    return math.ceil(len(rows) / _rows_a_step(settings))


def _total_steps(settings: PretrainSettings, rows: PackedRows) -> int:
    exact = settings.epochs * _steps_an_epoch(settings, rows)
    return max(1, math.ceil(round(exact, 6)))  # 1.1 x 10 is more than 11 in binary


def _tokens_after(step: int, settings: PretrainSettings, rows: PackedRows) -> int:
    """Tokens, padding included, that have gone through the model in ``step`` optimizer steps."""
    epochs, steps = divmod(step, _steps_an_epoch(settings, rows))
    num_rows = epochs * len(rows) + min(steps * _rows_a_step(settings), len(rows))
    return num_rows * rows.sequence_length


def _check_context(rows: PackedRows, model: Any) -> None:
    """Refuse rows longer than the model's context."""
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and rows.sequence_length > context:
        raise ModelError(
            f"{rows.folder}: has rows of {rows.sequence_length} tokens, the model's context is "
            f"{context}; lower corpus.sequence_length"
        )


def _check_weights(model: Any) -> None:
    """Refuse weights that the last step made something else than numbers."""
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ModelError(
                f"training: the weight {name} is not a number after the last step; lower "
                "learning_rate or max_gradient_norm, or use precision: float32 or mixed, and run again"
            )


def _check_number(what: str, value: float, step: int) -> None:
    if math.isfinite(value):
        return
    advice = (
        "the model that training starts from is broken, check it"
        if step <= 1  # the loss of step 1 is taken before any change
        else "lower learning_rate or max_gradient_norm, or use precision: float32 or mixed, and run again"
    )
    raise ModelError(f"training: the {what} is {value} at step {step}; {advice}")


def _training_log(state: Any, settings: PretrainSettings, rows: PackedRows) -> list[dict[str, Any]]:
    """Held-out loss where it was measured, and mean loss and last learning rate of some steps.

    A loss at one step is the mean since the one before. Nothing in it depends on the clock.
    """
    corpus = _name_of(rows.folder)
    every = max(1, round(state.max_steps / _LOGS_A_RUN))
    lines: list[dict[str, Any]] = []
    losses: list[float] = []
    for entry in state.log_history:
        step = entry["step"]
        line = {"step": step, "tokens": _tokens_after(step, settings, rows)}
        if "held_out_loss" in entry:
            lines.append({**line, "held_out_loss": {corpus: entry["held_out_loss"]}})
        elif "loss" in entry:
            losses.append(entry["loss"])
            if step % every == 0 or step == state.max_steps:
                rate = entry["learning_rate"]
                lines.append({**line, "loss": fmean(losses), "learning_rate": rate})
                losses.clear()
    return lines


def _write_log(path: Path, history: list[dict[str, Any]]) -> None:
    lines = (json.dumps(entry, sort_keys=True) for entry in history)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _card(settings: PretrainSettings, corpus: Path) -> Card:
    counts = (artifacts.read_manifest(corpus) or {}).get("counts", {})
    corpus_name = _name_of(corpus)
    licences = counts.get("by_licence") or {}
    return Card(
        name=settings.name,
        base_models=(settings.model,),
        relation="finetune",
        description=f"Further pre-trained on the corpus {corpus_name} with the next-token loss.",
        details={
            "Corpus": corpus_name,
            "Licences of its documents": ", ".join(f"{k} {v}" for k, v in licences.items()),
            "Epochs": f"{settings.epochs:g}",
            "Peak learning rate": f"{settings.learning_rate:g}, {settings.schedule}",
            "Rows per optimizer step": str(settings.rows_per_step * settings.accumulation_steps),
        },
        languages=tuple(counts.get("by_language") or ("en",)),
        datasets=(corpus_name,),
    )


def _name_of(corpus: Path) -> str:
    """Name of a corpus, from its manifest."""
    return str((artifacts.read_manifest(corpus) or {}).get("name", corpus.name))
