"""Supervised fine-tuning: questions with their answers, or conversations, to a tuned model.

Only answers are learned. Examples share rows and do not see each other. What is written is an
adapter (LoRA, QLoRA) or a whole model. Knows nothing about where questions come from.
Published settings: arXiv 2402.10373; see ``recipes/biomistral-sft.yaml``.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from biomistral.artifacts import Origin
from biomistral.models.loading import load_model, load_tokenizer
from biomistral.progress import Progress, ignore
from biomistral.recipe.settings import SftSettings
from biomistral.records import Request
from biomistral.training import processes, tuning_run
from biomistral.training.answer_head import (
    Answers,
    Start,
    base_of,
    has_plain_head,
    head_of,
    states_at_answers,
    use_answer_loss,
)
from biomistral.training.answer_loss import Calibrating
from biomistral.training.attention import keep_documents_apart
from biomistral.training.conversation_tokens import Renderer, without_tests
from biomistral.training.conversations import (
    Messages,
    Spot,
    find_data_files,
    read_conversations,
)
from biomistral.training.epochs import NOTHING, Epochs
from biomistral.training.lessons import Lesson, collate_lessons, lessons_of, pack
from biomistral.training.low_rank import load_learner
from biomistral.training.trainer import InOrder


def fine_tune(
    settings: SftSettings,
    model: Path,
    out: Path,
    *,
    requests: Sequence[Request] = (),
    test_runs: Path | None = None,
    seed: int = 42,
    origin: Origin | None = None,
    progress: Progress = ignore,
    board: Path | None = None,
) -> Path:
    """Tune ``model`` on questions and on the conversations that ``settings`` name; return ``out``.

    ``out`` becomes an ``adapter`` artefact, or a ``model`` if every weight is trained. ``requests``
    are questions with the prompt to learn from. Conversations that hold 13 words in a row of
    ``test_runs`` (a file of ``ngrams``) are left out. Interrupted runs go on from their last
    checkpoint. ``seed`` counts unless the settings name one, and ``board``, a folder for TensorBoard.

    Raises ``InputError`` if data cannot be read or nothing is left of it, ``ModelError`` if the
    model cannot be trained so, ``MissingDependencyError`` without PEFT for an adapter.
    """
    seed = settings.seed if settings.seed is not None else seed
    files = [path for _, path in find_data_files(settings.data)]
    conversations = read_conversations(files)
    origin = origin or tuning_run.origin_of(settings, model, files, requests, test_runs, seed)
    tuning_run.check_room(settings, model, out, max(1, len(requests) + len(conversations)))
    processes.connect()
    with processes.shared_draft(out, origin) as draft:
        progress(0, None, "loading the model")
        learner = load_learner(settings, model, seed)
        tokenizer = load_tokenizer(model)
        left_out: Counter[str] = Counter()
        plain = without_tests(conversations, test_runs)
        left_out["overlap with test questions"] = len(conversations) - len(plain)
        lessons = _lessons(tokenizer, requests, plain)
        limit, too_long = tuning_run.limit_of(settings, learner)
        kept = tuning_run.short_enough(
            lessons, lambda lesson: len(lesson.ids), limit, settings.name
        )
        left_out[too_long] = len(lessons) - len(kept)
        rows = (
            pack(kept, settings.sequence_length)
            if settings.packing
            else [[lesson] for lesson in kept]
        )
        run = tuning_run.plan(settings, out, rows, seed, board)
        watching = tuning_run.watcher(run, progress)
        trainer = _trainer(run, learner, model, rows, draft.work, watching)
        tuning_run.train(run, trainer, learner, watching)
        draft.counts.update(examples=len(kept), rows=len(rows), left_out=dict(+left_out))
        card = _card(settings, len(kept), Counter(request.task for request in requests))
        tuning_run.finish(run, trainer, learner, model, draft, card, watching=watching)
    return out


def _lessons(
    tokenizer: Any, requests: Sequence[Request], conversations: Sequence[tuple[Spot, Messages]]
) -> list[Lesson]:
    lessons = lessons_of(tokenizer, requests)
    if conversations:
        renderer = Renderer(tokenizer)
        lessons += [renderer.lesson(spot, messages) for spot, messages in conversations]
    return lessons


# --- the trainer ----------------------------------------------------------------------------------


class _Rows(Dataset[list[Lesson]]):
    """Rows of lessons in the order of training, as the data loader wants them."""

    def __init__(self, rows: Sequence[list[Lesson]], order: Epochs) -> None:
        self.rows = rows
        self.order = order

    def __len__(self) -> int:
        return len(self.order.places)

    def __getitem__(self, place: int) -> list[Lesson]:
        row = self.order.places[place]
        return [] if row == NOTHING else self.rows[row]


class _AnswerTrainer(InOrder, Trainer):
    """The Trainer with our loss. ``start`` is a model that stays as it was, if one is needed."""

    def __init__(self, *, calibrating: Calibrating, start: Any = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.calibrating = calibrating
        self.start = start

    def compute_loss(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,  # noqa: FBT001  the Trainer's signature
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        assert not return_outputs, "nothing is evaluated here"
        read = {name: inputs[name] for name in ("input_ids", "position_ids", "documents")}
        # No attention mask and no cache: with either, examples of one row would see each other.
        read["use_cache"] = False
        answers = Answers(inputs["labels"], inputs["letters"], self.calibrating)
        if self.calibrating.jeffreys_weight:
            answers = replace(answers, start=self._start_of(model, read, answers.due))
        nats: Tensor = model(**read, answers=answers).loss
        # Over all tokens of the optimizer step, however it is cut; processes take the mean of theirs.
        assert num_items_in_batch is not None, "the Trainer counts labels"
        loss: Tensor = nats * self.accelerator.num_processes / num_items_in_batch
        return loss

    def _start_of(self, model: Any, read: Mapping[str, Any], due: Tensor) -> Start:
        """What the model before training says at these places."""

        def logits_of(states: Tensor) -> Tensor:
            with self._as_it_started(model) as start:
                logits: Tensor = head_of(start)(states)
            return logits

        with torch.no_grad(), self._as_it_started(model) as start:
            return Start(states_at_answers(start, read, due), logits_of)

    @contextlib.contextmanager
    def _as_it_started(self, model: Any) -> Any:
        """The model before training: another one, or this one without its adapter."""
        if self.start is not None:
            with torch.autocast(self.start.device.type, enabled=False):
                yield self.start
            return
        learner = self.accelerator.unwrap_model(model)
        with learner.disable_adapter(), self.accelerator.autocast():
            yield learner


def _trainer(
    run: tuning_run.Run,
    learner: Any,
    model: Path,
    rows: Sequence[list[Lesson]],
    work: Path,
    watching: TrainerCallback,
) -> Trainer:
    settings = run.settings
    assert isinstance(settings, SftSettings)
    calibrating = Calibrating(
        settings.answer_smoothing, settings.entropy_weight, settings.jeffreys_weight
    )
    start = None
    if settings.jeffreys_weight and not settings.makes_adapter:
        start = load_model(model, precision="float32").requires_grad_(False)
    learner.config.use_cache = False
    for each in (learner, start):
        if each is not None:
            attend_within_examples(each)
    use_answer_loss(learner)
    arguments = tuning_run.arguments_of(run, work, learner)
    with tuning_run.quiet():
        return _AnswerTrainer(
            calibrating=calibrating,
            start=start,
            model=learner.train(),
            args=TrainingArguments(**arguments),
            train_dataset=_Rows(rows, run.order),
            data_collator=collate_lessons,
            callbacks=[watching],
        )


def attend_within_examples(model: Any) -> None:
    """Compute the attention of each example by itself, where the model's is known to be plain.

    Elsewhere the library's dense mask, which positions that restart ask for, keeps them apart: it
    computes whole rows (2.7 times slower with 16 examples in rows of 2,048, measured on a CPU).
    """
    if has_plain_head(model):
        keep_documents_apart(base_of(model))


def _card(settings: SftSettings, num_examples: int, by_task: Mapping[str, int]) -> Any:
    against = {
        "Jeffreys divergence to the start": settings.jeffreys_weight,
        "Entropy of the answer": settings.entropy_weight,
        "Smoothing of the answer": settings.answer_smoothing,
    }
    return tuning_run.card_of(
        settings,
        "Fine-tuned on answers to multiple-choice questions."
        if by_task
        else "Fine-tuned on conversations.",
        {
            "Training questions": ", ".join(f"{task} {count}" for task, count in by_task.items()),
            "Files of conversations": ", ".join(Path(name).name for name in settings.data),
            "Examples": str(num_examples),
            **{label: f"weight {value:g}" for label, value in against.items() if value},
        },
        languages=tuple(settings.languages) if by_task else (),
        datasets=tuple(by_task),
    )
