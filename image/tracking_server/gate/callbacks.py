"""Lets MLflow's guardrails call this server back with a pass in the path instead of a password.

A guardrail of the gateway calls another endpoint of the same gateway. MLflow builds the address of
that call from the current request (`get_server_base_url`) and would send the caller's login with
it. But the gate removes the login from requests. So it gives MLflow an address on this computer
whose path begins with a pass, which is valid for a few minutes and only for the gateway. With
accounts, the pass has the caller's name.
"""

import hmac
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from contextvars import ContextVar
from ipaddress import ip_address

from starlette.types import Scope

from tracking_server.accounts.identity import CALLER, Identity

PREFIX = "/callback/"

LIFETIME = 600
"""Seconds; MLflow gives up a provider's call after 300 (MLFLOW_GATEWAY_ROUTE_TIMEOUT_SECONDS)."""

DEEPEST = 3
"""Calls back within calls back; an endpoint's guardrail may name the same endpoint again."""

GATEWAY = "/gateway/"

DEPTH = "tracking_server.callback_depth"
"""A key of the scope: how many calls back led to this request."""

CALL_DEPTH: ContextVar[int] = ContextVar("call_depth", default=0)
"""The same for code that has no access to the scope."""


class Callbacks:
    """Issues and checks passes. `key` is shared by the processes of one container."""

    def __init__(
        self, *, key: bytes | None = None, port: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._key = key or secrets.token_bytes(32)
        self._host = f"127.0.0.1:{port}".encode()
        self._clock = clock

    def offer(self, scope: Scope) -> None:
        """Make MLflow send calls back from this request to this computer, with a pass."""
        depth = scope.get(DEPTH, 0) + 1
        if depth > DEEPEST:
            return
        caller = CALLER.get()
        name = urlsafe_b64encode(caller.username.encode()).decode() if caller else ""
        terms = f"{int(self._clock()) + LIFETIME}.{depth}.{name}"
        # Starlette's `base_url` begins with `app_root_path`, which routing ignores.
        scope["app_root_path"] = f"{PREFIX}{terms}.{self._signature(terms)}"
        scope["scheme"] = "http"
        scope["headers"] = [(n, v) for n, v in scope["headers"] if n != b"host"]
        scope["headers"].append((b"host", self._host))

    def accepted(self, scope: Scope) -> Scope | None:
        """Returns the request without its pass, None if it has no valid pass."""
        path: str = scope["path"]
        if not path.startswith(PREFIX):
            return None
        given, slash, rest = path.removeprefix(PREFIX).partition("/")
        terms, _, signature = given.rpartition(".")
        target = slash + rest
        if (
            scope["method"] != "POST"
            or not target.startswith(GATEWAY)
            or not is_direct_and_local(scope)
            or not hmac.compare_digest(signature.encode(), self._signature(terms).encode())
        ):
            return None
        # The signature is ours, so these have the right form.
        expires, depth_text, name = terms.split(".")
        if int(expires) < self._clock():
            return None
        depth = int(depth_text)
        CALL_DEPTH.set(depth)
        if name:
            # MLflow reads itself whether the account is still an administrator's.
            CALLER.set(Identity(urlsafe_b64decode(name).decode(), is_admin=False))
        raw_path = target.encode("utf-8", "surrogateescape")
        return {**scope, "path": target, "raw_path": raw_path, DEPTH: depth}

    def _signature(self, terms: str) -> str:
        return hmac.new(self._key, terms.encode(), "sha256").hexdigest()


_FORWARDED = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"}
)


def is_direct_and_local(scope: Scope) -> bool:
    """Whether a program on this computer made the request, with no proxy in between."""
    peer, _ = scope.get("client") or ("unknown", 0)
    try:
        is_local = ip_address(peer).is_loopback
    except ValueError:
        is_local = False
    return is_local and not any(name in _FORWARDED for name, _ in scope["headers"])
