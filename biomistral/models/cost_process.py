"""Measure one model: the process that ``costs`` starts for each.

Reads the task as JSON from the standard input, writes the numbers, or the error, as one line of JSON.
Times are of the clock, the least of the repeats; on a busy machine all are too long, the more so the
longer they are. Knows nothing about other models.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from biomistral.errors import BiomistralError, InputError
from biomistral.models.adapted import adapted
from biomistral.models.costs import CostSettings
from biomistral.models.generating import Engine, Sampling
from biomistral.models.hub import local_folder
from biomistral.models.loading import load_model, load_tokenizer, num_weights, pick_device
from biomistral.models.memory import give_back_memory

_SHORT = 16  # tokens of a prompt where writing is measured


def main() -> None:
    """Do the task on the standard input."""
    task = json.load(sys.stdin)
    folder, revision = task.pop("folder"), task.pop("revision")
    try:
        found = measure(folder, CostSettings(**task), revision)
    except BiomistralError as error:
        found = {"error": str(error), "kind": type(error).__name__}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


def measure(
    source: str | Path, settings: CostSettings, revision: str | None = None
) -> dict[str, int | float | str]:
    """Return the fields of ``Cost``, its name apart.

    Raises ``InputError`` if the model's context is too short for anything to be measured.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    places = _folders(source, revision)
    device = pick_device()
    tokenizer = load_tokenizer(source, revision)
    before = _memory(device)
    started = time.perf_counter()
    precision: Any = settings.precision
    model = load_model(source, revision=revision, precision=precision, device=device)
    load_seconds = time.perf_counter() - started
    context = getattr(model.config, "max_position_embeddings", None) or 2**31
    length = min(settings.prompt_tokens, context - 1)
    if context < _SHORT + settings.new_tokens:
        raise InputError(
            f"{source}: its context of {context} tokens holds no prompt of {_SHORT} and an answer of "
            f"{settings.new_tokens}; ask for fewer new tokens"
        )
    longest = max(length + 1, _SHORT + settings.new_tokens)
    engine = Engine(model, tokenizer, max_batch=settings.batch, max_tokens=settings.batch * longest)
    runner = _Runner(engine, model.get_input_embeddings().weight.shape[0])
    runner.read(min(length, 2 * _SHORT))  # whatever is made at first use
    reading = length / _least(lambda: runner.read(length), settings.repeats)
    one, many = (
        number
        / _least(functools.partial(runner.write, number, settings.new_tokens), settings.repeats)
        for number in (1, settings.batch)
    )
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "num_parameters": num_weights(model),
        "file_bytes": sum(
            file.stat().st_size
            for place in places
            for file in [place, *place.rglob("*")]
            if file.is_file()
        ),
        "weight_bytes": sum(
            tensor.numel() * tensor.element_size()
            for tensor in [*model.parameters(), *model.buffers()]
        ),
        "memory_bytes": max(0, _memory(device) - before),
        "peak_memory_bytes": max(0, _peak(device) - before),
        "load_seconds": load_seconds,
        "prompt_tokens": length,
        "batch": settings.batch,
        "reading_tokens_per_second": reading,
        "writing_tokens_per_second": one,
        "batched_tokens_per_second": many,
    }


def _folders(source: str | Path, revision: str | None) -> Sequence[Path]:
    """Where the files of a model are: a GGUF file, a folder, or a base and its adapter."""
    if Path(source).is_file():
        return [Path(source)]
    parts = adapted(source, revision)
    return parts.folders if parts else [local_folder(source, revision)]


class _Runner:
    """Prompts that have nothing in common, so that nothing is taken over from one to the next."""

    def __init__(self, engine: Engine, vocabulary_size: int) -> None:
        self._engine = engine
        self._size = vocabulary_size
        self._number = 0

    def read(self, length: int) -> float:
        """Seconds to read a prompt and write one token."""
        started = time.perf_counter()
        self._submit(length, 1)
        while self._engine.step():
            pass
        return time.perf_counter() - started

    def write(self, number: int, new_tokens: int) -> float:
        """Seconds for a token of each of so many sequences, their prompts read before."""
        for _ in range(number):
            self._submit(_SHORT, new_tokens)
        for _ in range(number):  # a step reads one of these prompts
            self._engine.step()
        before = self._engine.stats().generated_tokens
        started = time.perf_counter()
        while self._engine.step():
            pass
        seconds = time.perf_counter() - started
        written = self._engine.stats().generated_tokens - before
        return seconds * number / max(1, written)

    def _submit(self, length: int, new_tokens: int) -> None:
        self._number += 1
        prompt = [(self._number * 7919 + 31 * place) % self._size for place in range(length)]
        self._engine.submit(prompt, Sampling(max_new_tokens=new_tokens, ignore_eos=True))


def _least(seconds: Callable[[], float], repeats: int) -> float:
    return min(seconds() for _ in range(repeats))


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    give_back_memory()
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:  # no such file: the most there ever was
        return _peak(device)
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
