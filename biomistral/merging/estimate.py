"""How long a merge will take: by doing a small part of it. Knows nothing about terminals."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from biomistral.merging.engine import Engine
from biomistral.merging.jobs import Job
from biomistral.merging.plan import Plan
from biomistral.models.writing import CheckpointWriter

# Enough to even out, little enough to be done in a second or two.
_ENOUGH_ELEMENTS = 64_000_000


def estimate_seconds(plan: Plan) -> tuple[float, float]:
    """Merge a sample of the tensors into a temporary file; return seconds and the share done.

    The seconds are those that all tensors would take, start-up not included. Raises what the merge
    itself would raise on these tensors.
    """
    jobs = sample(plan)
    elements = sum(job.output.num_elements for job in jobs)
    total = sum(job.output.num_elements for job in plan.jobs)
    with tempfile.TemporaryDirectory() as folder, Engine(seed=0) as engine:
        start = time.perf_counter()
        writer = CheckpointWriter(Path(folder), [job.output for job in jobs])
        for _ in engine.run(jobs, writer.places):
            pass
        seconds = time.perf_counter() - start
    return seconds * total / max(elements, 1), elements / max(total, 1)


def sample(plan: Plan) -> list[Job]:
    """Return jobs from all over the model that hold about as many elements as are enough."""
    total = sum(job.output.num_elements for job in plan.jobs)
    every = max(1, round(total / _ENOUGH_ELEMENTS))
    by_size = sorted(plan.jobs, key=lambda job: job.output.num_elements)
    return by_size[every // 2 :: every] or by_size[:1]
