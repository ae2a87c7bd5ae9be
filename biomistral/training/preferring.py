"""Preference tuning: pairs of a better and a worse answer to a model that prefers the better one.

The loss is that of TRL's ``DPOTrainer`` (Rafailov et al., arXiv 2305.18290). Pairs come from files,
or are made of questions: the right choice against others. They are encoded here, not by TRL, so
that the tokens that are compared are those that evaluation scores. Knows nothing about where
questions come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomistral.artifacts import Origin
from biomistral.errors import require
from biomistral.models.loading import load_model, load_tokenizer
from biomistral.progress import Progress, ignore
from biomistral.recipe.settings import DpoSettings
from biomistral.records import Request
from biomistral.training import processes, tuning_run
from biomistral.training.conversation_tokens import encode_pairs, without_tests
from biomistral.training.conversations import find_data_files, read_pairs
from biomistral.training.lessons import Preference, preferences_of
from biomistral.training.low_rank import load_learner
from biomistral.training.trainer import InOrder

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

# Values that TRL logs, by their name in our log: all of the pairs of a step.
_MEASURES = {
    "preferred": "rewards/accuracies",  # share of pairs in which the better answer gained more
    "margin": "rewards/margins",  # of the gains, times beta
}


def prefer(
    settings: DpoSettings,
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
    """Tune ``model`` on pairs; return ``out``: an ``adapter`` artefact, or a ``model``.

    ``requests`` are questions to make pairs of; ``settings`` name files of pairs. Those that hold 13
    words in a row of ``test_runs`` (a file of ``ngrams``) are left out. Interrupted runs go on from
    their last checkpoint. ``board`` is a folder for TensorBoard, unless the settings name one. Raises ``InputError`` if pairs cannot be read or none is left,
    ``ModelError`` if the model cannot be trained so, ``MissingDependencyError`` without TRL.
    """
    require("trl", extra="training", purpose=f"preference tuning ({settings.name})")
    seed = settings.seed if settings.seed is not None else seed
    files = [path for _, path in find_data_files(settings.pairs)]
    pairs = read_pairs(files)
    origin = origin or tuning_run.origin_of(settings, model, files, requests, test_runs, seed)
    num_pairs = max(1, len(requests) * settings.rejections + len(pairs))
    tuning_run.check_room(settings, model, out, num_pairs)
    processes.connect()
    with processes.shared_draft(out, origin) as draft:
        progress(0, None, "loading the model")
        learner = load_learner(settings, model, seed)
        tokenizer = load_tokenizer(model)
        plain = without_tests(pairs, test_runs)
        found = preferences_of(tokenizer, requests, rejections=settings.rejections, seed=seed)
        found += encode_pairs(tokenizer, plain)
        limit, too_long = tuning_run.limit_of(settings, learner)
        kept = tuning_run.short_enough(found, lambda pair: pair.num_tokens, limit, settings.name)
        run = tuning_run.plan(settings, out, kept, seed, board)
        # A second copy of the model stays as it was; beside an adapter, the model does without it.
        start = None if settings.makes_adapter else load_model(model, precision="float32")
        watching = tuning_run.watcher(run, progress)
        trainer = _trainer(run, (learner, start), tokenizer, kept, draft.work, watching)
        tuning_run.train(run, trainer, learner, watching)
        left_out = Counter(
            {
                "overlap with test questions": len(pairs) - len(plain),
                too_long: len(found) - len(kept),
            }
        )
        draft.counts.update(pairs=len(kept), left_out=dict(+left_out))
        card = _card(settings, len(kept), Counter(request.task for request in requests))
        tuning_run.finish(
            *(run, trainer, learner, model, draft, card),
            watching=watching,
            measures=_MEASURES,
        )
    return out


def _trainer(
    run: tuning_run.Run,
    models: tuple[Any, Any],  # what learns, and what it is compared with
    tokenizer: Any,
    pairs: Sequence[Preference],
    work: Path,
    watching: TrainerCallback,
) -> Trainer:
    settings = run.settings
    assert isinstance(settings, DpoSettings)
    with tuning_run.quiet():
        import datasets
        from trl.trainer import dpo_config, dpo_trainer

    base: Any = dpo_trainer.DPOTrainer
    config: Any = dpo_config.DPOConfig

    class EncodedPairs(InOrder, base):  # type: ignore[misc]
        """TRL's trainer for pairs that are encoded already, and without a card of its own."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Leave the card to us."""

    learner, start = models
    learner.config.use_cache = False
    arguments = tuning_run.arguments_of(run, work, learner)
    columns = {
        "prompt_ids": [list(pair.prompt) for pair in pairs],
        "chosen_ids": [list(pair.chosen) for pair in pairs],
        "rejected_ids": [list(pair.rejected) for pair in pairs],
    }
    with tuning_run.quiet():
        trainer = EncodedPairs(
            model=learner.train(),
            ref_model=start,
            args=config(
                **arguments,
                gradient_checkpointing=False,  # else it is turned on; ours is on the model already
                beta=settings.beta,
                loss_type=settings.loss,
                max_length=None,
            ),
            train_dataset=datasets.Dataset.from_dict(columns).select(run.order.places),
            processing_class=tokenizer,
            callbacks=[watching],
        )
        if settings.makes_adapter:
            # TRL copies the adapter to compare with; one that has not begun adds nothing, so the
            # model without it is the same.
            learner.delete_adapter("ref")
    for parameter in learner.parameters():  # TRL rounds adapters of quantized models to bfloat16
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainer


def _card(settings: DpoSettings, num_pairs: int, by_task: Mapping[str, int]) -> Any:
    return tuning_run.card_of(
        settings,
        "Tuned to prefer the better of two answers (DPO).",
        {
            "Training questions": ", ".join(f"{task} {count}" for task, count in by_task.items()),
            "Files of pairs": ", ".join(Path(name).name for name in settings.pairs),
            "Pairs": str(num_pairs),
            "Loss": f"{settings.loss}, beta {settings.beta:g}",
        },
        languages=tuple(settings.languages) if by_task else (),
        datasets=tuple(by_task),
    )
