"""Generate text for many at once: sequences come and go at every step of one loop.

    engine = Engine(load_model(path), load_tokenizer(path))
    engine.start()
    for piece in engine.submit(prompt_ids, Sampling(max_new_tokens=100)).pieces():
        print(piece.text, end="")

A step runs one piece of the oldest prompt that is not read yet, then the next token of every
sequence whose prompt is. A new sequence waits until one of ``max_batch`` places is free and its
prompt fits into ``max_tokens``, first come first served. Answers are given room as they grow
(``admission``); where there is too little for all, the last that came gives up its place, waits, and
is run again up to where it was. The first always goes on, so all come to their end. What a prompt has in common with that of another, running or lately ended, is taken over in
whole pieces and not run again.

On a CPU, for the models that ``packed`` knows, an answer is the same bits whatever else is run. The
log-probabilities are those of the bare model, before temperature and penalties. Prompts are token
ids (``conversations`` makes them); knows nothing about chat, servers or terminals.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch

from biomistral.errors import InputError, ModelError
from biomistral.models.admission import Claim, check_length, may_begin
from biomistral.models.continuations import TextEncoder, common_length
from biomistral.models.control_tokens import end_ids
from biomistral.models.decoding import Cache, decoder_of
from biomistral.models.fair_lock import FairLock
from biomistral.models.jobs import Finish, Job, Piece
from biomistral.models.memory import free_memory_bytes
from biomistral.models.sampling import Sampling
from biomistral.models.scoring import Scored, score_requests
from biomistral.records import Request

T = TypeVar("T")

__all__ = ["Engine", "Finish", "Job", "Piece", "Sampling", "Stats"]

# Of the memory that is free when the engine is made, what caches may take.
_MEMORY_FRACTION = 0.5
_MOST_KEPT = 16  # caches of ended sequences


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters since the engine was made, and what it is doing."""

    queued: int
    running: int
    finished: int  # cancelled and failed ones included
    prompt_tokens: int
    reused_tokens: int  # of the prompt tokens, those taken over from another sequence
    generated_tokens: int
    sent_back: int  # times that a sequence gave up its place to an older one
    cached_tokens: int  # that the sequences now running have room for
    max_cached_tokens: int


@dataclass
class _Running:
    """A job that has a place."""

    job: Job
    cache: Cache
    num_read: int  # of its prompt
    num_held: int  # tokens that its cache has room for

    @property
    def claim(self) -> Claim:
        return Claim(self.num_held, self.job.num_tokens)


@dataclass
class _Counters:
    finished: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    sent_back: int = 0


@dataclass
class _Kept:
    """The beginning of a prompt whose sequence has ended."""

    tokens: list[int]
    cache: Cache


class Engine:
    """Runs the jobs of one model; its methods may be called from any thread.

    ``max_batch`` bounds the sequences that run together, ``max_tokens`` the tokens, prompts included,
    that there is room for (default: what half of the free memory holds).
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, max_batch: int = 8, max_tokens: int | None = None
    ) -> None:
        if max_batch < 1 or (max_tokens is not None and max_tokens < 2):
            raise InputError(
                f"generation: max_batch is {max_batch}, max_tokens {max_tokens}; wanted are at least "
                "1 sequence and 2 tokens"
            )
        self._model = model
        self._tokenizer = tokenizer
        self._decoder = decoder_of(model)
        self._max_batch = max_batch
        self.context_tokens: int = getattr(model.config, "max_position_embeddings", None) or 2**31
        self._max_tokens = max_tokens or self._default_tokens()
        self._eos = end_ids(model, tokenizer)
        self._work = FairLock()  # held by whoever uses the model
        self._changed = threading.Condition()  # guards what follows
        self._queue: deque[Job] = deque()
        self._running: list[_Running] = []
        self._kept: list[_Kept] = []  # oldest first
        self._counters = _Counters()
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._encoder: TextEncoder | None = None

    # --- for callers ------------------------------------------------------------------------------

    def submit(self, prompt_ids: Sequence[int], sampling: Sampling) -> Job:
        """Queue a prompt. Raises ``InputError`` if it is empty, has no room or unknown ids."""
        self._check(prompt_ids, sampling)
        job = Job(prompt_ids, sampling, self._tokenizer)
        with self._changed:
            if self._is_stopping:
                raise InputError("generation: the engine is being stopped; nothing new is taken")
            self._queue.append(job)
            self._changed.notify_all()
        return job

    def room(self, num_prompt_tokens: int) -> int:
        """How many tokens an answer may have behind a prompt of this length; 0 or less: none."""
        return min(self.context_tokens, self._max_tokens) - num_prompt_tokens

    def score(self, requests: Sequence[Request]) -> Scored:
        """Score requests as evaluation does, between two steps; see ``scoring``."""
        with self._work:
            self._encoder = self._encoder or TextEncoder(self._tokenizer)
            return score_requests(self._model, self._encoder, requests)

    def between_steps(self, work: Callable[[Any], T]) -> T:
        """Return ``work(model)``, run between two steps: for what no method here does."""
        with self._work:
            return work(self._model)

    @property
    def is_running(self) -> bool:
        """Whether the thread of ``start`` is there and takes jobs."""
        return self._thread is not None and self._thread.is_alive() and not self._is_stopping

    def stats(self) -> Stats:
        """Count what was done and is being done."""
        with self._changed:
            return Stats(
                queued=len(self._queue),
                running=len(self._running),
                **dataclasses.asdict(self._counters),
                cached_tokens=self._num_held(),
                max_cached_tokens=self._max_tokens,
            )

    def start(self) -> None:
        """Run steps in a thread of its own until ``stop``."""
        with self._changed:
            if self._thread is not None:
                return
            self._is_stopping = False
            self._thread = threading.Thread(target=self._loop, name="generation", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Cancel all jobs and end the thread."""
        with self._changed:
            self._is_stopping = True
            for job in [*self._queue, *(each.job for each in self._running)]:
                job.cancel()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.step()  # tells the jobs
        self._is_stopping = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    # --- the loop ---------------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_stopping or self._queue or self._running)
                if self._is_stopping:
                    return
            self.step()

    @torch.inference_mode()
    def step(self) -> bool:
        """Run one piece of a prompt and one token of each sequence; return if there was any."""
        with self._work:
            self._drop_cancelled()
            self._admit()
            if not self._running:
                return False
            try:
                self._read_on()
                self._advance()
            except Exception as error:  # noqa: BLE001 - whoever waits for an answer is told
                self._fail(error)
            return True

    def _drop_cancelled(self) -> None:
        with self._changed:
            queued = [job for job in self._queue if job.is_cancelled]
            for job in queued:
                self._queue.remove(job)
                job.end()
            self._counters.finished += len(queued)
        for each in [each for each in self._running if each.job.is_cancelled]:
            self._retire(each)
            each.job.end()

    def _admit(self) -> None:
        """Give places to the jobs that came first, as long as there is one and room for it."""
        with self._changed:
            while self._queue and len(self._running) < self._max_batch:
                job = self._queue[0]
                first = Claim(job.num_known, job.num_tokens).grown()
                if not may_begin(self._max_tokens, first, [e.claim for e in self._running]):
                    return
                self._queue.popleft()
                self._make_room(first)
                try:
                    self._running.append(self._placed(job, first))
                except RuntimeError as error:  # no memory
                    self._counters.finished += 1
                    job.end(error)

    def _num_held(self) -> int:
        return sum(each.num_held for each in self._running)

    def _has_room(self, each: _Running) -> bool:
        """Whether a sequence can go on by a token: its room grows if it has to and can."""
        if each not in self._running:  # it gave up its place
            return False
        if each.cache.length < each.num_held:
            return True
        wanted = each.claim.grown()
        more = wanted - each.num_held
        while self._num_held() + more > self._max_tokens:
            if self._running[-1] is each:
                return False
            self._send_back(self._running[-1])
        self._make_room(more)
        try:
            self._decoder.grow(each.cache, wanted)
        except RuntimeError as error:  # no memory
            self._retire(each)
            each.job.end(error)
            return False
        each.num_held = wanted
        return True

    def _send_back(self, each: _Running) -> None:
        """Take the place of a sequence and let it wait before all others."""
        with self._changed:
            self._running.remove(each)
            self._queue.appendleft(each.job)
        self._counters.sent_back += 1

    def _placed(self, job: Job, room: int) -> _Running:
        """Give a job its cache, with what another prompt that begins alike has already."""
        known: list[tuple[list[int], Cache]] = [(kept.tokens, kept.cache) for kept in self._kept]
        known += [(each.job.prompt, each.cache) for each in self._running]
        shared, like = 0, None
        for tokens, cache in known:
            # At least the last token is run, for there the answer begins.
            length = min(common_length(tokens, job.prompt), cache.whole, len(job.prompt) - 1)
            length -= length % self._decoder.piece_tokens
            if length > shared:
                shared, like = length, cache
        cache = self._decoder.new_cache(room, like, shared)
        self._counters.prompt_tokens += len(job.prompt)
        self._counters.reused_tokens += shared
        return _Running(job, cache, shared, room)

    def _make_room(self, more: int) -> None:
        """Forget what ended long ago, so that all stays within the bound."""
        bound = self._max_tokens - self._num_held() - more
        while self._kept and sum(len(kept.tokens) for kept in self._kept) > bound:
            self._kept.pop(0)

    def _read_on(self) -> None:
        """Run the next piece of the oldest prompt that is not read to its end."""
        each = next((e for e in self._running if e.num_read < len(e.job.prompt)), None)
        if each is None:
            return
        prompt = each.job.prompt
        size = self._decoder.piece_tokens
        end = min(each.num_read + size, len(prompt))
        wanted = end == len(prompt)
        logits = self._decoder.extend(each.cache, prompt[each.num_read : end], wanted=wanted)
        each.num_read = end
        if logits is not None and not each.job.generated:
            self._take(each, logits[0].cpu().numpy())

    def _advance(self) -> None:
        """Run the next token of every sequence whose prompt is read and that has room."""
        ready = [each for each in self._running if each.num_read == len(each.job.prompt)]
        ready = [each for each in ready if self._has_room(each)]
        if not ready:
            return
        places = [each.cache.length - len(each.job.prompt) for each in ready]
        tokens = [each.job.generated[place] for each, place in zip(ready, places, strict=True)]
        rows = self._decoder.advance([each.cache for each in ready], tokens).cpu().numpy()
        for each, place, logits in zip(ready, places, rows, strict=True):
            if place == len(each.job.generated) - 1:  # else it was run before
                self._take(each, logits)

    def _take(self, each: _Running, logits: Any) -> None:
        try:
            is_last = each.job.take(logits, self._eos)
        except ModelError as error:
            self._retire(each)
            each.job.end(error)
            return
        self._counters.generated_tokens += 1
        if is_last:
            self._retire(each)

    def _retire(self, each: _Running) -> None:
        """Free a place; keep the whole pieces of its prompt for the next one that begins alike."""
        whole = each.cache.whole
        with self._changed:
            self._running.remove(each)
            self._counters.finished += 1
        if whole:
            self._keep(each.job.prompt[:whole], each.cache)

    def _keep(self, tokens: list[int], cache: Cache) -> None:
        self._kept = [kept for kept in self._kept if kept.tokens != tokens[: len(kept.tokens)]]
        self._kept = self._kept[-(_MOST_KEPT - 1) :]
        try:
            copy = self._decoder.new_cache(len(tokens), cache, len(tokens))
        except RuntimeError:  # no memory: it can be done without
            self._kept.clear()
            return
        self._kept.append(_Kept(tokens, copy))
        self._make_room(0)

    def _fail(self, error: Exception) -> None:
        """End all that run: after an error in the model no cache can be relied on."""
        for each in list(self._running):
            with self._changed:
                self._running.remove(each)
                self._counters.finished += 1
            each.job.end(error)
        self._kept.clear()

    # --- what fits --------------------------------------------------------------------------------

    def _default_tokens(self) -> int:
        most = self._max_batch * self.context_tokens
        if not self._decoder.bytes_per_token:
            return most
        free = free_memory_bytes(self._model.device) * _MEMORY_FRACTION
        return max(2, min(most, int(free / self._decoder.bytes_per_token)))

    def _check(self, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        if not prompt_ids:
            raise InputError("generation: the prompt is empty; it needs at least one token")
        num_embeddings = self._model.get_input_embeddings().weight.shape[0]
        if not 0 <= min(prompt_ids) <= max(prompt_ids) < num_embeddings:
            raise InputError(
                f"generation: the prompt has token ids from {min(prompt_ids)} to {max(prompt_ids)}; "
                f"the model's embedding has 0 to {num_embeddings - 1}: use the tokenizer that "
                "belongs to this model"
            )
        check_length(
            len(prompt_ids),
            sampling.max_new_tokens,
            context_tokens=self.context_tokens,
            max_tokens=self._max_tokens,
        )
