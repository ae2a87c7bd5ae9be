"""The Transformers Trainer as this package uses it.

Rows come in the order of the data set, the learning rate follows our own course, nothing is printed.
Knows nothing about where rows or models come from.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from biomistral.errors import ModelError
from biomistral.models.loading import quiet_transformers
from biomistral.recipe.settings import PretrainSettings
from biomistral.training import guards
from biomistral.training.attention import keep_documents_apart
from biomistral.training.cross_entropy import use_blocked_loss
from biomistral.training.fused_steps import fuse
from biomistral.training.memory import split_step
from biomistral.training.processes import is_first, num_processes
from biomistral.training.recomputing import recompute_activations
from biomistral.training.schedule import Course
from biomistral.training.staying_near import stay_near


class InOrder:
    """Part of a Trainer: it takes rows as they come."""

    train_dataset: Any

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        return SequentialSampler(rows)


class OrderedTrainer(InOrder, Trainer):
    """A Trainer that takes rows as they come and a learning rate from a ``Course``."""

    def __init__(self, course: Course, **arguments: Any) -> None:
        self.course = course
        super().__init__(**arguments)

    def create_scheduler(
        self,
        num_training_steps: int,  # noqa: ARG002 - the course knows
        optimizer: torch.optim.Optimizer | None = None,
    ) -> LRScheduler:
        """Make the scheduler, once."""
        if self.lr_scheduler is None:
            wrapped: Any = optimizer or self.optimizer
            self.lr_scheduler = LambdaLR(wrapped, self.course)
            self._created_lr_scheduler = True
        return self.lr_scheduler


def make_trainer(
    settings: PretrainSettings,
    model: Any,
    rows: Dataset[Any],
    collate: Callable[[Sequence[Any]], dict[str, Any]],
    *,
    course: Course,
    work: Path,
    seed: int,
    callbacks: list[TrainerCallback],
    start: Any = None,
) -> OrderedTrainer:
    """Make ``model`` ready for training and return its Trainer; checkpoints go to ``work``.

    ``start`` is a second copy of the model, where the settings say to stay near it.
    """
    if settings.gradient_checkpointing:
        recompute_activations(model)
    model.config.use_cache = False  # with a cache, documents of one row would see each other
    if not settings.cross_document_attention:
        keep_documents_apart(model)
    fuse(model)
    if start is None:
        use_blocked_loss(model)
    else:
        if not settings.cross_document_attention:
            keep_documents_apart(start)
        stay_near(model, start, settings.jeffreys_weight)
    rows_per_step, passes = split_step(
        settings.rows_per_step, settings.accumulation_steps, num_processes()
    )
    has_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=rows_per_step,
        gradient_accumulation_steps=passes,
        max_steps=course.num_steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_gradient_norm,
        optim="adamw_torch_fused",
        bf16=settings.precision == "mixed",
        # Each step, or a resumed run would average over other steps than an undisturbed one.
        logging_steps=1,
        logging_nan_inf_filter=False,  # would hide a loss that is not a number
        save_steps=settings.save_every_steps,
        save_total_limit=settings.keep_checkpoints,
        seed=seed,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=has_gpu,
        use_cpu=not has_gpu,
        torch_compile=settings.compile and has_gpu,
        **of_several_processes(model, sharding=settings.sharding),
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # else a second GPU would double the rows of a step
    with quiet_transformers():
        trainer = OrderedTrainer(
            course,
            model=model.train(),
            args=arguments,
            train_dataset=rows,
            data_collator=collate,
            callbacks=callbacks,
        )
    trainer.remove_callback(PrinterCallback)
    return trainer


def of_several_processes(model: Any, *, sharding: str) -> dict[str, Any]:
    """Arguments that say how the model is shared among processes."""
    if num_processes() == 1:
        return {}
    # Every parameter has a part in every loss, so none is looked for.
    common = {"ddp_find_unused_parameters": False}
    if not torch.cuda.is_available():
        if sharding == "full" and is_first():
            warnings.warn(
                "on a CPU the Trainer does not shard a model: each process keeps a whole copy "
                "(sharding: none), which takes as much memory as one process alone",
                stacklevel=2,
            )
        return {**common, "ddp_backend": "gloo"}
    if sharding == "none":
        return common
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "reshard_after_forward": True,
            "transformer_layer_cls_to_wrap": sorted(model._no_split_modules),
            "state_dict_type": "SHARDED_STATE_DICT",
        },
    }


def run_trainer(trainer: Trainer, start: Path | None) -> None:
    """Train, from a checkpoint if there is one. Raises ``ModelError`` if memory does not suffice."""
    try:
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"training: the device is out of memory ({str(error).splitlines()[0]}); lower "
            "rows_per_step and raise accumulation_steps by the same factor, set "
            "gradient_checkpointing: true or, for tuning, method: qlora, and run again"
        ) from error


def save_whole(trainer: Any, learner: Any, folder: Path, *, in_bfloat16: bool) -> None:
    """Check and write all weights, by the first process; of a sharded model all give their part."""
    learner.config.use_cache = True
    if trainer.is_fsdp_enabled:
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if is_first():
            guards.check_tensors(weights)
            dtype = torch.bfloat16 if in_bfloat16 else torch.float32
            learner.save_pretrained(folder, state_dict={k: w.to(dtype) for k, w in weights.items()})
        return
    guards.check_weights(learner)
    if in_bfloat16:
        learner.to(torch.bfloat16)
    if is_first():
        learner.save_pretrained(folder)
