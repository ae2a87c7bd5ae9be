"""What a server does with a model, without HTTP: answers, texts read back, options weighed.

The engine lives in a thread of its own; requests live in an event loop. Between them each job has
its turn (``gate``), and a thread that carries its pieces over. Whoever goes away (a client that
disconnects, a request out of time) is a cancelled task here, and its job ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from biomistral.advisory import ADVISORY
from biomistral.errors import BiomistralError
from biomistral.models.continuations import TextEncoder
from biomistral.serving import replies
from biomistral.serving.failures import Failure, bad_value, stopping, too_slow
from biomistral.serving.gate import Gate
from biomistral.serving.tokens import TokenTexts

if TYPE_CHECKING:
    from biomistral.models.generating import Engine, Job, Piece
    from biomistral.models.sampling import Sampling
    from biomistral.serving.calibrating import Calibration
    from biomistral.serving.metrics import Metrics
    from biomistral.serving.panel import Panel

T = TypeVar("T")
_LOG = logging.getLogger("biomistral.serving")
# Jobs with the engine for each that it takes at once: the next is there when one is done.
_JOBS_PER_PLACE = 2


@dataclass(frozen=True)
class Model:
    """A model that is served, and what is known of it."""

    name: str
    tokenizer: Any
    engine: Engine
    num_embeddings: int
    has_chat_template: bool
    created: int
    facts: dict[str, Any]


class Service:
    """Answers requests with one model. Made in the event loop that uses it."""

    def __init__(
        self,
        model: Model,
        metrics: Metrics,
        *,
        max_batch: int,
        queue: int,
        timeout_seconds: float,
        calibration: Calibration | None = None,
        panel: Panel | None = None,
    ) -> None:
        self.model = model
        self.metrics = metrics
        self.calibration = calibration
        self.panel = panel
        self.timeout_seconds = timeout_seconds
        self.texts = TokenTexts(model.tokenizer)
        # A tokenizer is told for each text whether control tokens are to be found in it, and keeps
        # that: two threads with one tokenizer give each other's. So each user has a copy.
        self.encoder = TextEncoder(copy.deepcopy(model.tokenizer))  # of scoring, between steps
        self._tokenizer = copy.deepcopy(model.tokenizer)
        self._encoding = threading.Lock()
        self.gate = Gate(max_batch * _JOBS_PER_PLACE, queue)
        self._threads = ThreadPoolExecutor(self.gate.limit + 2, thread_name_prefix="serving")

    def close(self) -> None:
        """End the threads. The engine is stopped by whoever started it."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run what takes a moment beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def encode(self, work: Callable[[Any], T]) -> T:
        """Run ``work(tokenizer)`` beside the event loop, one at a time."""

        def run() -> T:
            with self._encoding:
                return work(self._tokenizer)

        return await self.in_thread(run)

    # --- answers ----------------------------------------------------------------------------------

    async def answers(
        self, jobs: Sequence[tuple[Sequence[int], Sampling]]
    ) -> AsyncGenerator[tuple[int, Piece]]:
        """Yield the pieces of the answers to several prompts as they come, each with its index.

        To be closed (``contextlib.aclosing``): what is still running then is cancelled. Raises
        ``Failure`` if there is no room or no time.
        """
        with ExitStack() as stack:
            stack.enter_context(self.gate.admit(len(jobs)))
            begun = time.monotonic()
            arrived: asyncio.Queue[tuple[int, Piece | BaseException]] = asyncio.Queue()
            started: set[int] = set()
            tasks = [
                asyncio.create_task(self._carry(index, ids, sampling, started, arrived))
                for index, (ids, sampling) in enumerate(jobs)
            ]
            is_first = True
            try:
                left = len(jobs)
                while left:
                    index, piece = await self._next(arrived, begun, started)
                    if isinstance(piece, BaseException):
                        raise _as_failure(piece)
                    if is_first:
                        self.metrics.observe("first_token_seconds", time.monotonic() - begun)
                        is_first = False
                    left -= piece.finish is not None
                    yield index, piece
            finally:
                for task in tasks:
                    task.cancel()

    async def _next(self, arrived: asyncio.Queue[T], begun: float, started: Collection[int]) -> T:
        # Not asyncio.wait_for: before Python 3.12 it forgets that it was cancelled if there is an item
        # in the same moment, and what a client left behind would run to its end.
        left = begun + self.timeout_seconds - time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                if left > 0:
                    return await arrived.get()
        self.metrics.add("timeouts_total")
        raise too_slow(self.timeout_seconds, started=bool(started))

    async def _carry(
        self,
        index: int,
        ids: Sequence[int],
        sampling: Sampling,
        started: set[int],
        arrived: asyncio.Queue[tuple[int, Piece | BaseException]],
    ) -> None:
        """Wait for a turn, hand a job to the engine, and put its pieces into ``arrived``."""
        loop = asyncio.get_running_loop()

        def put(item: Piece | BaseException) -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, (index, item))

        async with self.gate.slot():
            started.add(index)
            try:
                self._check_running()
                job = self.model.engine.submit(ids, sampling)
            except Exception as error:  # noqa: BLE001 - raised again where the request is
                arrived.put_nowait((index, error))
                return
            try:
                await loop.run_in_executor(self._threads, _pump, job, put)
            finally:
                job.cancel()  # nothing happens to a job that is done

    # --- work on the whole model ------------------------------------------------------------------

    async def between_steps(self, work: Callable[[Any], T]) -> T:
        """Run ``work(model)`` while the engine does not: it has its turn like any other job."""
        started = False

        async def run() -> T:
            nonlocal started
            async with self.gate.slot():
                started = True
                return await self.in_thread(lambda: self.model.engine.between_steps(work))

        with self.gate.admit(1):
            try:
                async with asyncio.timeout(self.timeout_seconds):
                    return await run()
            except TimeoutError:
                self.metrics.add("timeouts_total")
                raise too_slow(self.timeout_seconds, started=started) from None
            except BiomistralError as error:
                raise bad_value(str(error)) from error

    def _check_running(self) -> None:
        if not self.model.engine.is_running:
            raise stopping()

    # --- what is known -----------------------------------------------------------------------------

    def model_card(self) -> dict[str, Any]:
        """What the listing of models says of the one that is here."""
        calibration = self.calibration
        return replies.model_card(
            self.model.name,
            self.model.created,
            self.model.engine.room(0),
            chat=self.model.has_chat_template,
            calibration=calibration.words() if calibration else None,
            **self.model.facts,
        )

    def health(self) -> dict[str, Any]:
        """Whether answers are to be expected."""
        return {
            "status": "ok" if self.model.engine.is_running else "stopped",
            "model": self.model.name,
            "running": self.gate.running,
            "waiting": self.gate.waiting,
            "advisory": ADVISORY,
        }

    def metrics_text(self) -> str:
        """All numbers, for Prometheus."""
        stats = self.model.engine.stats()
        gauges = {
            "jobs_running": (self.gate.running, "Answers that are with the engine."),
            "jobs_waiting": (self.gate.waiting, "Answers that wait for their turn."),
            "jobs_waiting_limit": (self.gate.queue, "Most answers that may wait."),
            "sequences_running": (stats.running, "Sequences that are generated now."),
            "cache_tokens": (stats.cached_tokens, "Tokens that running sequences have room for."),
            "cache_tokens_limit": (stats.max_cached_tokens, "Most tokens for all of them."),
        }
        counts = {
            "prompt_tokens_total": stats.prompt_tokens,
            "prompt_tokens_reused_total": stats.reused_tokens,
            "generated_tokens_total": stats.generated_tokens,
            "jobs_sent_back_total": stats.sent_back,
            "jobs_finished_total": stats.finished,
        }
        return self.metrics.text(gauges, counts)

    def log_failure(self) -> None:
        """Write the error that is being handled to the log."""
        _LOG.exception("a request failed")

    # --- checks -----------------------------------------------------------------------------------

    def check_model(self, name: str | None) -> None:
        """Raise ``Failure`` (404) unless a request means the model that is here."""
        if name not in {None, self.model.name}:
            raise Failure(
                404,
                f"the model {name!r} is not here; this server has {self.model.name!r}",
                kind="not_found_error",
                param="model",
                code="model_not_found",
            )

    def room_for(self, ids: Sequence[int], max_tokens: int | None, field: str) -> int:
        """Tokens that may be generated behind a prompt; raises ``Failure`` if it does not fit.

        ``field`` is what the prompt is called in the request.
        """
        if not ids:
            raise bad_value("the prompt is empty and this model has no token to begin with", field)
        if max(ids) >= self.model.num_embeddings:
            raise bad_value(
                f"the prompt has the token id {max(ids)}, and this model's last is "
                f"{self.model.num_embeddings - 1}",
                field,
            )
        room = self.model.engine.room(len(ids))
        wanted = max(1, room) if max_tokens is None else max_tokens
        if wanted > room:
            remedy = "shorten the prompt or lower max_tokens" if room > 0 else "shorten the prompt"
            raise bad_value(
                f"the prompt has {len(ids)} tokens and {wanted} are to follow; together at most "
                f"{len(ids) + room} fit into this model's context; {remedy}",
                field if max_tokens is None or room <= 0 else "max_tokens",
                "context_length_exceeded",
            )
        return wanted


def _pump(job: Job, put: Callable[[Piece | BaseException], None]) -> None:
    """Carry the pieces of a job over, and what went wrong if something did."""
    try:
        for piece in job.pieces():
            put(piece)
    except BaseException as error:  # noqa: BLE001 - raised again where the request is
        put(error)


def _as_failure(error: BaseException) -> BaseException:
    """What a client can mend as its status 400; anything else as it is, which becomes a 500."""
    return bad_value(str(error)) if isinstance(error, BiomistralError) else error
