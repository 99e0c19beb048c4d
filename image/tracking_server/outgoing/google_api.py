"""Makes the server's own connections to Google's APIs.

Apart from the boot, only this module asks the metadata server.
"""

from typing import Any, TypeVar

import requests
from google.auth.compute_engine import Credentials
from google.auth.transport.requests import AuthorizedSession, Request
from requests.adapters import HTTPAdapter

from tracking_server.outgoing.egress import own_connection

SCOPE = "https://www.googleapis.com/auth/cloud-platform"

S = TypeVar("S", bound=requests.Session)


def server_credentials() -> Credentials:
    """Returns the credentials of the container's service account, from the metadata server.

    The universe domain is set, because google-auth would otherwise ask for it over its own
    connection, which `egress` refuses.
    """
    return Credentials(scopes=[SCOPE], universe_domain="googleapis.com")


class OwnAdapter(HTTPAdapter):
    """Connects to Google's APIs, even if they are in a private network."""

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        with own_connection():
            return super().send(*args, **kwargs)


def own_request() -> Request:
    """Returns the transport for refreshing credentials."""
    return Request(public_session())


def own_session(credentials: Credentials) -> AuthorizedSession:
    """Returns a session for calls to Google's APIs with these credentials."""
    return _with_own_adapter(AuthorizedSession(credentials, auth_request=own_request()))


def public_session() -> requests.Session:
    """Returns a session for Google's public files, without credentials."""
    return _with_own_adapter(requests.Session())


def _with_own_adapter(session: S) -> S:
    for scheme in ("https://", "http://"):
        session.mount(scheme, OwnAdapter(max_retries=3))
    return session
