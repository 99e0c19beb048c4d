"""The server's own Google identity, which MLflow must not find, and its connections to Google.

MLflow looks for credentials wherever google-auth does (`google.auth.default`), for example when a
gateway endpoint of Vertex AI has none, and would send the server's token to an address of the
caller's choice. So that search ends at once here, and only this module asks the metadata server.
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
    """Have google-auth's search for credentials fail.

    https://google-auth.readthedocs.io/en/stable/reference/google.auth.html#google.auth.default
    """
    os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = _NO_SUCH_FILE
    # If that variable is removed again, google-auth still doesn't ask the metadata server.
    os.environ["NO_GCE_CHECK"] = "true"


def server_credentials() -> Credentials:
    """Of the service account that the container runs as, from the metadata server.

    Its universe is given, or google-auth would ask for it over a connection that isn't ours.
    """
    return Credentials(scopes=[SCOPE], universe_domain="googleapis.com")


class OwnAdapter(HTTPAdapter):
    """Connects wherever Google's APIs are, which may be in a private network."""

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        with own_connection():
            return super().send(*args, **kwargs)


def own_request() -> Request:
    """The transport that credentials are refreshed with."""
    return Request(_with_own_adapter(requests.Session()))


def own_session(credentials: Credentials) -> AuthorizedSession:
    """For calls of Google's APIs with these credentials."""
    return _with_own_adapter(AuthorizedSession(credentials, auth_request=own_request()))


def _with_own_adapter(session: S) -> S:
    for scheme in ("https://", "http://"):
        session.mount(scheme, OwnAdapter(max_retries=3))
    return session
