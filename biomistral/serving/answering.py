"""From a request to its reply: completions, chats, and texts read back. Knows no HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from biomistral.errors import BiomistralError
from biomistral.models.conversations import conversation_ids, plain_ids
from biomistral.models.echoing import Echo, echo
from biomistral.serving import replies
from biomistral.serving.failures import Failure, bad_value, broken, stopping
from biomistral.serving.replies import Answer, Head, Token
from biomistral.serving.requests import ChatBody, CompletionBody

if TYPE_CHECKING:
    from biomistral.models.generating import Piece
    from biomistral.models.sampling import Sampling
    from biomistral.serving.service import Service

_LEAST_TOPS = 1  # so that a reader sees whether a token was the likeliest


@dataclass(frozen=True)
class Asked:
    """What is to be generated: for each answer, in order, a prompt and how it is drawn."""

    head: Head
    jobs: list[tuple[list[int], Sampling]]
    prompts: list[list[int]]  # each once
    wants_usage: bool

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompts, each counted once whatever the number of its answers."""
        return sum(map(len, self.prompts))


# --- completions ----------------------------------------------------------------------------------


async def ask_completion(service: Service, body: CompletionBody) -> Asked:
    """Encode and check what is asked for; raises ``Failure``."""
    service.check_model(body.model)
    ids = await service.encode(lambda tokenizer: [_ids(tokenizer, each) for each in body.prompts])
    num_tops = 0 if body.logprobs is None else max(_LEAST_TOPS, body.logprobs)
    jobs = []
    for prompt in ids:
        room = service.room_for(prompt, body.max_tokens, "prompt")
        if room:
            jobs += [(prompt, body.sampling(room, num_tops, index)) for index in range(body.n)]
    head = replies.head("cmpl", "text_completion", service.model.name)
    return Asked(head, jobs, ids, body.wants_usage)


async def complete(service: Service, body: CompletionBody) -> dict[str, Any]:
    """Reply to a completion that is not streamed."""
    asked = await ask_completion(service, body)
    echoes: list[Echo] = []
    if body.echo and body.logprobs is not None:
        num_tops = max(_LEAST_TOPS, body.logprobs)
        echoes = await service.between_steps(
            partial(echo, sequences=asked.prompts, num_tops=num_tops)
        )
    if echoes and _is_one_greedy_token(body):
        answers = [_next_token(service, read) for read in echoes]  # it has been computed
    elif asked.jobs:
        answers = await collect(service, asked.jobs)
    else:
        answers = [Answer(finish="length") for _ in range(len(asked.prompts) * body.n)]
    choices = []
    for index, answer in enumerate(answers):
        place = index // body.n
        prompt = asked.prompts[place]
        told = [*_echoed(prompt, echoes[place]), *answer.tokens] if echoes else answer.tokens
        text = (
            await service.in_thread(partial(_echo_text, service, body, place)) if body.echo else ""
        )
        listed = None
        if body.logprobs is not None:
            listed = replies.old_logprobs(service.texts, told, body.logprobs, echoed=bool(echoes))
        choices.append(_completion(index, text + answer.text, listed, answer.finish))
    completion_tokens = sum(len(answer.tokens) for answer in answers)
    return asked.head.body(choices, usage=replies.usage(asked.num_prompt_tokens, completion_tokens))


async def stream_completion(
    service: Service, body: CompletionBody, asked: Asked
) -> AsyncGenerator[bytes]:
    """The parts of a streamed completion."""
    offsets = [0] * len(asked.jobs)

    def part(index: int, piece: Piece) -> dict[str, Any]:
        listed = None
        if body.logprobs is not None:
            told = _told(piece)
            listed = replies.old_logprobs(service.texts, told, body.logprobs, start=offsets[index])
        offsets[index] += len(piece.text)
        return _completion(index, piece.text, listed, _finish(piece))

    async for chunk in _stream(service, asked, part):
        yield chunk


def _is_one_greedy_token(body: CompletionBody) -> bool:
    plain = body.repetition_penalty in {None, 1.0} and not body.stop and not body.ignore_eos
    return (body.max_tokens, body.temperature, body.n) == (1, 0, 1) and plain


def _completion(index: int, text: str, listed: Any, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": listed, "finish_reason": finish}


def _ids(tokenizer: Any, prompt: str | Sequence[int]) -> list[int]:
    if isinstance(prompt, str):
        return plain_ids(tokenizer, prompt)
    return list(prompt)


def _echoed(prompt: Sequence[int], read: Echo) -> list[Token]:
    return [Token(*one) for one in zip(prompt, read.logprobs, read.tops, strict=True)]


def _echo_text(service: Service, body: CompletionBody, place: int) -> str:
    prompt = body.prompts[place]
    if isinstance(prompt, str):
        return prompt
    text: str = service.model.tokenizer.decode(
        prompt, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text


def _next_token(service: Service, read: Echo) -> Answer:
    """The likeliest token behind a text that was read back, as an answer of one token."""
    token, logprob = read.following[0]
    is_end = token == service.model.tokenizer.eos_token_id
    text = "" if service.texts.is_control(token) else service.texts.text(token)
    return Answer(text, [Token(token, logprob, read.following)], "stop" if is_end else "length")


# --- chats ----------------------------------------------------------------------------------------


async def ask_chat(service: Service, body: ChatBody) -> Asked:
    """Encode and check what is asked for; raises ``Failure``."""
    service.check_model(body.model)
    messages = [message.as_text() for message in body.messages]
    name = service.model.name
    try:
        ids = await service.encode(lambda one: conversation_ids(one, messages, where=name))
    except BiomistralError as error:
        raise bad_value(str(error), "messages") from None
    room = service.room_for(ids, body.most_tokens, "messages")
    num_tops = max(_LEAST_TOPS, body.top_logprobs or 0) if body.logprobs else 0
    jobs = [(ids, body.sampling(room, num_tops, index)) for index in range(body.n)]
    head = replies.head("chatcmpl", "chat.completion", service.model.name)
    return Asked(head, jobs, [ids], body.wants_usage)


async def chat(service: Service, body: ChatBody) -> dict[str, Any]:
    """Reply to a chat that is not streamed."""
    asked = await ask_chat(service, body)
    answers = await collect(service, asked.jobs)
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": _chat_logprobs(service, body, answer.tokens),
            "finish_reason": answer.finish,
        }
        for index, answer in enumerate(answers)
    ]
    completion_tokens = sum(len(answer.tokens) for answer in answers)
    return asked.head.body(choices, usage=replies.usage(asked.num_prompt_tokens, completion_tokens))


async def stream_chat(service: Service, body: ChatBody, asked: Asked) -> AsyncGenerator[bytes]:
    """The parts of a streamed chat."""
    begun: set[int] = set()

    def part(index: int, piece: Piece) -> dict[str, Any]:
        delta: dict[str, Any] = {} if index in begun else {"role": "assistant"}
        begun.add(index)
        delta |= {"content": piece.text} if piece.text or not piece.finish else {}
        listed = _chat_logprobs(service, body, _told(piece))
        return {"index": index, "delta": delta, "logprobs": listed, "finish_reason": _finish(piece)}

    async for chunk in _stream(service, asked, part):
        yield chunk


def _chat_logprobs(service: Service, body: ChatBody, tokens: Sequence[Token]) -> Any:
    if not body.logprobs:
        return None
    return replies.chat_logprobs(service.texts, tokens, body.top_logprobs or 0)


# --- both -----------------------------------------------------------------------------------------


async def collect(service: Service, jobs: Sequence[tuple[Sequence[int], Sampling]]) -> list[Answer]:
    """Wait for whole answers."""
    answers = [Answer() for _ in jobs]
    async with contextlib.aclosing(service.answers(jobs)) as pieces:
        async for index, piece in pieces:
            _refuse_cancelled(piece)
            token = _told(piece)
            answers[index].add(piece.text, token[0] if token else None, _finish(piece))
    return answers


async def _stream(service: Service, asked: Asked, part: Any) -> AsyncGenerator[bytes]:
    """All events of a stream; what goes wrong once it has begun is an event, too."""
    kind = asked.head.object.removesuffix(".chunk")
    kind += ".chunk" if kind == "chat.completion" else ""
    head = Head(asked.head.id, kind, asked.head.created, asked.head.model)
    more = {"usage": None} if asked.wants_usage else {}
    num_tokens, has_begun = 0, False
    try:
        async with contextlib.aclosing(service.answers(asked.jobs)) as pieces:
            async for index, piece in pieces:
                _refuse_cancelled(piece)
                num_tokens += piece.token_id is not None
                yield replies.event(head.body([part(index, piece)], **more))
                has_begun = True
        if asked.wants_usage:
            used = replies.usage(asked.num_prompt_tokens, num_tokens)
            yield replies.event(head.body([], usage=used))
    except Failure as failure:
        if not has_begun:
            raise
        yield replies.event(failure.body())
    except Exception:
        if not has_begun:
            raise
        service.log_failure()
        yield replies.event(broken().body())
    yield replies.DONE


def _told(piece: Piece) -> list[Token]:
    return [] if piece.token_id is None else [Token(piece.token_id, piece.logprob, piece.top)]


def _finish(piece: Piece) -> str | None:
    return piece.finish


def _refuse_cancelled(piece: Piece) -> None:
    """Nobody cancels a job whose answer is waited for but a server that stops."""
    if piece.finish == "cancelled":
        raise stopping()
