"""The steps of a recipe on a cluster: each goes out as soon as what it needs is there.

What a step cuts into shards or units goes out again, from the machine that makes the step. Results
are those of a run on one machine, byte for byte where these are deterministic and as many threads
compute. Knows nothing about what any step does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from biomistral import artifacts
from biomistral.errors import BiomistralError, InputError
from biomistral.pipeline.cluster import Cluster, Mark
from biomistral.pipeline.cluster_orders import Order, make_step, wait_for
from biomistral.pipeline.cluster_training import train_together
from biomistral.pipeline.running import TRAINED, Outcome, refuse_missing
from biomistral.pipeline.steps import Step, judge
from biomistral.recipe import Recipe
from biomistral.recipe.settings import EndpointModel

# Sections whose models and adapters a GPU makes.
_ON_GPU = frozenset({"pretrain", "sft", "dpo", "quantize"})
# After the first machine of a job, the last one may take so long to join.
_JOINING_SECONDS = 60


def run_on(
    cluster: Cluster,
    recipe: Recipe,
    steps: Sequence[Step],
    root: Path,
    *,
    processes: int = 1,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Outcome]:
    """Run the steps of a recipe on a cluster; models are trained in ``processes`` together.

    Yields outcomes as they are known; ``tell`` hears of steps that start. Raises the error of the
    first step that fails when those under way are done, ``InputError`` for what is missing at once.
    """
    verdicts = {step.key: judge(step, root) for step in steps}
    refuse_missing(steps, verdicts)
    _refuse_too_many(cluster, processes)
    root = root.resolve()
    due = [step for step in steps if verdicts[step.key].state != "done"]
    if due:
        cluster.share(root)
    order_of = _orders(recipe, steps, root, cluster.mark)
    for step in steps:
        if step not in due:
            yield Outcome(step, verdicts[step.key], 0.0, artifacts.size_bytes(root / step.key))
    finished = {step.key for step in steps if step not in due}
    running: dict[Any, Step] = {}
    failed: BaseException | None = None
    while due or running:
        ready = [step for step in due if finished.issuperset(step.needs)] if not failed else []
        for step in ready:
            due.remove(step)
            running[_start(cluster, recipe, step, order_of(step), processes)] = step
            tell(step.key)
        if not running:
            break
        done = cluster.first_of(list(running))
        step = running.pop(done)
        try:
            seconds = cluster.result(done)
            wait_for(step, root)
        except (BiomistralError, KeyboardInterrupt) as error:
            failed = failed or error
            continue
        finished.add(step.key)
        size = artifacts.size_bytes(root / step.key)
        yield Outcome(step, verdicts[step.key], seconds, size)
    if failed:
        raise failed


def _refuse_too_many(cluster: Cluster, processes: int) -> None:
    """Wait until machines that are still starting have joined, but not for ever."""
    give_up = time.monotonic() + _JOINING_SECONDS
    while (most := cluster.num_tasks(gpu=True)) < processes and time.monotonic() < give_up:
        time.sleep(1)
    if processes > most:
        has = f"{cluster.num_gpus()} GPUs" if cluster.num_gpus() else f"room for {most}"
        raise InputError(
            f"--nproc {processes}: the cluster has {has} ({cluster.describe()}; --cpus-per-task "
            f"{cluster.cpus_per_task}); give at most {most}"
        )


def _orders(
    recipe: Recipe, steps: Sequence[Step], root: Path, mark: Mark | None
) -> Callable[[Step], Order]:
    text, here = recipe.model_dump_json(), os.getcwd()  # noqa: PTH109
    read = [step.origin.inputs for step in steps if step.kind != "questions"]
    sources = {key: value for inputs in read for key, value in inputs.items()}
    # A corpus that no step reads decides about none.
    known = {c.name: sources.get(f"files/{c.name}", "") for c in recipe.corpus}

    def order_of(step: Step) -> Order:
        return Order(text, here, str(root), step.key, step.origin.fingerprint, mark, known)

    return order_of


def _start(cluster: Cluster, recipe: Recipe, step: Step, order: Order, processes: int) -> Any:
    """Give a step to the cluster; return the reference to its seconds."""
    if processes > 1 and step.section in TRAINED and step.kind in {"model", "adapter"}:
        return train_together(cluster, step, order, processes)
    gpu = wants_gpu(step, recipe, cluster.num_gpus())
    return cluster.submit(make_step, order, cluster.cpus_per_task, gpu=gpu)


def wants_gpu(step: Step, recipe: Recipe, num_gpus: int) -> bool:
    """Whether a step is made on a GPU, of so many.

    With more than one, predictions go out again, in units that take a GPU each; who puts them
    together would only keep one from working.
    """
    if step.section in _ON_GPU:
        return step.kind in {"model", "adapter"}
    if step.key == "scores/cost":
        return True
    if step.kind != "predictions" or step.section != "evaluate" or recipe.evaluate is None:
        return False
    if isinstance(recipe.models.get(step.name), EndpointModel):
        return False
    return num_gpus == 1 or recipe.evaluate.engine != "own"
