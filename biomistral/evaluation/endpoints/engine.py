"""A served model as an engine of evaluation: what ``evaluation.engine`` asks of one.

What the server gives is tried out with the first question there is, best first: log-probabilities of
a completion, of a chat, then words. What it gave is kept with the answers, so that a run that goes on
asks nothing twice and mixes no two ways. How replies are read is in ``replies``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomistral import artifacts
from biomistral.errors import ModelError
from biomistral.evaluation.endpoints import replies
from biomistral.evaluation.endpoints.replies import Answer, Mode, Reply
from biomistral.models.endpoints.answers import Answers
from biomistral.models.endpoints.asking import Asker, Call, call
from biomistral.models.endpoints.client import Client, Refused, is_about_content
from biomistral.models.endpoints.cost import Estimate, check, estimate, token_counter
from biomistral.models.endpoints.pace import Pace
from biomistral.progress import Progress, ignore
from biomistral.records import UNSAID, Request

if TYPE_CHECKING:
    import pyarrow as pa

    from biomistral.models.scoring import OnBatch, Scored
    from biomistral.recipe.endpoints import EndpointModel

VERSION = 1  # raised when the same replies are read otherwise, or other ones are asked for
# What a status can mean that says "not this way" and nothing about the key or the load.
_NOT_THIS_WAY = {400, 404, 405, 415, 422, 501}
_FEWER_TOPS = 5  # most that the oldest servers list
_PROBE = Request(
    "probe", "probe", "en", 0, 0, "letter",
    "**Question:** Which of these is a fruit? \n (A) apple \n (B) stone \n **Answer:**(",
    ("A", "B"), 0,
)  # fmt: skip


class EndpointEngine:
    """One model at one endpoint; ``folder`` is where its replies are kept."""

    def __init__(self, settings: EndpointModel, folder: Path) -> None:
        self._settings = settings
        self._asked = settings.of_answers()
        name = f"endpoint-{artifacts.digest_of([settings.endpoint, settings.model])[:16]}.jsonl"
        self._answers = Answers(folder / name)
        self._count = token_counter(settings)
        self._asker = Asker(settings, self._answers, self._count, Reply)
        self._mode_key = artifacts.digest_of(["mode", VERSION, self._asked])
        self._mode: Mode | None = None

    def facts(self) -> Mapping[str, Any]:
        """What is sent besides the questions, and which of its ways the server was asked by."""
        asked = {**self._asked, "mode": list(self.mode())}
        return {"engine": "endpoint", "version": VERSION, **asked}

    @property
    def context_tokens(self) -> int | None:
        """As the settings say: servers do not tell."""
        return self._settings.context_tokens

    def too_long(self, requests: Sequence[Request]) -> dict[int, int]:
        """Tokens of the prompts that are longer than the settings allow, by their index."""
        limit = self.context_tokens
        if limit is None:
            return {}
        longest = (
            self._count(request.prompt + max(request.continuations, key=len))
            for request in requests
        )
        return {index: length for index, length in enumerate(longest) if length > limit}

    def mode(self) -> Mode:
        """How the server is asked, tried out the first time.

        Raises ``ModelError`` if it can be asked in none of the ways of the settings.
        """
        if self._mode is None:
            if self._mode_key not in self._answers:
                self._answers.add(self._mode_key, list(self._find_mode()))
            self._mode = Mode(*self._answers[self._mode_key])
        return self._mode

    def expect(self, requests: Sequence[Request]) -> Estimate:
        """Estimate what is left to ask; raises ``ModelError`` if it is above ``max_cost``."""
        calls = {c.key: c for request in requests for c in self._calls(request)}
        left = [item.body for key, item in calls.items() if key not in self._answers]
        expected = estimate(left, self._settings, self._count)
        check(expected, self._settings)
        return expected

    def foresee(self, requests: Sequence[Request]) -> Estimate:
        """Estimate the same without a word to the server, nor a check of the bound.

        Of a server that was never asked, answers in words are expected, which are the longest.
        """
        calls: dict[str, Call[Reply]] = {}
        for request in requests:
            calls |= {c.key: c for c in self._calls(request, self._likely_mode(request))}
        left = [item.body for key, item in calls.items() if key not in self._answers]
        return estimate(left, self._settings, self._count)

    def _likely_mode(self, request: Request) -> Mode:
        if self._mode_key in self._answers:
            return self.mode()
        if request.scoring == "cloze":
            return Mode("completions", self._settings.top_logprobs or 1)
        return Mode("completions" if self._settings.api == "completions" else "chat", 0)

    def score(
        self, requests: Sequence[Request], *, keep: OnBatch, progress: Progress
    ) -> dict[str, int | None]:
        """Answer requests, each handed to ``keep`` as soon as its replies are there."""
        waiting: dict[str, list[int]] = {}  # key of a call -> requests that need it
        missing: dict[int, int] = {}  # request -> calls without reply
        calls: list[Call[Reply]] = []
        for index, request in enumerate(requests):
            asked = {c.key: c for c in self._calls(request) if c.key not in self._answers}
            calls += asked.values()
            missing[index] = len(asked)
            for key in asked:
                waiting.setdefault(key, []).append(index)
        ready = [index for index, number in missing.items() if not number]
        self._hand_over(requests, ready, keep)
        done = len(ready)
        for answered in self._asker.ask(calls):
            for index in waiting[answered.key]:
                missing[index] -= 1
                if not missing[index]:
                    self._hand_over(requests, [index], keep)
                    done += 1
                    progress(done, len(requests), "questions")
        return {"prompt_tokens": self._used(requests), "forward_tokens": None}

    def _hand_over(
        self, requests: Sequence[Request], indices: Sequence[int], keep: OnBatch
    ) -> None:
        if indices:
            found = [self._answer(requests[index]) for index in indices]
            keep(list(indices), [a.logprobs for a in found], [a.top for a in found])

    def _answer(self, request: Request) -> Answer:
        found = [self._reply(c) for c in self._calls(request)]
        if request.scoring != "cloze":
            published = request.scoring == "published"
            return replies.letter_answer(found[0], request.continuations, published=published)
        pairs = zip(found, request.continuations, strict=True)
        return Answer(tuple(replies.cloze_logprob(r, request.prompt, text) for r, text in pairs))

    def _reply(self, item: Call[Reply]) -> Reply:
        if item.key in self._asker.refused:
            return Reply("", [], [])  # as if it had answered with no letter
        reply = self._asker.kept(item.key)
        assert reply is not None, "asked for before it was there"
        return reply

    def _calls(self, request: Request, mode: Mode | None = None) -> Iterator[Call[Reply]]:
        """The requests to send for one question: one for letters, one per choice for cloze."""
        mode = mode or self.mode()
        if request.scoring != "cloze":
            yield self._question(request, mode)
            return
        if mode.api != "completions" or not mode.num_tops:
            raise self._no_cloze("it gives no log-probabilities of completions")
        for text in request.continuations:
            yield self._echo(request.prompt, text)

    def _question(self, request: Request, mode: Mode) -> Call[Reply]:
        body = replies.question_body(self._settings, mode, request.prompt)
        read = partial(replies.read_reply, mode.api)
        return call(self._settings, replies.PATHS[mode.api], body, read, is_about_content)

    def _echo(self, prompt: str, continuation: str) -> Call[Reply]:
        def read(data: Any) -> Reply:
            reply = replies.read_reply("completions", data)
            if not reply.echoed:
                raise self._no_cloze("it does not read prompts back (echo)")
            replies.cloze_logprob(reply, prompt, continuation)
            return dataclasses.replace(reply, tokens=[], text="")

        body = replies.echo_body(self._settings, prompt + continuation)
        return call(self._settings, replies.PATHS["completions"], body, read)

    def _no_cloze(self, why: str) -> ModelError:
        return ModelError(
            f"{self._settings.endpoint}: cloze scoring needs the log-probabilities of a text that is "
            f"sent, and {why}; use scoring: letter"
        )

    def _find_mode(self) -> Mode:
        """Try the ways of asking, best first; the first that gives log-probabilities is taken."""
        client = Client(self._settings, Pace())
        in_words: Mode | None = None
        refusals: list[str] = []
        for mode in _modes(self._settings):
            if in_words is not None and not mode.num_tops:
                continue
            probe = self._question(_PROBE, mode)
            try:
                reply = client.post(probe.path, probe.body, probe.read, 0)
            except Refused as error:
                if error.status not in _NOT_THIS_WAY:
                    raise
                refusals.append(str(error))
                continue
            if mode.num_tops and any(tops for _, tops in reply.tokens):
                return mode
            # The chat is first choice for words: it comes later, and replaces the completion.
            in_words = Mode(mode.api, 0)
        if in_words is None:
            raise ModelError(
                f"{self._settings.endpoint}: a first question was refused in every way; the last: "
                f"{refusals[-1]}"
            )
        return in_words

    def _used(self, requests: Sequence[Request]) -> int | None:
        """Prompt tokens by the server's own count."""
        counts = [self._reply(c).num_prompt_tokens for r in requests for c in self._calls(r)]
        return None if None in counts else sum(count or 0 for count in counts)


def _modes(settings: EndpointModel) -> Iterator[Mode]:
    apis: tuple[replies.Api, ...] = ("completions", "chat")
    chosen = apis if settings.api == "auto" else (settings.api,)
    numbers = dict.fromkeys([settings.top_logprobs, min(settings.top_logprobs, _FEWER_TOPS)])
    for api in chosen:
        yield from (Mode(api, number) for number in numbers if number)
    yield from (Mode(api, 0) for api in reversed(chosen))


def in_words(tables: Sequence[pa.Table]) -> dict[str, int]:
    """Count the answers of predictions that have no probability: in words, and none at all."""
    rows = [row for table in tables for row in table["logprobs"].to_pylist()]
    said = [row for row in rows if UNSAID in row]
    return {"answers": len(said), "without_a_letter": sum(max(row) == UNSAID for row in said)}


def score_endpoint(
    settings: EndpointModel,
    requests: Sequence[Request],
    folder: Path,
    *,
    progress: Progress = ignore,
    tell: Callable[[str], None] = lambda _: None,
) -> Scored:
    """Score requests as ``models.scoring.score_requests`` does a local model.

    Replies are kept in ``folder``, and those kept there are not asked again. ``tell`` is given the
    estimate of the cost, before anything but a first try is sent.

    Raises ``ModelError`` if the estimate is above ``max_cost``, or a request fails for good.
    """
    from biomistral.models.scoring import Scored

    if not requests:
        return Scored([], 0, 0)
    engine = EndpointEngine(settings, folder)
    tell(engine.expect(requests).words)
    logprobs: list[tuple[float, ...]] = [()] * len(requests)
    tops = [""] * len(requests)

    def keep(
        indices: Sequence[int], rows: Sequence[tuple[float, ...]], best: Sequence[str]
    ) -> None:
        for index, row, top in zip(indices, rows, best, strict=True):
            logprobs[index], tops[index] = row, top

    cost = engine.score(requests, keep=keep, progress=progress)
    return Scored(logprobs, cost["prompt_tokens"] or 0, 0, tops)
