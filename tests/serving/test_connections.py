from __future__ import annotations

import asyncio

import pytest

from biomistral.serving.connections import Gone, Stream, while_connected


class _Connection:
    """A request whose client leaves when it is told to."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, str]:
        await self.left.wait()
        return {"type": "http.disconnect"}


def test_work_goes_on_while_somebody_waits_for_it() -> None:
    async def go() -> None:
        async def work() -> int:
            await asyncio.sleep(0.01)
            return 5

        assert await while_connected(_Connection(), work()) == 5

    asyncio.run(go())


def test_work_for_nobody_is_cancelled() -> None:
    async def go() -> None:
        ended = []
        connection = _Connection()

        async def work() -> None:
            connection.left.set()
            try:
                await asyncio.sleep(100)
            finally:
                ended.append(True)

        with pytest.raises(Gone):
            await while_connected(connection, work())
        assert ended

    asyncio.run(go())


def test_what_goes_wrong_in_the_work_is_passed_on() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    async def go() -> None:
        with pytest.raises(ZeroDivisionError):
            await while_connected(_Connection(), work())

    asyncio.run(go())


def test_a_client_that_does_not_read_is_left_in_the_end() -> None:
    async def go() -> None:
        ended = []

        async def rest():
            try:
                yield b"second"
                yield b"third"
            finally:
                ended.append(True)

        async def send(_message) -> None:
            await asyncio.sleep(100)

        feeding = rest()
        await anext(feeding)
        await Stream(b"first", feeding, 0.05)({"type": "http"}, _Connection().receive, send)
        assert ended == [True]

    asyncio.run(go())


@pytest.mark.parametrize("leaves", ["never", "before", "in between"])
def test_a_stream_ends_what_feeds_it_however_it_ends(leaves) -> None:
    async def go() -> None:
        connection, ended, sent = _Connection(), [], []

        async def rest():
            try:
                yield b"second"
                if leaves == "in between":
                    connection.left.set()
                    await asyncio.sleep(100)
                yield b"third"
            finally:
                ended.append(True)

        async def send(message) -> None:
            await asyncio.sleep(0)
            sent.append(message.get("body", b""))

        feeding = rest()
        await anext(feeding)
        if leaves == "before":
            connection.left.set()
        await Stream(b"first", feeding)({"type": "http"}, connection.receive, send)
        assert ended == [True]
        assert (b"third" in sent) == (leaves == "never")

    asyncio.run(go())
