"""Carry out the jobs of a merge: read, compute, write, tensor by tensor, on several threads.

A job whose inputs lie in files as they are, with a method that ``kernels.c`` has, is done there
(``compiled``); any other with the functions of ``methods``, on a GPU if one is asked for. Both give
the same bytes on the CPU, for any number of threads. Nothing but blocks is held in its memory.

Knows nothing about configurations, tokenizers or folders.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import resource
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from biomistral.errors import ModelError
from biomistral.merging import compiled, kernels
from biomistral.merging.compiled import Part, Work
from biomistral.merging.dropping import dropping_key
from biomistral.merging.jobs import Input, Job
from biomistral.models.safetensors_files import StoredTensor
from biomistral.workers import num_processors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from biomistral.merging.methods import Values

# Per thread; a tensor with more than its share of all elements is cut among the threads.
_SHARES_PER_THREAD = 4


def available_threads() -> int:
    """Return OMP_NUM_THREADS if it is set, else the number of processors this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(given) if given.isdecimal() and int(given) else num_processors()


@dataclass
class Engine:
    """What all jobs of a merge have in common. A context: files stay open within it."""

    seed: int  # of the random dropping
    threads: int = field(default_factory=available_threads)
    allow_non_finite: bool = False
    device: str = "cpu"  # of methods without compiled loops; the rest is reading and writing
    use_compiled: bool = True  # off: the functions of ``methods`` only, for comparison

    def __enter__(self) -> Self:
        _allow_many_files()
        self._stack = ExitStack()
        self._files: dict[tuple[Path, int], int] = {}
        self._lock = threading.Lock()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def run(self, jobs: Sequence[Job], places: Mapping[str, StoredTensor]) -> Iterator[Job]:
        """Do all jobs, each into its place; yield them as they are done.

        Raises ``ModelError`` if an input holds NaN or infinity or a result does not fit its type.
        """
        total = sum(job.output.num_elements for job in jobs)
        share = total / (self.threads * _SHARES_PER_THREAD)
        by_size = sorted(jobs, key=lambda job: -job.output.num_elements)
        large = [job for job in by_size if self._is_compiled(job) and _size(job) > share]
        done = set(map(id, large))
        small = [job for job in by_size if id(job) not in done]
        with self._calm_torch(jobs), ThreadPoolExecutor(self.threads) as pool:
            try:
                for job in large:
                    self._do(job, places[job.output.name], self.threads, pool.map)
                    yield job
                for job, _ in zip(
                    small,
                    pool.map(lambda job: self._do(job, places[job.output.name]), small),
                    strict=True,
                ):
                    yield job
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        self._stack.close()  # a checkpoint may have more files than a process may open
        self._files.clear()

    def _do(self, job: Job, place: StoredTensor, num_ranges: int = 1, run: Any = map) -> None:
        if not self._is_compiled(job):
            self._compute(job, place)
            return
        work = Work(_size(job), num_ranges, run)
        out = self._place(place, os.O_RDWR)
        try:
            _COMPILED[job.method](self, job, work, out)
        except OSError as error:
            if error.errno == errno.ENODATA:
                raise _too_short(job) from error
            raise
        self._judge(job, work.bad)

    # --- compiled ---------------------------------------------------------------------------------

    def _is_compiled(self, job: Job) -> bool:
        inputs = [*([job.base] if job.base else []), *job.inputs]
        return (
            self.use_compiled
            and job.method in _COMPILED
            and len(inputs) <= kernels.MAX_INPUTS - 2
            and all(i.update is None and i.rows is None for i in inputs)
            and {job.output.dtype, *(i.stored.dtype for i in inputs)} <= kernels.built_types()
        )

    def _place(self, stored: StoredTensor, flags: int = os.O_RDONLY) -> kernels.Place:
        return kernels.Place(
            self._open(stored.file, flags), kernels.TYPES[stored.dtype], stored.offset_bytes
        )

    def _open(self, path: Path, flags: int) -> int:
        with self._lock:
            if (path, flags) not in self._files:
                self._files[path, flags] = os.open(path, flags)
                self._stack.callback(os.close, self._files[path, flags])
            return self._files[path, flags]

    def _linear(self, job: Job, work: Work, out: kernels.Place) -> None:
        weights = [given.numbers.get("weight", 1.0) for given in job.inputs]
        divisor = math.fsum(weights) if job.options.get("normalize") else 1.0
        places = [self._place(given.stored) for given in job.inputs]
        compiled.linear(work, [*places, out], weights, divisor)

    def _slerp(self, job: Job, work: Work, out: kernels.Place) -> None:
        assert job.base is not None
        ends = [self._place(given.stored) for given in (job.base, job.inputs[0])]
        compiled.slerp(work, ends[0], ends[1], out, float(job.options["t"]))

    def _task_vectors(self, job: Job, work: Work, out: kernels.Place) -> None:
        assert job.base is not None
        parts = [
            Part(
                self._place(given.stored),
                weight=given.numbers.get("weight", 1.0),
                density=given.numbers.get("density", 1.0),
                key=dropping_key(self.seed, index, job.output.name),
            )
            for index, given in enumerate(job.inputs)
        ]
        compiled.task_vectors(
            work,
            self._place(job.base.stored),
            parts,
            out,
            sparsity=_SPARSITY[job.method],
            elect=job.method.endswith("ties"),
            normalize=bool(job.options["normalize"]),
            scale=float(job.options["scale"]),
            rescale=str(job.options.get("rescale", "none")),
        )

    def _judge(self, job: Job, bad: int) -> None:
        """Raise if the compiled loops met what must not be."""
        if not bad or self.allow_non_finite:
            return
        inputs = [*([job.base] if job.base else []), *job.inputs]
        for index, given in enumerate(inputs):
            if bad >> index & 1:
                raise _not_finite(given)
        raise _out_of_range(job)

    # --- with PyTorch -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _calm_torch(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Have PyTorch compute each job in the thread that does it, if it is needed at all.

        Sharing every operation among all threads means waiting for the slowest of them each time: on
        a busy machine of two cores that was ten times slower than one thread alone (measured).
        """
        if all(map(self._is_compiled, jobs)):
            yield
            return
        import torch

        from biomistral.models.mapped import MappedFiles

        self._mapped = MappedFiles()
        before = torch.get_num_threads()
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _compute(self, job: Job, place: StoredTensor) -> None:
        import torch

        torch.set_num_threads(1)
        try:
            self._compute_on(self.device, job, place)
        except torch.OutOfMemoryError:  # of the GPU; the CPU holds blocks, not tensors
            self._compute_on("cpu", job, place)

    def _compute_on(self, device: str, job: Job, place: StoredTensor) -> None:
        import torch

        from biomistral.merging.methods import METHODS, Share

        base = self._values(job.base, device) if job.base else None
        shares = [
            Share(
                self._values(given, device),
                key=dropping_key(self.seed, index, job.output.name),
                row_elements=job.output.shape[-1] if job.output.shape else 1,
                **given.numbers,
            )
            for index, given in enumerate(job.inputs)
        ]
        blocks = METHODS[job.method](base, shares, **job.options)
        self._write(job, blocks, place, getattr(torch, place.dtype))

    def _values(self, given: Input, device: str) -> Values:
        """Return the values of an input, (n,), with its adapter and in the rows of the output.

        On a CPU they are read when they are used, on a GPU at once.
        """
        values: Values
        if given.rows is not None:
            from biomistral.merging.vocabularies import MappedRows

            values = MappedRows(given.rows, self._mapped.read)
        elif given.update is not None:
            from biomistral.models.adapters import UpdatedValues

            values = UpdatedValues(given.stored, given.update, self._mapped.read)
        else:
            values = self._mapped.read(given.stored).reshape(-1)
        if device != "cpu":
            values = _moved(values, device)
        if not self.allow_non_finite and not _all_finite(values):
            raise _not_finite(given)
        return values

    def _write(
        self, job: Job, blocks: Iterable[Tensor], place: StoredTensor, dtype: torch.dtype
    ) -> None:
        """Round blocks to their type and write them to their place."""
        import torch

        file = self._open(place.file, os.O_RDWR)
        offset = place.offset_bytes
        for block in blocks:
            rounded = block.to(dtype)
            if not self.allow_non_finite and not _is_finite(rounded):
                raise _out_of_range(job)
            # Through bytes, for NumPy has no bfloat16.
            data = rounded.cpu().contiguous().view(torch.uint8).numpy().data
            while data:
                written = os.pwrite(file, data, offset)
                offset += written
                data = data[written:]
        assert offset == place.offset_bytes + place.num_bytes, f"{place.name}: too few values"


_COMPILED: dict[str, Callable[[Engine, Job, Work, kernels.Place], None]] = {
    "linear": Engine._linear,
    "passthrough": Engine._linear,
    "slerp": Engine._slerp,
    **dict.fromkeys(("task_arithmetic", "ties", "dare_linear", "dare_ties"), Engine._task_vectors),
}
_SPARSITY = {
    "task_arithmetic": kernels.KEEP_ALL,
    "ties": kernels.KEEP_LARGEST,
    "dare_linear": kernels.KEEP_RANDOM,
    "dare_ties": kernels.KEEP_RANDOM,
}


def _size(job: Job) -> int:
    return job.output.num_elements


def _moved(values: Values, device: str) -> Tensor:
    import torch

    from biomistral.merging.methods import places

    blocks = [values[place].to(device) for place in places(values)]
    return torch.cat(blocks) if blocks else torch.empty(0, device=device)


def _all_finite(values: Values) -> bool:
    from biomistral.merging.methods import places

    return all(_is_finite(values[place]) for place in places(values))


def _is_finite(values: Tensor) -> bool:
    """Whether there is no NaN or infinity: one in a sum stays, and a sum is quick to make."""
    import torch

    total = values.sum(dtype=torch.float32)
    return bool(total.isfinite()) or bool(values.isfinite().all())


def _not_finite(given: Input) -> ModelError:
    return ModelError(
        f"{given.stored.file}: {given.stored.name} holds NaN or infinity; the model is broken (a "
        "diverged training or a damaged copy): fetch it again, use another checkpoint, or allow "
        "it with --allow-non-finite"
    )


def _too_short(job: Job) -> ModelError:
    every = [given.stored for given in (job.base, *job.inputs) if given is not None]
    short = (s for s in every if s.file.stat().st_size < s.offset_bytes + s.num_bytes)
    stored = next(short, every[0])
    return ModelError(
        f"{stored.file}: ends before {job.output.name} does, so it was changed while it was read; "
        "merge again when nothing writes to it any more"
    )


def _allow_many_files() -> None:
    """Raise the number of files that this process may open as far as it may do so itself."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):  # macOS: unlimited is no number
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _out_of_range(job: Job) -> ModelError:
    remedy = "set smaller weights"
    if job.output.dtype == "float16":
        remedy = "set dtype: bfloat16 or float32, or smaller weights"
    return ModelError(
        f"merge: {job.output.name} has values beyond the range of {job.output.dtype}; {remedy}"
    )
