"""The query results in memory stay within one limit."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.types import Receive, Scope, Send
from tracking_server.artifacts import transfers, uploads
from tracking_server.boot.settings import MAX_MEMORY, MIN_MEMORY
from tracking_server.database import result_limits
from tracking_server.database.result_limits import (
    ANSWER,
    BYTE,
    ROW,
    Answer,
    AnswerLimit,
    Answers,
    Full,
    TooLarge,
)
from tracking_server.gate.body_limits import USER, VIEWER
from tracking_server.gate.viewer_policy import LOOKING
from tracking_server.serve.memory import AT_REST, FOR_BODIES, FOR_TRANSFERS, MIB, shares

from tests.server.process import eventually


@pytest.fixture(autouse=True)
def _nothing_is_small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "small" not in request.node.name:
        monkeypatch.setattr(result_limits, "SMALL", 0)


def test_a_small_result_never_waits() -> None:
    limit = Answers(BYTE)
    held, large = Answer(limit), Answer(limit)
    held.add(1 + result_limits.SMALL // BYTE, rows=0)
    for _ in range(5):
        Answer(limit).add(result_limits.SMALL // BYTE, rows=0)
    with pytest.raises(TooLarge):
        large.add(10 + result_limits.SMALL // BYTE, rows=0)
    # Exactly what was taken is free again, even if it is freed twice.
    for _ in range(2):
        held.close()
    assert limit._free == limit.size
    Answer(limit).add(1 + result_limits.SMALL // BYTE, rows=0)


def test_one_result_is_limited() -> None:
    limit = Answers(10 * BYTE + 2 * ROW)
    answer = Answer(limit)
    answer.add(6, rows=1)
    answer.add(4, rows=1)
    for received, rows in ((1, 0), (0, 1)):
        with pytest.raises(TooLarge):
            answer.add(received, rows=rows)
    answer.close()
    Answer(limit).add(10, rows=2)


def test_all_results_together_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_limits, "WAITING", 0.01)
    limit = Answers(10 * BYTE)
    held, further = Answer(limit), Answer(limit)
    held.add(6, rows=0)
    with pytest.raises(Full):
        further.add(5, rows=0)
    further.add(4, rows=0)
    # The process holds no more than was counted.
    held.close()
    further.add(6, rows=0)


def test_a_result_waits_for_others() -> None:
    limit = Answers(10 * BYTE)
    held, further = Answer(limit), Answer(limit)
    held.add(10, rows=0)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(further.add, 10, rows=0)
        assert not eventually(waiting.done, seconds=0.2)
        held.close()
        assert waiting.result(10) is None


def test_freed_memory_wakes_the_request_that_fits_in_it() -> None:
    """The request that has waited longest may need more."""
    limit = Answers(10 * BYTE)
    large, small, first, second = (Answer(limit) for _ in range(4))
    first.add(6, rows=0)
    second.add(4, rows=0)
    with ThreadPoolExecutor(2) as threads:
        waiting = []
        for answer, size in ((large, 10), (small, 4)):
            waiting.append(threads.submit(answer.add, size, rows=0))
            assert eventually(lambda: len(limit._freed._waiters) == len(waiting))  # type: ignore[attr-defined]
        second.close()
        assert waiting[1].result(5) is None
        assert not waiting[0].done()
        first.close()
        small.close()
        assert waiting[0].result(5) is None


def test_a_request_frees_its_memory() -> None:
    """It does so however it ends, even if work for it still runs."""
    user, viewer = Answers(10 * BYTE), Answers(BYTE)
    kept: list[Answer] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        answer = ANSWER.get()
        assert answer is not None
        kept.append(answer)
        answer.add(scope["size"], rows=0)
        raise ValueError

    async def run(*, looking: bool, size: int, error: type[Exception]) -> None:
        LOOKING.set(looking)
        limit = AnswerLimit(app, user=user, viewer=viewer)
        with pytest.raises(error):
            await limit({"type": "http", "size": size}, None, None)  # type: ignore[arg-type]

    for _ in range(3):
        asyncio.run(run(looking=False, size=10, error=ValueError))
        asyncio.run(run(looking=True, size=1, error=ValueError))
        asyncio.run(run(looking=True, size=2, error=TooLarge))
    for answer in kept:
        answer.add(10, rows=0)
    user.take(10 * BYTE)


def test_bodies_and_transfers_stay_within_their_memory() -> None:
    # MLflow holds a body as bytes, and as text while it parses it.
    assert 2 * (USER.together + VIEWER.together) <= FOR_BODIES
    assert transfers.WAITING + uploads.SHARED * uploads.BLOCK <= FOR_TRANSFERS


@pytest.mark.parametrize("memory", [MIN_MEMORY, 1024, 4096, MAX_MEMORY])
@pytest.mark.parametrize("processes", [1, 2, 8])
def test_the_shares_fit_in_the_instance(memory: int, processes: int) -> None:
    share = shares(memory * MIB, processes)
    assert min(share.answers, share.viewers_answers, share.providers) > MIB
    held = share.answers + share.viewers_answers + share.providers
    # The settings refuse less than the smallest instance's memory for a process.
    if memory // processes >= MIN_MEMORY:
        assert AT_REST + FOR_BODIES + FOR_TRANSFERS + held <= memory * MIB // processes


def test_a_page_of_ten_thousand_runs_fits_in_the_default_instance() -> None:
    """As docs/security-controls.md says: each run has 20 values."""
    runs, values, bytes_of_row, bytes_of_run = 10_000, 20, 73, 300
    answer = Answer(Answers(shares(1024 * MIB, 1).answers))
    answer.add(runs * values * bytes_of_row, rows=runs * values)
    answer.add(runs * bytes_of_run, rows=runs)
