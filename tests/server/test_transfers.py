"""Transfers between client and bucket: memory, interruptions, and the state afterwards."""

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from starlette.requests import ClientDisconnect
from starlette.types import Message
from tracking_server.artifacts import bucket, transfers, uploads
from tracking_server.artifacts.transfers import ProxiedTransfers
from tracking_server.artifacts.uploads import BLOCK, OWN

from tests.server.conftest import StartServer
from tests.server.exchange import Exchange, pieces
from tests.server.google import BUCKET, Google
from tests.server.process import PASSWORD, USER, Server

pytestmark = pytest.mark.anyio

PREFIX = "/api/2.0/mlflow-artifacts/artifacts/"
PIECE = 100_000
CHUNK, SHARED = 8, 24
"""Smaller than in production, like the files here."""

LARGE = os.urandom(3 * CHUNK * BLOCK + 12_345)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def app(google: Google, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ProxiedTransfers]:
    monkeypatch.setattr(bucket, "PAUSES", (0.02,) * 5)
    monkeypatch.setattr(uploads, "CHUNK", CHUNK)
    monkeypatch.setattr(uploads, "SHARED", SHARED)

    async def mlflow(scope: object, receive: object, send: object) -> None:
        raise AssertionError("a transfer reached MLflow")

    made = ProxiedTransfers(mlflow, f"gs://{BUCKET}")
    yield made
    assert made._memory.shared == SHARED, "memory that was never freed"
    assert made._downloads == 0
    await made._bucket._http.close()


def stored(google: Google, name: str) -> bytes | None:
    found = google.objects.get(BUCKET, name)
    return b"".join(path.read_bytes() for path in found.files) if found else None


def put(google: Google, name: str, content: bytes) -> None:
    upload = google.objects.upload()
    upload._write(content)
    upload.close()
    attributes = {"bucket": BUCKET, "name": name, **upload.hashes}
    google.objects.put(attributes, [upload.path])


def leftovers(google: Google) -> set[Path]:
    """Returns the bytes that unfinished uploads have sent so far."""
    store = google.objects
    # Another test may have left noncurrent versions of deleted objects.
    kept = [one for deleted in (False, True) for one in store.versions(BUCKET, deleted=deleted)]
    kept += store.below(BUCKET, after="", prefix="")
    return set(store.files.iterdir()) - {path for one in kept for path in one.files}


async def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition never became true")


def upload(app: ProxiedTransfers, name: str, **options: str) -> Exchange:
    return Exchange(app, "PUT", f"{PREFIX}{name}", **options)  # type: ignore[arg-type]


def download(app: ProxiedTransfers, name: str) -> Exchange:
    return Exchange(app, "GET", f"{PREFIX}{name}")


@pytest.mark.parametrize(
    "size",
    [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, CHUNK * BLOCK, CHUNK * BLOCK + 1, 2 * CHUNK * BLOCK],
)
async def test_a_download_returns_the_uploaded_content(
    google: Google, app: ProxiedTransfers, size: int
) -> None:
    content = LARGE[:size]
    up = upload(app, "sizes/ü 1%.bin")
    up.feed(*pieces(content, PIECE), more=False)
    assert (await up.done()).status == 200
    assert stored(google, "sizes/ü 1%.bin") == content
    down = await download(app, "sizes/ü 1%.bin").done()
    assert (down.status, down.body) == (200, content)
    assert down.headers["content-length"] == str(size)
    assert leftovers(google) == set()


async def test_pieces_of_any_size(google: Google, app: ProxiedTransfers) -> None:
    content = LARGE[: 5 * BLOCK]
    cut = [
        b"",
        content[:1],
        content[1 : 2 * BLOCK + 7],
        b"",
        *pieces(content[2 * BLOCK + 7 :], 7777),
    ]
    up = upload(app, "cut.bin")
    up.feed(*cut, more=False)
    assert (await up.done()).status == 200
    assert stored(google, "cut.bin") == content


class Stalled:
    """A bucket that responds to uploads only when the test allows it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._go_on = asyncio.Event()
        self.waiting = 0

    async def __call__(self, request: web.Request) -> None:
        if request.method == "PUT":
            self.waiting += 1
            # The stand-ins have their own event loop.
            await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(self._go_on.wait(), self._loop)
            )

    def go_on(self) -> None:
        self._go_on.set()


async def test_uploads_to_a_slow_bucket_stay_within_their_memory(
    google: Google, app: ProxiedTransfers
) -> None:
    google.fault = stalled = Stalled()
    ups = [upload(app, f"slow {number}") for number in range(12)]
    for up in ups:
        up.feed(*pieces(LARGE, PIECE), more=False)
    # Each upload has a request to the bucket in progress, and its client waits with the rest.
    await eventually(lambda: stalled.waiting == len(ups))
    await asyncio.sleep(0.2)
    bound = SHARED * BLOCK + len(ups) * (OWN * BLOCK + PIECE)
    assert SHARED * BLOCK < sum(up.taken for up in ups) <= bound
    stalled.go_on()
    for number, up in enumerate(ups):
        assert (await up.done()).status == 200
        assert stored(google, f"slow {number}") == LARGE


async def test_a_slow_client_does_not_delay_others(google: Google, app: ProxiedTransfers) -> None:
    slow = [upload(app, f"slow {number}") for number in range(SHARED // (CHUNK - OWN) + 2)]
    for up in slow:
        up.feed(*pieces(LARGE[: CHUNK * BLOCK], PIECE))
    await eventually(lambda: app._memory.shared == 0)
    quick = upload(app, "quick")
    quick.feed(*pieces(LARGE, PIECE), more=False)
    assert (await quick.done()).status == 200
    assert stored(google, "quick") == LARGE
    for up in slow:
        up.disconnect()
        with pytest.raises(ClientDisconnect):
            await up.done()


@pytest.mark.parametrize("size", [10, BLOCK, CHUNK * BLOCK, 2 * CHUNK * BLOCK + 10])
async def test_an_interrupted_upload_leaves_nothing(
    google: Google, app: ProxiedTransfers, size: int
) -> None:
    put(google, "broken", b"as it was")
    up = upload(app, "broken")
    up.feed(*pieces(LARGE[:size], PIECE))
    await eventually(lambda: up.taken == size)
    assert stored(google, "broken") == b"as it was"
    up.disconnect()
    with pytest.raises(ClientDisconnect):
        await up.done()
    assert app._memory.shared == SHARED
    assert stored(google, "broken") == b"as it was"
    assert leftovers(google) == set()


async def test_an_upload_interrupted_while_the_bucket_is_slow_leaves_nothing(
    google: Google, app: ProxiedTransfers
) -> None:
    google.fault = stalled = Stalled()
    up = upload(app, "broken slowly")
    up.feed(*pieces(LARGE[: CHUNK * BLOCK + 10], PIECE))
    await eventually(lambda: stalled.waiting == 1 and up.taken == CHUNK * BLOCK + 10)
    up.disconnect()
    with pytest.raises(ClientDisconnect):
        await up.done()
    assert app._memory.shared == SHARED
    stalled.go_on()
    await eventually(lambda: leftovers(google) == set())
    assert stored(google, "broken slowly") is None


class Failing:
    """A bucket that fails some requests of uploads, in one of several ways."""

    def __init__(self, google: Google, how: str, turns: set[int]) -> None:
        self._google, self._how, self._turns = google, how, turns
        self.requests = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse | None:
        if request.method not in ("PUT", "GET"):
            return None
        self.requests += 1
        if self.requests - 1 not in self._turns:
            return None
        assert request.transport is not None
        if self._how == "unread":
            return web.Response(status=503)
        if self._how == "cut":
            await request.content.readany()
            request.transport.close()
        elif self._how == "half":
            # Only a part of the data arrives, a multiple of the block size.
            half = asyncio.ensure_future(self._google.storage.handle(request))
            await asyncio.sleep(0.05)
            request.transport.close()
            with suppress(Exception):
                await half
        else:
            assert self._how == "answer lost"
            await self._google.storage.handle(request)
            request.transport.close()
        return web.Response()


@pytest.mark.parametrize("how", ["unread", "cut", "half", "answer lost"])
@pytest.mark.parametrize("turns", [{0}, {1}, {0, 1, 2}, {3}, {4}])
@pytest.mark.parametrize("size", [BLOCK + 1, len(LARGE)])
async def test_an_upload_survives_occasional_failures_of_the_bucket(
    google: Google, app: ProxiedTransfers, how: str, turns: set[int], size: int
) -> None:
    name = f"{how} {turns} {size}"
    google.fault = Failing(google, how, turns)
    up = upload(app, name)
    up.feed(*pieces(LARGE[:size], PIECE), more=False)
    assert (await up.done()).status == 200
    assert stored(google, name) == LARGE[:size]
    assert leftovers(google) == set()


@pytest.mark.parametrize("size", [10, len(LARGE)])
async def test_repeated_failures_of_the_bucket_are_reported(
    google: Google, app: ProxiedTransfers, size: int
) -> None:
    google.fault = failing = Failing(google, "unread", set(range(1000)))
    up = upload(app, "never")
    up.feed(*pieces(LARGE[:size], PIECE), more=False)
    await up.done()
    # MLflow's client retries by itself.
    assert up.status == 503
    assert b"TEMPORARILY_UNAVAILABLE" in up.body
    assert failing.requests == 1 + len(bucket.PAUSES)
    assert app._memory.shared == SHARED
    google.fault = None
    assert leftovers(google) == set()
    assert stored(google, "never") is None


async def test_a_refusal_of_the_bucket_is_not_retried(
    google: Google, app: ProxiedTransfers
) -> None:
    asked = []

    async def refuse(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.Response(status=403, text="storage.objects.create is missing")

    google.fault = refuse
    for size in (10, len(LARGE)):
        up = upload(app, "refused")
        up.feed(*pieces(LARGE[:size], PIECE), more=False)
        await up.done()
        assert up.status == 500
        assert b"storage.objects.create is missing" in up.body
    assert asked == ["PUT", "POST"]
    down = await download(app, "refused").done()
    assert (down.status, asked) == (500, ["PUT", "POST", "GET"])


@pytest.mark.parametrize("size", [10, len(LARGE)])
async def test_a_corrupted_upload_is_not_kept(
    google: Google, app: ProxiedTransfers, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(uploads.google_crc32c, "extend", lambda crc, data: 7)
    up = upload(app, "damaged")
    up.feed(*pieces(LARGE[:size], PIECE), more=False)
    assert (await up.done()).status == 500
    assert stored(google, "damaged") is None
    assert leftovers(google) == set()


async def test_a_retried_upload_is_harmless(google: Google, app: ProxiedTransfers) -> None:
    for content in (LARGE, b"second", LARGE[:BLOCK]):
        up = upload(app, "again")
        up.feed(*pieces(content, PIECE), more=False)
        assert (await up.done()).status == 200
        assert stored(google, "again") == content


# Downloads


async def test_a_download_streams_and_waits_for_its_client(
    google: Google, app: ProxiedTransfers
) -> None:
    put(google, "large", LARGE)
    down = download(app, "large")
    down.stop_taking(after=2)
    await eventually(lambda: len(down.sent) > 2)
    await asyncio.sleep(0.2)
    assert len(down.sent) == 1 + 2
    assert len(down.body) < len(LARGE)
    down.take_again()
    assert (await down.done()).body == LARGE


async def test_downloads_share_their_memory(
    app: ProxiedTransfers,
) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield bytes(transfers.LARGEST_PIECE)

    downs = [app._pieces(endless()) for _ in range(200)]
    sizes = [len(await anext(down)) for down in downs]
    assert sizes[0] == transfers.LARGEST_PIECE
    assert transfers.SMALLEST_PIECE <= sizes[-1] < sizes[100] < sizes[50] < sizes[0]
    # A download that began alone uses the smaller size from its next read.
    assert len(await anext(downs[0])) == sizes[-1]
    assert sizes[-1] * 80 * transfers.PIECES_WAITING < transfers.WAITING
    for down in downs:
        await down.aclose()


@pytest.mark.parametrize("at", [0, 1_000_000, len(LARGE) - 1])
async def test_a_download_continues_where_the_bucket_broke_off(
    google: Google, app: ProxiedTransfers, at: int
) -> None:
    put(google, "large", LARGE)
    ranges: list[str | None] = []

    async def cut(request: web.Request) -> web.StreamResponse | None:
        ranges.append(request.headers.get("Range"))
        if len(ranges) > 1:
            return None
        found = google.objects.get(BUCKET, "large")
        assert found
        assert request.transport
        headers = {
            "Content-Length": str(len(LARGE)),
            "X-Goog-Generation": str(found.generation),
        }
        answer = web.StreamResponse(headers=headers)
        await answer.prepare(request)
        await answer.write(LARGE[:at])
        request.transport.close()
        return answer

    google.fault = cut
    down = await download(app, "large").done()
    assert (down.status, down.body) == (200, LARGE)
    assert ranges == [None, f"bytes={at}-{len(LARGE) - 1}"]


async def test_two_generations_of_an_object_are_not_mixed(
    google: Google, app: ProxiedTransfers
) -> None:
    put(google, "large", LARGE)
    asked = []

    async def replace(request: web.Request) -> web.StreamResponse | None:
        asked.append(request.query.get("generation"))
        if len(asked) > 1:
            return None
        found = google.objects.get(BUCKET, "large")
        assert found
        assert request.transport
        headers = {"Content-Length": str(len(LARGE)), "X-Goog-Generation": str(found.generation)}
        answer = web.StreamResponse(headers=headers)
        await answer.prepare(request)
        await answer.write(LARGE[:1000])
        put(google, "large", bytes(len(LARGE)))
        request.transport.close()
        return answer

    google.fault = replace
    down = download(app, "large")
    # Once begun, a response can only be cut short.
    with pytest.raises(bucket.BucketError):
        await down.done()
    assert down.body == LARGE[:1000]
    assert len(asked) == 2
    assert asked[1]


async def test_an_abandoned_download_ends_at_once(google: Google, app: ProxiedTransfers) -> None:
    put(google, "large", LARGE)
    down = download(app, "large")
    down.stop_taking(after=1)
    await eventually(lambda: len(down.sent) > 1)
    down.feed(more=False)
    down.disconnect()
    await down.done()
    await eventually(lambda: app._downloads == 0)
    assert len(down.body) < len(LARGE)


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("missing", 404, '"RESOURCE_DOES_NOT_EXIST"'),
        ("missing/", 404, '"RESOURCE_DOES_NOT_EXIST"'),
        ("folder", 400, "refers to a directory"),
        ("folder/", 400, "refers to a directory"),
        ("fold", 404, '"RESOURCE_DOES_NOT_EXIST"'),
        ("../x", 400, '"INVALID_PARAMETER_VALUE"'),
        ("a/%2e%2e/x", 400, '"INVALID_PARAMETER_VALUE"'),
    ],
)
async def test_a_failed_download_is_reported(
    google: Google, app: ProxiedTransfers, name: str, status: int, words: str
) -> None:
    put(google, "folder/inside", b"x")
    down = await download(app, name).done()
    assert (down.status, words in down.body.decode()) == (status, True), down.body
    assert down.headers["x-content-type-options"] == "nosniff"


async def test_an_upload_needs_a_name(app: ProxiedTransfers) -> None:
    up = await upload(app, "folder/").done()
    assert up.status == 400


async def test_an_object_stored_compressed_is_sent_compressed(
    google: Google, app: ProxiedTransfers
) -> None:
    put(google, "log.gz", b"not really gzip")
    found = google.objects.get(BUCKET, "log.gz")
    assert found
    google.objects.patch(found, {"contentEncoding": "gzip"})
    down = await download(app, "log.gz").done()
    assert (down.headers["content-encoding"], down.body) == ("gzip", b"not really gzip")


# Frames requested in advance


@pytest.mark.parametrize("count", [1, 5, 100])
async def test_frames_requested_in_advance_arrive_in_order(count: int) -> None:
    exchange: list[bytes] = []
    frames = [number.to_bytes(2, "big") for number in range(count)]
    queue: asyncio.Queue[Message] = asyncio.Queue()
    for frame in frames:
        queue.put_nowait({"type": "http.request", "body": frame, "more_body": True})
    queue.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    async for frame in transfers._body(queue.get, ahead=16):
        exchange.append(frame)
    assert exchange == [*frames, b""]
    # No `receive` is pending: the next message goes to the next call.
    await asyncio.sleep(0)
    queue.put_nowait({"type": "http.disconnect"})
    assert (await queue.get())["type"] == "http.disconnect"


@pytest.mark.parametrize(
    ("version", "length", "ahead"),
    [
        ("1.1", "1000000000", 1),
        ("2", "0", 1),
        ("2", "16383", 1),
        ("2", "16384", 2),
        ("2", "1000000000", 1 + transfers.FRAMES_AHEAD),
        ("2", None, 1),
    ],
)
def test_the_number_of_frames_requested_in_advance(
    version: str, length: str | None, ahead: int
) -> None:
    headers = [(b"content-length", length.encode())] if length else []
    assert transfers._frames_ahead({"http_version": version, "headers": headers}) == ahead


# The whole server


VERSIONS: dict[str, dict[str, Any]] = {"HTTP/1.1": {}, "HTTP/2": {"http1": False, "http2": True}}


@pytest.fixture(scope="module")
def server(
    shared_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("transfers")
    (folder / "tmp").mkdir()
    env = {**shared_environment, "TMPDIR": str(folder / "tmp")}
    running = Server(env, folder, forked=True)
    yield running.ready()
    running.stop()


def test_large_files_over_h2c_arrive_in_order(google: Google, server: Server) -> None:
    """Frames are numbered; several arrive at once, with other requests between them."""
    count = 1024
    frames = [number.to_bytes(8, "big") * (transfers.FRAME // 8) for number in range(count)]
    content = b"".join(frames)

    def send(number: int) -> None:
        with server.client(**VERSIONS["HTTP/2"]) as client:
            answer = client.put(f"{PREFIX}ordered {number}", content=content)
            assert (answer.status_code, answer.http_version) == (200, "HTTP/2")

    with ThreadPoolExecutor(2) as threads, server.client() as client:
        sending = [threads.submit(send, number) for number in range(2)]
        while not all(one.done() for one in sending):
            assert client.get("/version").status_code == 200
        for one in sending:
            one.result()
    for number in range(2):
        arrived = stored(google, f"ordered {number}")
        assert arrived is not None
        assert [frame[:8] for frame in pieces(arrived, transfers.FRAME)] == [f[:8] for f in frames]
        assert arrived == content


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_is_streamed_with_little_memory_and_no_temporary_file(
    google: Google, server: Server, version: str
) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs /proc/PID/clear_refs, which this system does not have")
    temporary = Path(server.env["TMPDIR"])
    process = Path("/proc", str(server.process.pid))

    def memory(line: str) -> int:
        found = re.search(rf"^{line}:\s+(\d+) kB$", (process / "status").read_text(), re.M)
        assert found
        return int(found[1]) * 1024

    with server.client(**VERSIONS[version]) as client:
        # The first transfer's imports stay in memory.
        assert client.put(f"{PREFIX}small", content=b"x").status_code == 200
        assert client.get(f"{PREFIX}small").content == b"x"
        (process / "clear_refs").write_text("5")
        untouched = temporary.stat().st_mtime_ns
        idle = memory("VmRSS")
        times = 24
        length = {"Content-Length": str(times * len(LARGE))}
        sent = client.put(f"{PREFIX}large", content=iter([LARGE] * times), headers=length)
        assert sent.status_code == 200
        digest = hashlib.sha256()
        with client.stream("GET", f"{PREFIX}large") as answer:
            for chunk in answer.iter_bytes():
                digest.update(chunk)
        assert digest.digest() == hashlib.sha256(LARGE * times).digest()
    assert memory("VmHWM") - idle < 64 << 20 < times * len(LARGE) // 2
    assert temporary.stat().st_mtime_ns == untouched


def test_a_truncated_download_is_not_mistaken_for_a_complete_one(
    google: Google, server: Server
) -> None:
    put(google, "large", LARGE)
    gone = []

    async def once(request: web.Request) -> web.StreamResponse | None:
        if gone or not request.path.endswith("/large"):
            return None
        gone.append(request)
        answer = web.StreamResponse(
            headers={"Content-Length": str(len(LARGE)), "X-Goog-Generation": "1"}
        )
        await answer.prepare(request)
        await answer.write(LARGE[:1_000_000])
        assert request.transport is not None
        request.transport.close()
        return answer

    for options in VERSIONS.values():
        gone.clear()
        google.fault = once
        with server.client(**options) as client, pytest.raises(httpx.HTTPError):
            client.get(f"{PREFIX}large")


def test_a_server_that_is_killed_leaves_the_object_as_it_was(
    google: Google, server: Server, fork: StartServer, environment: dict[str, str]
) -> None:
    put(google, "large", b"as it was")
    killed = fork(environment).ready()
    sent: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            sent.append(len(LARGE))
            if len(sent) == 3:
                killed.process.kill()
            yield LARGE

    with killed.client() as client, pytest.raises(httpx.TransportError):
        client.put(f"{PREFIX}large", content=endless())
    assert stored(google, "large") == b"as it was"
    with server.client() as client:
        assert client.put(f"{PREFIX}large", content=LARGE).status_code == 200
    assert stored(google, "large") == LARGE


async def test_waiting_bodies_do_not_delay_others_on_their_connection(
    google: Google, server: Server
) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    sent = [0] * 3
    slow_sessions: set[str] = set()

    async def stall(request: web.Request) -> None:
        session = request.query.get("upload_id", "")
        if session and len(slow_sessions) < len(sent):
            slow_sessions.add(session)
        if session in slow_sessions:
            waiting = asyncio.run_coroutine_threadsafe(release.wait(), loop)
            await asyncio.wrap_future(waiting)

    google.fault = stall
    more = LARGE * 5
    async with httpx.AsyncClient(
        base_url=server.url, auth=(USER, PASSWORD), http1=False, http2=True, timeout=60
    ) as client:

        async def slowly(number: int) -> AsyncIterator[bytes]:
            for piece in pieces(more, PIECE):
                yield piece
                sent[number] += len(piece)

        slow = [
            asyncio.ensure_future(client.put(f"{PREFIX}slow {n}", content=slowly(n)))
            for n in range(len(sent))
        ]
        before = -1
        while sum(sent) > before:
            before = sum(sent)
            await asyncio.sleep(0.5)
        assert sum(sent) < len(sent) * len(more)

        async def move() -> None:
            # httpcore may read a message for one upload while it waits for another one, and only
            # continues once a further message arrives.
            async with asyncio.TaskGroup() as asking:
                while True:
                    asking.create_task(client.get("/version"))
                    await asyncio.sleep(0.02)

        moving = asyncio.ensure_future(move())
        async with asyncio.timeout(20):
            quick = await client.put(f"{PREFIX}quick", content=LARGE)
        moving.cancel()
        assert quick.status_code == 200
        assert not any(one.done() for one in slow)
        release.set()
        assert [(await one).status_code for one in slow] == [200] * len(sent)
    assert stored(google, "quick") == LARGE
