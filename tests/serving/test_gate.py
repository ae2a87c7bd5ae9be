from __future__ import annotations

import asyncio

import pytest

from biomistral.serving.failures import Failure
from biomistral.serving.gate import Gate


def test_no_more_run_than_there_are_places_and_the_rest_waits_in_order() -> None:
    async def go() -> None:
        gate = Gate(running=2, queue=10)
        most, order = 0, []

        async def job(number: int) -> None:
            nonlocal most
            with gate.admit(1):
                async with gate.slot():
                    order.append(number)
                    most = max(most, gate.running)
                    await asyncio.sleep(0)

        await asyncio.gather(*map(job, range(8)))
        assert most == 2
        assert order == list(range(8))
        assert (gate.admitted, gate.running, gate.waiting) == (0, 0, 0)

    asyncio.run(go())


def test_what_is_over_the_limit_is_sent_away_and_told_when_to_come_back() -> None:
    gate = Gate(running=1, queue=2)
    with gate.admit(3):
        with pytest.raises(Failure) as refused, gate.admit(1):
            pass
        assert refused.value.status == 429
        assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
    with gate.admit(1):  # there is room again
        pass


def test_what_can_never_have_room_is_a_mistake_of_the_client() -> None:
    gate = Gate(running=1, queue=2)
    with pytest.raises(Failure) as refused, gate.admit(4):
        pass
    assert refused.value.status == 400
    assert gate.admitted == 0


def test_who_leaves_while_waiting_leaves_no_trace() -> None:
    async def go() -> None:
        gate = Gate(running=1, queue=5)

        async def job() -> None:
            with gate.admit(1):
                async with gate.slot():
                    await asyncio.sleep(100)

        tasks = [asyncio.create_task(job()) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (gate.running, gate.waiting) == (1, 2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (gate.admitted, gate.running) == (0, 0)
        async with gate.slot():
            assert gate.running == 1

    asyncio.run(go())
