"""Reads and writes the bucket's objects as streams on the event loop.

Google's own library uses a thread for every transfer and keeps several copies of the data. The
addresses are those of the XML API: https://cloud.google.com/storage/docs/xml-api/overview
"""

import asyncio
import ssl
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import aiohttp
import anyio.to_thread
import certifi
from google.auth.credentials import Credentials, TokenState
from google.auth.exceptions import GoogleAuthError
from yarl import URL

from tracking_server.errors import BucketError
from tracking_server.outgoing.egress import own_connection
from tracking_server.outgoing.google_api import own_request

READ_AHEAD = 64 * 1024
"""Bytes that are read ahead of the client; aiohttp holds up to twice as many, and one read."""

PATIENCE = 60
"""Seconds for the bucket to respond to a request with its whole body, or between two reads."""

PAUSES = (0.25, 0.5, 1, 2, 4)
"""Seconds between the attempts of one request."""

BROKEN = (aiohttp.ClientError, OSError, TimeoutError)
"""Exceptions after which a request is tried again."""


@dataclass(frozen=True, kw_only=True)
class BucketResponse:
    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An object, or a part of one, that is being read."""

    size: int
    encoding: str | None
    chunks: AsyncGenerator[bytes]


T = TypeVar("T")


class Tries:
    """Pauses between the attempts of one request, and ends them after the last pause."""

    def __init__(self) -> None:
        self._pauses = iter(PAUSES)

    async def again(self, error: Exception) -> None:
        """Wait for the next attempt.

        Raises:
            BucketError: if that was the last one, or if the error is permanent.
        """
        pause = next(self._pauses, None)
        if isinstance(error, BucketError) and (pause is None or not error.passing):
            raise error
        if pause is None:
            raise BucketError(f"The bucket does not respond: {error!r}") from error
        await asyncio.sleep(pause)

    async def until_answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Repeat a request until it succeeds.

        Raises:
            BucketError: if the bucket refuses it permanently, or all attempts fail.
        """
        while True:
            try:
                return await ask()
            except (BucketError, *BROKEN) as error:
                await self.again(error)


class Bucket:
    """Sends requests with the server's credentials, all from one event loop."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    @cached_property
    def _http(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                # No limit here: `concurrency_limit` limits the requests.
                limit=0,
                ssl=ssl.create_default_context(cafile=certifi.where()),
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=PATIENCE),
            read_bufsize=READ_AHEAD,
            # Keep the bytes, and their number, as they are stored.
            auto_decompress=False,
            headers={"Accept-Encoding": "gzip"},
        )

    async def close(self) -> None:
        """Close the connections, if any were made."""
        if "_http" in self.__dict__:
            await self._http.close()

    async def try_once(
        self,
        method: str,
        address: str,
        *,
        accept: Container[int],
        headers: Mapping[str, str] | None = None,
        body: Sequence[memoryview] = (),
    ) -> BucketResponse:
        """Send a request once and expect one of the statuses in `accept`.

        Raises:
            BucketError: if the status is another one.
            Exception: one of `BROKEN`, without a response.
        """
        async with asyncio.timeout(PATIENCE):
            answer = await self._send(method, address, headers, body)
            async with answer:
                text = await answer.text()
        if answer.status not in accept:
            raise _refusal(method, answer, text)
        return BucketResponse(status=answer.status, headers=answer.headers)

    async def open(
        self, address: str, *, generation: int | None = None, span: tuple[int, int] | None = None
    ) -> Opened:
        """Open the current object, or that generation of it; `span` is a range of bytes.

        Raises:
            BucketError: with status 404 if it doesn't exist.
        """
        answer = await self._open(address, generation, span, Tries())
        generation = generation or int(answer.headers["X-Goog-Generation"])
        size = int(answer.headers["Content-Length"])
        start = span[0] if span else 0
        return Opened(
            size=size,
            encoding=answer.headers.get("Content-Encoding"),
            chunks=self._chunks(answer, address, generation, (start, start + size)),
        )

    async def _chunks(
        self,
        answer: aiohttp.ClientResponse,
        address: str,
        generation: int,
        span: tuple[int, int],
    ) -> AsyncGenerator[bytes]:
        """Yield the response's data; if it breaks off, continue with another request."""
        position, end = span
        tries = Tries()
        while True:
            try:
                async for chunk in answer.content.iter_any():
                    position += len(chunk)
                    yield chunk
                    tries = Tries()
                return
            except BROKEN as error:
                await tries.again(error)
            finally:
                # After a complete read it is already in the pool again; otherwise it's useless.
                answer.close()
            answer = await self._open(address, generation, (position, end), tries)

    async def _open(
        self, address: str, generation: int | None, span: tuple[int, int] | None, tries: Tries
    ) -> aiohttp.ClientResponse:
        query = f"?generation={generation}" if generation else ""
        headers = {"Range": f"bytes={span[0]}-{span[1] - 1}"} if span else {}

        async def get() -> aiohttp.ClientResponse:
            async with asyncio.timeout(PATIENCE):
                answer = await self._send("GET", address + query, headers, ())
                if answer.status in (200, 206):
                    return answer
                async with answer:
                    raise _refusal("GET", answer, await answer.text())

        return await tries.until_answered(get)

    async def _send(
        self,
        method: str,
        address: str,
        headers: Mapping[str, str] | None,
        body: Sequence[memoryview],
    ) -> aiohttp.ClientResponse:
        sent = dict(headers or {})
        if self._credentials.token_state is TokenState.FRESH:
            self._credentials.apply(sent)
        else:
            try:
                await anyio.to_thread.run_sync(
                    self._credentials.before_request, own_request(), method, address, sent
                )
            except GoogleAuthError as error:
                raise no_token(error) from error
        data = None
        if method in ("PUT", "POST"):
            sent["Content-Length"] = str(sum(map(len, body)))
            data = _each(body)
        with own_connection():
            return await self._http.request(
                # Encoded already: the object's name is quoted in it.
                method,
                URL(address, encoded=True),
                headers=sent,
                data=data,
                allow_redirects=False,
            )


def no_token(error: GoogleAuthError) -> BucketError:
    """Returns a failure to get a token as a temporary failure of the bucket."""
    return BucketError(f"The metadata server returns no token for the bucket: {error}")


async def _each(blocks: Sequence[memoryview]) -> AsyncIterator[memoryview]:
    for block in blocks:
        yield block


def _refusal(method: str, answer: aiohttp.ClientResponse, text: str) -> BucketError:
    return BucketError(
        f"The bucket responds to a {method} with {answer.status}: {text[:500]}",
        status=answer.status,
    )
