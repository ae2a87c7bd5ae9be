"""What happens between the steps of a training run: measure, tell, save, and stop at what is wrong.

What is measured goes to the Trainer's own history, which checkpoints keep, so a resumed run has the
same log as an undisturbed one. Knows nothing about models or where rows come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from biomistral.progress import Progress
from biomistral.training import guards
from biomistral.training.checkpointing import mark_complete
from biomistral.training.held_out import HeldOutLoss
from biomistral.training.processes import is_first, wait_for_all
from biomistral.training.tracking import Meter, Trackers


@dataclass
class Watch:
    """What a watcher is told about the run."""

    progress: Progress
    tokens_seen: Callable[[Any], int]  # by the Trainer's state: all that went through the model
    # Held-out loss by corpus, taken every so many steps.
    measure: Mapping[str, Callable[[Any], HeldOutLoss]] = field(default_factory=dict)
    measure_every: int = 1
    largest_loss_rise: float | None = None
    # Called before a run is stopped for its loss; returns what to add to the message.
    keep_evidence: Callable[[int, float], str] = lambda _step, _loss: ""
    trackers: Trackers | None = None  # of the first process


class Watcher(TrainerCallback):
    """The Trainer's callbacks of one run."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.meter = Meter()
        self.losses: list[float] = []
        self.text = "steps"
        self.tokens = 0

    def on_train_begin(self, *event: Any, **objects: Any) -> None:
        """Measure before the first step; after an interruption, remember the losses so far."""
        _, state, _ = event
        self.meter = Meter()
        self.losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        self.tokens = self.watch.tokens_seen(state)
        if state.global_step == 0:
            self._measure(state, objects["model"])

    def on_step_end(self, *event: Any, **objects: Any) -> None:
        """Report, and measure where it is time."""
        _, state, control = event
        before, self.tokens = self.tokens, self.watch.tokens_seen(state)
        self.meter.add(self.tokens - before)
        self.watch.progress(state.global_step, state.max_steps, self.text)
        is_last = state.global_step >= state.max_steps
        if is_last or state.global_step % self.watch.measure_every == 0:
            self._measure(state, objects.get("model"))
        if is_last:
            # The Trainer would save here; resuming from it would add a step, and nothing is left.
            control.should_save = False

    def on_log(self, *event: Any, **facts: Any) -> None:
        """Look at the loss of a step."""
        _, state, _ = event
        loss = facts["logs"].get("loss")
        if loss is None:
            return
        self.losses.append(loss)
        self._check(loss, state.global_step)
        speed = self.meter.tokens_per_second()
        self.text = f"steps, loss {loss:.3f}, {speed:,.0f} tokens/s"
        self._tell(
            state.global_step,
            {
                "train/loss": loss,
                "train/learning_rate": facts["logs"].get("learning_rate", 0.0),
                "train/gradient_norm": facts["logs"].get("grad_norm", 0.0),
                "train/tokens": float(self.watch.tokens_seen(state)),
                "train/tokens_per_second": speed,
            },
        )

    def on_save(self, *event: Any, **_: Any) -> None:
        """Mark a checkpoint as whole once every process has written its part."""
        args, state, _ = event
        wait_for_all()
        if is_first():
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def _check(self, loss: float, step: int) -> None:
        rise = self.watch.largest_loss_rise
        exploded = rise is not None and guards.has_exploded(self.losses, rise)
        if loss - loss != 0 or exploded:  # NaN or infinite
            see = self.watch.keep_evidence(step, loss)
            guards.check_number("loss", loss, step, see)
            raise guards.explosion(self.losses, step, see)

    def _measure(self, state: Any, model: Any) -> None:
        if not self.watch.measure:
            return
        found = {name: measure(model) for name, measure in self.watch.measure.items()}
        for name, held_out in found.items():
            guards.check_number(f"held-out loss of {name}", held_out.loss, state.global_step)
        entry: dict[str, Any] = {
            "step": state.global_step,
            "held_out_loss": {name: held_out.loss for name, held_out in found.items()},
        }
        languages = {name: h.by_language for name, h in found.items() if h.by_language}
        if languages:
            entry["held_out_loss_by_language"] = languages
        state.log_history.append(entry)
        self._tell(state.global_step, {f"held_out/{name}": h.loss for name, h in found.items()})
        for name, losses in languages.items():
            self._tell(state.global_step, {f"held_out/{name}/{k}": v for k, v in losses.items()})

    def _tell(self, step: int, values: Mapping[str, float]) -> None:
        if self.watch.trackers is not None:
            self.watch.trackers.tell(step, values)
