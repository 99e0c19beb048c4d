"""Calls back finish, however many requests wait for theirs at the same time."""

import asyncio

from tracking_server.gate.callbacks import CALL_DEPTH, DEEPEST
from tracking_server.serve.nested_threads import THREADS, NestedThreads


async def request(depth: int) -> int:
    """A request whose guardrail calls back, whose call has a guardrail too, and so on."""
    CALL_DEPTH.set(depth)
    loop = asyncio.get_running_loop()

    def guardrail() -> int:
        if depth == DEEPEST:
            return 1
        return 1 + asyncio.run_coroutine_threadsafe(request(depth + 1), loop).result()

    return await asyncio.to_thread(guardrail)


def test_calls_back_do_not_wait_for_the_requests_that_made_them() -> None:
    async def many() -> list[int]:
        asyncio.get_running_loop().set_default_executor(NestedThreads())
        async with asyncio.timeout(20):
            return await asyncio.gather(*(request(0) for _ in range(3 * THREADS)))

    assert asyncio.run(many()) == [1 + DEEPEST] * 3 * THREADS
