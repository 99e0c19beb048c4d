"""Long JSON responses are compressed for MLflow's page, and for nothing else."""

import gzip
import json
from typing import Any

import httpx
import pytest
from tracking_server.page.compressed_json import LONG, SMALLEST, CompressedJson

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}
PAGE = {"Sec-Fetch-Site": "same-origin", "Accept-Encoding": "gzip, deflate, br, zstd"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def text(size: int) -> bytes:
    return json.dumps({"rows": "abcdefgh" * (size // 8)}).encode()


async def answered(
    *parts: bytes,
    asked: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    status: int = 200,
    method: str = "GET",
) -> httpx.Response:
    given = {"content-length": str(sum(map(len, parts))), **(headers or JSON)}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raw = [(name.encode(), value.encode()) for name, value in given.items() if value]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    transport = httpx.ASGITransport(CompressedJson(app))
    async with httpx.AsyncClient(transport=transport, base_url="https://x") as client:
        return await client.request(method, "/", headers=PAGE if asked is None else asked)


@pytest.mark.parametrize("parts", [(SMALLEST,), (SMALLEST, 0, 1), (LONG, 3 * LONG), (LONG - 1,)])
async def test_a_long_response_to_the_page_is_compressed(parts: tuple[int, ...]) -> None:
    whole = b"".join(map(text, parts))
    answer = await answered(*map(text, parts), headers=JSON | {"vary": "Origin"})
    assert answer.content == whole
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == "Origin, Accept-Encoding"
    assert "content-length" not in answer.headers
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "asked",
    [
        {"Accept-Encoding": "gzip"},
        PAGE | {"Sec-Fetch-Site": "cross-site"},
        PAGE | {"Sec-Fetch-Site": "same-site"},
        PAGE | {"Sec-Fetch-Site": "none"},
        PAGE | {"Accept-Encoding": "gzip;q=0, br"},
        PAGE | {"Accept-Encoding": ""},
    ],
)
async def test_other_clients_get_it_as_it_is(asked: dict[str, str]) -> None:
    answer = await answered(text(SMALLEST), asked={"Accept-Encoding": "", **asked})
    assert answer.content == text(SMALLEST)
    assert "content-encoding" not in answer.headers
    assert "vary" not in answer.headers
    assert answer.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/event-stream", "content-length": ""},
        {"content-type": "application/x-ndjson"},
        {"content-type": "text/plain"},
        JSON | {"content-length": ""},
        JSON | {"etag": '"1"'},
        JSON | {"content-disposition": "attachment; filename=a.json"},
        JSON | {"cache-control": "no-transform"},
    ],
)
async def test_streams_and_files_are_not_compressed(headers: dict[str, str]) -> None:
    answer = await answered(text(SMALLEST), headers=headers)
    assert answer.content == text(SMALLEST)
    assert "content-encoding" not in answer.headers


async def test_a_compressed_response_is_not_compressed_again() -> None:
    packed = gzip.compress(bytes(range(256)) * SMALLEST, 0)
    answer = await answered(packed, headers=JSON | {"content-encoding": "gzip"})
    assert answer.content == gzip.decompress(packed)
    assert answer.headers["content-length"] == str(len(packed))


async def test_short_responses_errors_and_head_are_not_compressed() -> None:
    for answer in (
        await answered(b"x" * (SMALLEST - 1)),
        await answered(text(SMALLEST), status=400),
        await answered(method="HEAD", headers=JSON | {"content-length": str(SMALLEST)}),
    ):
        assert "content-encoding" not in answer.headers
