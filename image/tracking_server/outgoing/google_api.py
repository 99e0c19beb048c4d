"""Keeps the server's Google identity from MLflow, and makes the server's connections to Google.

MLflow searches for credentials with `google.auth.default`, for example when a Vertex AI endpoint of
the gateway has none, and would send the server's token to an address that a caller chose. So this
module makes that search fail, and is the only one that asks the metadata server.
"""

import os
from typing import Any, TypeVar

import requests
from google.auth.compute_engine import Credentials
from google.auth.transport.requests import AuthorizedSession, Request
from requests.adapters import HTTPAdapter

from tracking_server.outgoing.egress import own_connection

SCOPE = "https://www.googleapis.com/auth/cloud-platform"

S = TypeVar("S", bound=requests.Session)

_NO_SUCH_FILE = "/nonexistent/MLflow-has-no-Google-credentials"


def hide_from_mlflow() -> None:
    """Make google-auth's search for credentials fail.

    https://google-auth.readthedocs.io/en/stable/reference/google.auth.html#google.auth.default
    """
    os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = _NO_SUCH_FILE
    # If that variable is removed again, google-auth still doesn't ask the metadata server.
    os.environ["NO_GCE_CHECK"] = "true"


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
    return Request(_with_own_adapter(requests.Session()))


def own_session(credentials: Credentials) -> AuthorizedSession:
    """Returns a session for calls to Google's APIs with these credentials."""
    return _with_own_adapter(AuthorizedSession(credentials, auth_request=own_request()))


def _with_own_adapter(session: S) -> S:
    for scheme in ("https://", "http://"):
        session.mount(scheme, OwnAdapter(max_retries=3))
    return session
