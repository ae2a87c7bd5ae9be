"""Continued pre-training: packed rows of tokens and a model to a further trained model.

A thin layer over the Transformers Trainer, whose overhead is nil: it decides how rows become
batches, what is logged, and from where an interrupted run goes on. On a CPU the same settings and
number of threads give the same weights, undisturbed or resumed.

Knows nothing about where rows or models come from. Published settings: arXiv 2402.10373, section 3.
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.errors import InputError, ModelError
from biomistral.models.cards import Card, write_card
from biomistral.models.loading import load_model, load_tokenizer, pick_device, quiet_transformers
from biomistral.models.rows import PackedRows
from biomistral.progress import Progress, ignore
from biomistral.recipe.settings import PretrainSettings
from biomistral.training.checkpointing import mark_complete, newest_complete
from biomistral.training.collation import Row, collate

TRAINING_LOG = "training_log.jsonl"
_LOGS_A_RUN = 60  # points on a training curve
_EVALUATIONS_A_RUN = 6


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
    rows = _Rows(PackedRows(corpus))
    held_out = _Rows(PackedRows(corpus, "held_out"))
    if origin is None:
        origin = Origin(
            "model",
            settings.name,
            {**settings.model_dump(mode="json"), "run_seed": seed},
            {
                "model": artifacts.fingerprint_of_files([model]),
                "corpus": artifacts.fingerprint_of_files([corpus]),
            },
        )
    with artifacts.create(out, origin, resume=True) as draft:
        progress(0, None, "loading the model")
        learner = load_model(model, precision=settings.precision)
        tokenizer = load_tokenizer(model)
        _check_fit(rows.packed, learner, corpus)
        trainer = _trainer(settings, learner, rows, held_out, draft.work, seed, progress)
        start = newest_complete(draft.work)
        with quiet_transformers():
            trainer.train(resume_from_checkpoint=str(start) if start else None)
            learner.config.use_cache = True
            learner.save_pretrained(draft.folder)
            tokenizer.save_pretrained(draft.folder)
        tokens_a_step = _tokens_a_step(settings, rows.packed)
        history = _training_log(trainer, tokens_a_step, corpus_name=_name_of(corpus))
        _write_log(draft.folder / TRAINING_LOG, history)
        write_card(draft.folder, _card(settings, corpus))
        draft.device = str(pick_device())
        draft.threads = torch.get_num_threads()
        if draft.device != "cpu":
            draft.not_deterministic = "GPU kernels of the backward pass add in varying order"
        draft.counts.update(
            steps=trainer.state.global_step,
            tokens=trainer.state.global_step * tokens_a_step,
            parameters=sum(p.numel() for p in learner.parameters()),
            final_loss=next((e["loss"] for e in reversed(history) if "loss" in e), None),
        )
    return out


class _Rows(Dataset[Row]):
    """Rows of a corpus as the data loader wants them."""

    def __init__(self, packed: PackedRows) -> None:
        self.packed = packed

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: int) -> Row:
        return self.packed[index]


class _Watcher(TrainerCallback):
    """Report progress, mark whole checkpoints and stop at a loss that is not a number."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.text = "tokens"

    def on_step_end(self, *event: Any, **_: Any) -> None:
        _, state, _ = event
        self.progress(state.global_step, state.max_steps, self.text)

    def on_log(self, *event: Any, **facts: Any) -> None:
        _, state, _ = event
        loss = facts["logs"].get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise ModelError(
                f"training: the loss is {loss} at step {state.global_step}; lower learning_rate "
                "or max_gradient_norm, or use precision: float32, and run again"
            )
        self.text = f"steps, loss {loss:.3f}"

    def on_save(self, *event: Any, **_: Any) -> None:
        args, state, _ = event
        mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def _trainer(
    settings: PretrainSettings,
    model: Any,
    rows: _Rows,
    held_out: _Rows,
    work: Path,
    seed: int,
    progress: Progress,
) -> Trainer:
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.config.use_cache = False  # with a cache, documents of one row would see each other
    steps = _total_steps(settings, len(rows))
    every = max(1, round(steps / _EVALUATIONS_A_RUN))
    arguments = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=settings.rows_per_step,
        per_device_eval_batch_size=settings.rows_per_step,
        gradient_accumulation_steps=settings.accumulation_steps,
        max_steps=steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=(
            "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
        ),
        warmup_steps=round(settings.warmup_fraction * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_gradient_norm,
        logging_steps=max(1, round(steps / _LOGS_A_RUN)),
        logging_nan_inf_filter=False,  # would hide a loss that is not a number
        save_steps=settings.save_every_steps,
        save_total_limit=2,
        eval_strategy="steps" if len(held_out) else "no",
        eval_steps=every,
        prediction_loss_only=True,
        seed=settings.seed if settings.seed is not None else seed,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )
    with quiet_transformers():
        return Trainer(
            model=model.train(),
            args=arguments,
            train_dataset=rows,
            eval_dataset=held_out if len(held_out) else None,
            data_collator=functools.partial(
                collate, cross_document=settings.cross_document_attention
            ),
            callbacks=[_Watcher(progress)],
        )


def _total_steps(settings: PretrainSettings, num_rows: int) -> int:
    if num_rows == 0:
        raise InputError(
            "corpus: has no rows to train on; see the reasons for dropped documents in its manifest"
        )
    rows_a_step = settings.rows_per_step * settings.accumulation_steps
    return max(1, math.ceil(settings.epochs * num_rows / rows_a_step))


def _tokens_a_step(settings: PretrainSettings, rows: PackedRows) -> int:
    return settings.rows_per_step * settings.accumulation_steps * rows.sequence_length


def _check_fit(rows: PackedRows, model: Any, corpus: Path) -> None:
    """Refuse tokens of another vocabulary and rows longer than the model's context."""
    embedding_rows = model.get_input_embeddings().weight.shape[0]
    if rows.vocabulary_size > embedding_rows:
        raise ModelError(
            f"{corpus}: was cut by a tokenizer of {rows.vocabulary_size} tokens, the model has "
            f"{embedding_rows}; build the corpus with the model's own tokenizer (corpus.tokenizer)"
        )
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and rows.sequence_length > context:
        raise ModelError(
            f"{corpus}: has rows of {rows.sequence_length} tokens, the model's context is "
            f"{context}; lower corpus.sequence_length"
        )


def _training_log(
    trainer: Trainer, tokens_a_step: int, *, corpus_name: str
) -> list[dict[str, Any]]:
    """Loss, learning rate and held-out loss by step; nothing in it depends on the clock."""
    lines: list[dict[str, Any]] = []
    for entry in trainer.state.log_history:
        line: dict[str, Any] = {"step": entry["step"], "tokens": int(entry["step"]) * tokens_a_step}
        if "loss" in entry:
            lines.append({**line, "loss": entry["loss"], "learning_rate": entry["learning_rate"]})
        elif "eval_loss" in entry:
            lines.append({**line, "held_out_loss": {corpus_name: entry["eval_loss"]}})
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
