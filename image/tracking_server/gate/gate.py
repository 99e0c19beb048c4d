"""Admits a user and a viewer, by HTTP Basic, to our own host names and from our own pages.

With accounts it admits people as well, by HTTP Basic or by their sign-in with Google. The gate
wraps the whole ASGI application and refuses by default. It does no I/O, except to check people's
accounts; its only state is the recent failed logins. The code behind it gets the client's address
and scheme as if there were no proxy, and never a credential.
"""

import asyncio
import hmac
import logging
import re
from binascii import a2b_base64
from collections.abc import Callable, Iterable
from hashlib import sha256
from time import monotonic, time
from typing import Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracking_server.accounts import assertions, audit
from tracking_server.accounts.identity import CALLER, Identity
from tracking_server.accounts.logins import Busy, Logins
from tracking_server.accounts.sign_in import SignIn
from tracking_server.gate.access_log import LOG_FIELDS, NOT_LOGGED
from tracking_server.gate.callbacks import DEPTH, GATEWAY, Callbacks, is_direct_and_local
from tracking_server.gate.credentials import Credentials, PreviousCredentials
from tracking_server.gate.failed_logins import FailedLogins, address_of, network_of
from tracking_server.gate.viewer_policy import LOOKING, may_view

MAX_AUTHORIZATION = 8192
"""Bytes of an Authorization header that are read; our longest credentials are far shorter."""

GATEWAY_LOGIN = b"x-mlflow-authorization"
"""The header with the login of a tool whose Authorization header is for the model's provider. The
name is MLflow's own (`MLFLOW_GATEWAY_AUTH_HEADER`)."""

_CONSUMED = frozenset(
    {
        b"authorization",
        GATEWAY_LOGIN,
        # Headers of Google's front ends: Cloud Run and IAP.
        b"proxy-authorization",
        b"x-serverless-authorization",
        b"cookie",
        # Proxies name the client in these; the gate puts the trusted address into the scope.
        b"forwarded",
        b"via",
        b"x-real-ip",
    }
)
_CONSUMED_PREFIXES = (
    b"x-forwarded-",
    b"x-goog-iap-",
    b"x-goog-authenticated-user-",
    # Portkey's service sends a stored key to the host that one of these headers names.
    b"x-portkey-",
)

_ASSISTANT = re.compile(r"/(?:ajax-)?api/[0-9.]+/mlflow/assistant(?:/.*)?", re.DOTALL)
_ASSISTANT_CONFIG = re.compile(r"/ajax-api/3\.0/mlflow/assistant/config")

_SAFE_METHODS = frozenset({"GET", "HEAD"})
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?")

Headers = dict[bytes, list[bytes]]

log = logging.getLogger(__name__)


class Gate:
    """Passes on requests to one of our hosts that have valid credentials and aren't cross-site.

    With the viewer's credentials only the requests that `may_view` allows pass. Only GET and HEAD
    of `/health` need no credentials; calls back from MLflow need a pass from `callbacks`.

    `hosts` are names without port; a `*` in one stands for letters, digits and hyphens.
    `trusted_proxies` is how many proxies of ours are between the client and Google's front end.
    `on_this_computer` means that only programs on this computer can connect. During a rotation,
    the previous passwords are accepted too, until their time; `now` returns the time in seconds
    since 1970. `clock` returns seconds. `logins` checks the logins of people's accounts, if there
    are accounts; the user is then their administrator. `sign_in` is for accounts behind
    Identity-Aware Proxy. Each request then needs its valid assertion. The caller is the person whom
    it names, or the login of HTTP Basic if the request has one.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        user: Credentials,
        viewer: Credentials | None = None,
        previous_user: PreviousCredentials | None = None,
        previous_viewer: PreviousCredentials | None = None,
        hosts: Iterable[str],
        callbacks: Callbacks,
        trusted_proxies: int = 0,
        on_this_computer: bool = False,
        logins: Logins | None = None,
        sign_in: SignIn | None = None,
        clock: Callable[[], float] = monotonic,
        now: Callable[[], float] = time,
    ) -> None:
        self.app = app
        self._logins = logins
        self._sign_in = sign_in
        self._identities = (
            Identity(user.username, is_admin=True),
            Identity(viewer.username, is_admin=False) if viewer else None,
        )
        self._user = _Login(user, previous_user)
        # Without a viewer, all comparisons are still made and take the same time.
        self._viewer = _Login(viewer, previous_viewer) if viewer else self._user
        self._now = now
        self._failed = FailedLogins()
        self._last_failed = ""
        self._callbacks = callbacks
        self._trusted_proxies = trusted_proxies
        self._on_this_computer = on_this_computer
        self._clock = clock
        names = "|".join(re.escape(host).replace(r"\*", "[a-z0-9-]+") for host in hosts)
        self._host = re.compile(rf"({names})(:[0-9]{{1,5}})?")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            called_back = self._callbacks.accepted(scope)
            headers = _grouped(scope)
            if not called_back and (refusal := await self._refusal(scope, headers)):
                await _send(refusal, send)
                return
            if _is_probe(scope):
                # A probe has no login, so its body isn't read.
                receive = _no_body()
            await self.app(self._behind(called_back or scope, headers), receive, send)
        elif scope["type"] == "websocket":
            # MLflow has no websockets. Closing before accepting results in a 403.
            await send({"type": "websocket.close", "code": 1008})
        else:
            raise ValueError(f"refused a scope of type {scope['type']}")

    async def _refusal(self, scope: Scope, headers: Headers) -> "FixedResponse | None":
        if self._failed.untold:
            self._tell_of_failures()
        if _is_probe(scope):
            return None
        host = _single(headers, b"host").lower()
        if not self._host.fullmatch(host):
            return WRONG_HOST
        address = await self._signed_in(self._sign_in, scope, headers) if self._sign_in else ""
        if isinstance(address, FixedResponse):
            return address
        given = _credentials(headers, _login_header(scope, headers))
        digest = sha256(given).digest()
        now = self._now()
        # Both are always compared, so that the time says nothing.
        user, viewer = self._user.match(digest, now), self._viewer.match(digest, now)
        is_user, is_viewer = user is not None, viewer is not None
        if self._logins:
            admins, viewers = self._identities
            caller = admins if is_user else viewers if is_viewer else None
            if caller is None:
                if self._sign_in and not _has_login(headers, _login_header(scope, headers)):
                    found = await _account(self._sign_in, address)
                else:
                    found = await self._person(self._logins, scope, headers, given)
                if isinstance(found, FixedResponse):
                    return found
                caller, is_viewer = found, False
            CALLER.set(caller)
            fields = scope.setdefault(LOG_FIELDS, {})
            fields["user"] = caller.username
            if address and address != caller.username:
                fields["google"] = address
            audit.begin(scope)
        elif not (is_user or is_viewer):
            return self._refused_login(scope, headers)
        if (user or viewer) == "previous":
            scope.setdefault(LOG_FIELDS, {}).update(
                previous_password="tracking" if is_user else "viewer",
                client=self._client(scope, headers),
            )
        if _is_cross_site(scope["method"], host, headers):
            return CROSS_SITE
        looks = is_viewer and not is_user
        LOOKING.set(looks)
        if looks and not may_view(scope["method"], scope["path"]):
            return ONLY_VIEWER
        if _ASSISTANT.fullmatch(scope["path"]) and not self._may_assist(scope, host):
            return NO_ASSISTANT
        return None

    async def _signed_in(
        self, sign_in: SignIn, scope: Scope, headers: Headers
    ) -> "str | FixedResponse":
        """Returns the address of the person whom Google has signed in, or the refusal."""
        assertion = _single(headers, assertions.HEADER).encode("latin-1")
        try:
            return await sign_in.address(assertion)
        except assertions.NotSigned as error:
            scope.setdefault(LOG_FIELDS, {})["assertion"] = str(error)
            return NOT_SIGNED
        except assertions.NoKeys:
            return BUSY

    async def _person(
        self, logins: Logins, scope: Scope, headers: Headers, given: bytes
    ) -> "Identity | FixedResponse":
        """Returns the account of a login, or the refusal."""
        if not given:
            return self._refused_login(scope, headers)
        if identity := logins.remembered(given):
            return identity
        network = network_of(self._client(scope, headers))
        try:
            found = await logins.check(
                given, network, wait=self._failed.wait(network, self._clock())
            )
        except Busy:
            return BUSY
        except Exception:
            log.exception("a login can't be checked")
            return BUSY
        if isinstance(found, Identity):
            return found
        if not found.wait:
            return self._refused_login(scope, headers)
        self._failed.untold += 1
        return self._told_to_wait(scope, network, found.wait)

    def _may_assist(self, scope: Scope, host: str) -> bool:
        """Whether MLflow's Assistant, which runs programs, may serve this request.

        It may if the programs run on the caller's own computer. MLflow's page always reads the
        assistant's configuration, to find out whether it is available.
        """
        if scope["method"] in _SAFE_METHODS and _ASSISTANT_CONFIG.fullmatch(scope["path"]):
            return True
        return (
            self._on_this_computer
            and not self._trusted_proxies
            and is_direct_and_local(scope)
            and _LOOPBACK.fullmatch(host) is not None
        )

    def _behind(self, scope: Scope, headers: Headers) -> Scope:
        """Returns the request as the code behind the gate sees it."""
        login = _login_header(scope, headers)
        # Keep a provider's own key, if our login came in the other header and isn't repeated here.
        theirs = login == GATEWAY_LOGIN and not self._is_ours(headers)
        kept = b"authorization" if theirs else None
        host = _single(headers, b"host").lower()
        behind: Scope = {
            **scope,
            "scheme": "http" if _LOOPBACK.fullmatch(host) else "https",
            "client": (self._client(scope, headers), 0),
            "headers": [
                (name, value)
                for name, value in scope["headers"]
                if name == kept or not (name in _CONSUMED or name.startswith(_CONSUMED_PREFIXES))
            ],
        }
        if _is_probe(scope):
            behind["headers"] = [header for header in behind["headers"] if header[0] == b"host"]
        if scope["path"].startswith(GATEWAY) and scope["method"] == "POST":
            self._callbacks.offer(behind)
        if DEPTH in scope:
            LOOKING.set(False)
        return behind

    def _is_ours(self, headers: Headers) -> bool:
        given = _credentials(headers, b"authorization")
        if self._logins and given:
            return True  # it may be a person's
        digest = sha256(given).digest()
        now = self._now()
        return bool(self._user.match(digest, now) or self._viewer.match(digest, now))

    def _client(self, scope: Scope, headers: Headers) -> str:
        peer = scope.get("client") or ("unknown",)
        forwarded_for = headers.get(b"x-forwarded-for", ())
        return address_of(peer[0], forwarded_for, trusted_proxies=self._trusted_proxies)

    def _refused_login(self, scope: Scope, headers: Headers) -> "FixedResponse":
        unauthorized = NO_ACCOUNT if self._logins else UNAUTHORIZED
        # A request without credentials isn't a guess: browsers send one before they prompt.
        if _login_header(scope, headers) not in headers:
            return unauthorized
        client = network_of(self._client(scope, headers))
        wait = self._failed.add(client, self._clock())
        return self._told_to_wait(scope, client, wait) if wait else unauthorized

    def _told_to_wait(self, scope: Scope, client: str, wait: int) -> "FixedResponse":
        scope[NOT_LOGGED] = True
        self._last_failed = client
        self._tell_of_failures()
        return too_many(wait, _YOURS if self._logins else _THE_RIGHT_ONES)

    def _tell_of_failures(self) -> None:
        """Log many refusals in one line; the last ones of a burst, with the next request."""
        if refused := self._failed.to_tell(self._clock()):
            log.warning(
                "refused %d requests with wrong credentials from clients with too many failed "
                "logins, the last from %s",
                refused,
                self._last_failed,
                extra={"fields": {"refused": refused, "client": self._last_failed}},
            )


class _Login:
    """The password of a user and, during a rotation, the previous one."""

    def __init__(self, current: Credentials, previous: PreviousCredentials | None) -> None:
        self._current = current.digest()
        self._previous = previous.credentials.digest() if previous else self._current
        self._until = previous.until if previous else 0.0

    def match(self, digest: bytes, now: float) -> Literal["current", "previous"] | None:
        """Returns which password a digest has. The time that this takes says nothing."""
        is_current = hmac.compare_digest(digest, self._current)
        is_previous = hmac.compare_digest(digest, self._previous)
        if is_current:
            return "current"
        return "previous" if is_previous and now < self._until else None


class FixedResponse:
    """A response that is the same for everyone and built once."""

    def __init__(self, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
        body = text.encode()
        self.start: Message = {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
                (b"x-frame-options", b"SAMEORIGIN"),
                *headers,
            ],
        }
        self.body: Message = {"type": "http.response.body", "body": body}


WRONG_HOST = FixedResponse(
    403,
    "This server does not serve that host name. Use the stack's output tracking_uri; a "
    "custom domain must be listed in the setting customDomains, for example: pulumi config set "
    "--path 'customDomains[0]' mlflow.example.com\n",
)
_THE_RIGHT_ONES = (
    "The right ones are the stack's outputs tracking_username and tracking_password; MLflow's "
    "client reads them from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.\n"
)
_YOURS = (
    "Use the name and password of your account; MLflow's client reads them from "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. An administrator of this server makes "
    "accounts and resets passwords.\n"
)
_CHALLENGE = (b"www-authenticate", b'Basic realm="MLflow", charset="UTF-8"')
UNAUTHORIZED, NO_ACCOUNT = (
    FixedResponse(
        401,
        f"No username and password were given, or they are wrong. {right_ones}",
        _CHALLENGE,
    )
    for right_ones in (_THE_RIGHT_ONES, _YOURS)
)
BUSY = FixedResponse(
    503,
    "The login can't be checked at the moment: try again.\n",
    (b"retry-after", b"5"),
)
NOT_SIGNED = FixedResponse(
    403,
    "This server accepts only requests that Google's Identity-Aware Proxy has let through for it. "
    "Use the stack's output tracking_uri. If you do, the field `assertion` in the server's log "
    "says why the proxy's assertion isn't accepted.\n",
)
ONLY_VIEWER = FixedResponse(
    403,
    "This username may read everything and change nothing. This request requires the other one: "
    "the stack's outputs tracking_username and tracking_password.\n",
)
NO_ASSISTANT = FixedResponse(
    403,
    "MLflow's Assistant runs programs on the server's computer, so it serves only a browser on "
    "that computer: start the stack there with make local, and open http://localhost:8080.\n",
)
CROSS_SITE = FixedResponse(
    403,
    "This request comes from another site's page and is refused. Open this server's own address "
    "in the browser, and do it there.\n",
)


def too_many(wait: int, right_ones: str = _THE_RIGHT_ONES) -> FixedResponse:
    """Returns a refusal with a wait; logins that were right before are accepted meanwhile."""
    return FixedResponse(
        429,
        f"There were too many failed logins. Wait {wait} s before the next attempt. {right_ones}",
        (b"retry-after", str(wait).encode()),
    )


def no_account(address: str) -> FixedResponse:
    """Returns the refusal for a person whom Google has signed in; browsers prompt for a login."""
    return FixedResponse(
        401,
        f"Google has signed you in as {address}, which has no account on this server. Ask an "
        "administrator for one, or log in with an account's name and password.\n",
        _CHALLENGE,
    )


async def _account(sign_in: SignIn, address: str) -> Identity | FixedResponse:
    """Returns the account of a person whom Google has signed in, or the refusal."""
    try:
        return await sign_in.account(address) or no_account(address)
    except Busy:
        return BUSY
    except Exception:
        log.exception("an account can't be read")
        return BUSY


async def _send(refusal: FixedResponse, send: Send) -> None:
    # Copy: outer middleware may append headers.
    await send({**refusal.start, "headers": list(refusal.start["headers"])})
    await send(refusal.body)


def _single(headers: Headers, name: bytes) -> str:
    """Returns a header's value, or an empty string if there is none or several."""
    values = headers.get(name, [])
    return values[0].decode("latin-1") if len(values) == 1 else ""


def _is_probe(scope: Scope) -> bool:
    """Whether this is a health probe, with exactly this path before decoding."""
    return bool(scope["raw_path"] == b"/health" and scope["method"] in _SAFE_METHODS)


def _no_body() -> Receive:
    """Returns a `receive` that gives an empty body and then blocks."""
    bodies = iter([b""])

    async def receive() -> Message:
        if (body := next(bodies, None)) is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _grouped(scope: Scope) -> Headers:
    headers: Headers = {}
    for name, value in scope["headers"]:
        if name in headers:
            headers[name].append(value)
        else:
            headers[name] = [value]
    return headers


def _login_header(scope: Scope, headers: Headers) -> bytes:
    """Returns the name of the header that has the login."""
    if scope["path"].startswith(GATEWAY) and any(headers.get(GATEWAY_LOGIN, ())):
        return GATEWAY_LOGIN
    return b"authorization"


def _has_login(headers: Headers, login: bytes) -> bool:
    """Whether the header attempts to log in: it is HTTP Basic, or there are several.

    A single one with another scheme isn't for this server: Identity-Aware Proxy's own token.
    """
    values = headers.get(login, [])
    return len(values) > 1 or any(value[:6].lower().strip() == b"basic" for value in values)


def _credentials(headers: Headers, login: bytes) -> bytes:
    """Returns `user:password`, or nothing if the header isn't HTTP Basic.

    Its digest is compared, which takes the same time whether the user or the password is wrong.
    """
    scheme, _, token = _single(headers, login)[:MAX_AUTHORIZATION].partition(" ")
    try:
        is_basic = scheme.lower() == "basic"
        return a2b_base64(token.strip(), strict_mode=True) if is_basic else b""
    except ValueError:
        return b""


def _is_cross_site(method: str, host: str, headers: Headers) -> bool:
    """Whether a page of another site made this request.

    A browser adds the credentials that it knows to requests from any site's page. It also states
    where a request comes from, in Origin (https://fetch.spec.whatwg.org/#origin-header) and in
    Sec-Fetch-Site (https://www.w3.org/TR/fetch-metadata/). Other clients send neither. Following a
    link from another site is allowed, nothing else.
    """
    site = _single(headers, b"sec-fetch-site") if b"sec-fetch-site" in headers else "none"
    if b"origin" in headers:
        scheme = "http" if _LOOPBACK.fullmatch(host) else "https"
        origin = _single(headers, b"origin").lower()
        # `gcloud run services proxy` sets the service as the host of requests that the browser
        # sends to localhost. Pages of other sites, or of other ports, aren't same-origin.
        proxied = site == "same-origin" and _LOOPBACK.fullmatch(origin.removeprefix("http://"))
        if origin != f"{scheme}://{host}" and not proxied:
            return True
    if site in ("same-origin", "none"):
        return False
    followed = _single(headers, b"sec-fetch-mode") == "navigate"
    return not (followed and method in _SAFE_METHODS)
