"""Stands in front of a service like Identity-Aware Proxy: it adds an assertion to each request.

Anyone on this computer gets in, as the first person whom the declared grants let in. A visit of
`SIGN_IN?as=ADDRESS` chooses another one, for this browser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from aiohttp import ClientConnectionError, ClientSession, ClientTimeout, web
from yarl import URL

from fake_google.iap import HEADER, Signer

SIGN_IN = "/_gcp_iap/sign_in"
_COOKIE = "GCP_IAP_LOCAL"

# https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
_OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer"}


class Front:
    """`members` returns the members that may use the service at `upstream`, as a grant names them,
    for example `user:ada@example.com`."""

    def __init__(
        self, *, signer: Signer, audience: str, upstream: str, members: Callable[[], Sequence[str]]
    ) -> None:
        self._signer, self._audience = signer, audience
        self._upstream, self._members = upstream, members

    async def handle(self, request: web.Request) -> web.StreamResponse:
        chosen = request.query.get("as") if request.path == SIGN_IN else None
        members = self._members()
        person = chosen or request.cookies.get(_COOKIE) or _first_person(members)
        if not person or not any(_includes(member, person) for member in members):
            return web.Response(status=403, text=f"You don't have access ({person or 'nobody'}).\n")
        if chosen:
            found = web.Response(status=302, headers={"Location": "/"})
            found.set_cookie(_COOKIE, chosen, httponly=True, samesite="Lax")
            return found
        return await self._forward(request, person)

    async def _forward(self, request: web.Request, person: str) -> web.StreamResponse:
        headers = request.headers.copy()
        for name in {name for name in headers if _is_googles(name)}:
            headers.popall(name)
        headers[HEADER] = self._signer.assertion(person, audience=self._audience)
        async with (
            ClientSession(auto_decompress=False, timeout=ClientTimeout(None)) as session,
            session.request(
                request.method,
                URL(self._upstream + request.raw_path, encoded=True),
                headers=headers,
                data=request.content if request.can_read_body else None,
                allow_redirects=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            ) as answer,
        ):
            forwarded = web.StreamResponse(
                status=answer.status,
                headers=[
                    (name, value)
                    for name, value in answer.headers.items()
                    if name.lower() not in _OF_THE_CONNECTION
                ],
            )
            await forwarded.prepare(request)
            async for piece in answer.content.iter_any():
                await forwarded.write(piece)
            with suppress(ClientConnectionError):
                await forwarded.write_eof()
            return forwarded


def _first_person(members: Sequence[str]) -> str:
    people = [member.partition(":") for member in members]
    for kind, _, name in people:
        if kind in ("user", "serviceAccount"):
            return name
    return next((f"developer@{name.rpartition('@')[2]}" for _, _, name in people), "")


def _includes(member: str, person: str) -> bool:
    """Returns whether the member is the person, or may include them: nobody knows groups here."""
    kind, _, name = member.partition(":")
    return kind == "group" or name in (person, person.rpartition("@")[2])


def _is_googles(name: str) -> bool:
    """Returns whether a request's header is Google's own, or of the connection."""
    name = name.lower()
    return name in _OF_THE_CONNECTION or name.startswith("x-goog-")
