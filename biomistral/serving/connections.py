"""Clients that go away: what runs for them ends. Knows nothing about what that is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

T = TypeVar("T")


class Gone(Exception):  # noqa: N818
    """The client has disconnected; nobody reads an answer."""


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, or cancel it and raise ``Gone`` when the client disconnects.

    The body of the request has been read before.
    """
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise Gone
    finally:
        leaving.cancel()
        doing.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


class Stream(StreamingResponse):
    """Server-sent events that end with the connection, also while nothing is being sent.

    ``first`` was waited for before: what goes wrong until then is a reply of its own. After
    ``seconds`` it is over, for a client that does not read would hold its place for ever.
    """

    def __init__(
        self, first: bytes, rest: AsyncGenerator[bytes], seconds: float | None = None
    ) -> None:
        async def events() -> AsyncIterator[bytes]:
            yield first
            async for chunk in rest:
                yield chunk

        self._rest = rest
        self._seconds = seconds
        # Proxies that collect answers before they pass them on are asked not to.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events(), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until all is sent or nobody listens."""
        del scope
        sending = asyncio.ensure_future(self.stream_response(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait(
                {sending, leaving}, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if sending.done():
                sending.result()
        except OSError:
            pass  # it went away while something was being sent
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self._rest.aclose()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
