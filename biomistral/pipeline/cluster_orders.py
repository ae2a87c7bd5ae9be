"""What a machine of a cluster must know to make a step of a run, and how it does.

It plans the run as the first machine did and takes one step of that plan; by its fingerprint both
know that they mean the same. Knows nothing about Ray, or about which machine this is.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from biomistral.errors import InputError
from biomistral.pipeline.cluster import Attached, Mark
from biomistral.pipeline.plan import plan
from biomistral.pipeline.running import make
from biomistral.pipeline.steps import Step, judge
from biomistral.progress import ignore
from biomistral.recipe import Recipe
from biomistral.workers import running_on

# As long as a client of NFS may keep what it knows of a folder.
_PATIENCE_SECONDS = 70


@dataclass(frozen=True)
class Order:
    """What a machine must know to make a step of a run."""

    recipe: str  # as JSON
    working_directory: str  # that its paths are relative to
    root: str  # folder of the run
    key: str  # of the step
    fingerprint: str  # that the step must have there, too
    mark: Mark | None = None
    # Fingerprints of corpora, which no machine needs to look through again.
    corpora: Mapping[str, str] = field(default_factory=dict)


def make_step(order: Order, cpus_per_task: int) -> float:
    """Make one artefact of a run, on whatever machine this is; return the seconds it took.

    What it cuts into shards or units goes to the cluster again. Raises ``InputError`` if this machine
    does not see the same files, or what other machines have made.
    """
    here = Attached(cpus_per_task, order.mark)
    with running_on(here), contextlib.chdir(order.working_directory):
        root = Path(order.root)
        recipe = Recipe.model_validate_json(order.recipe)
        steps = {step.key: step for step in plan(recipe, root, corpora=order.corpora)}
        step = steps[order.key]
        if step.origin.fingerprint != order.fingerprint:
            raise InputError(
                f"{order.key}: the machine {os.uname().nodename} sees other files than the one that "
                "planned the run; give all machines the same folders, under the same paths"
            )
        for key in step.needs:
            wait_for(steps[key], root)
        return make(step, root / order.key, ignore)


def wait_for(step: Step, root: Path) -> None:
    """Return once an artefact of the run is seen from here; a network file system may be late.

    Raises ``InputError`` if it is not: an older one at its place would be used without a word.
    """
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while judge(step, root).state != "done":
        if time.monotonic() > give_up:
            raise InputError(
                f"{step.key}: was made, and the machine {os.uname().nodename} does not see it in {root}; "
                "put the run's folder on a file system that all machines share, under one path"
            )
        time.sleep(0.5)
