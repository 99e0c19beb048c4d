"""Adds a Google login to MLflow's requests, in addition to MLflow's username and password.

For stacks whose `access` is iam or iap. MLflow uses this plug-in for each request if
MLFLOW_TRACKING_AUTH is

- `google-iam`: adds an ID token in X-Serverless-Authorization, which Cloud Run reads instead of
  Authorization: https://cloud.google.com/run/docs/authenticating/service-to-service
- `google-iap`: adds a JWT signed by a service account in Proxy-Authorization, which Identity-Aware
  Proxy reads instead of Authorization; it passes Authorization on unchanged:
  https://cloud.google.com/iap/docs/authentication-howto

google-auth finds the credentials: GOOGLE_APPLICATION_CREDENTIALS, the login of
`gcloud auth application-default login`, or the account that the machine runs as.

A token is only sent to the server that it was made for: over https, or over http to this computer,
and never to another server after a redirect.
"""

import ipaddress
import json
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin, urlsplit

import google.auth
from google.auth import impersonated_credentials, jwt
from google.auth.transport.requests import AuthorizedSession, Request
from google.oauth2 import credentials as user_credentials
from google.oauth2 import id_token
from mlflow.tracking.request_auth.abstract_request_auth_provider import RequestAuthProvider
from requests import PreparedRequest, Response
from requests.auth import AuthBase

IAM_CREDENTIALS = "https://iamcredentials.googleapis.com"
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
LIFETIME = 3600
# How many seconds before its end a token is renewed, so that it stays valid during the request.
RENEWED_BEFORE = 300
DEFAULT_PORTS = {"http": 80, "https": 443}


class LoginProblem(Exception):
    """A problem that the user can fix; the text says how."""


def cloud_run_token(server: str) -> str:
    """Returns an ID token that only this server accepts."""
    found, _ = google.auth.default(scopes=SCOPES)
    if isinstance(found, impersonated_credentials.Credentials):
        found = impersonated_credentials.IDTokenCredentials(
            found, target_audience=server, include_email=True
        )
    elif not isinstance(found, user_credentials.Credentials):
        found = id_token.fetch_id_token_credentials(server)
    found.refresh(Request())
    # A person's login comes with an ID token for gcloud, which Cloud Run accepts too.
    token = found.id_token if isinstance(found, user_credentials.Credentials) else found.token
    if not token:
        raise LoginProblem(
            "The Google login here has no ID token. Run gcloud auth application-default login "
            "again, or name a service account in GOOGLE_APPLICATION_CREDENTIALS"
        )
    return str(token)


def identity_aware_proxy_token(server: str) -> str:
    """Returns a JWT for all paths of this server. A person's login can't sign one."""
    found, _ = google.auth.default(scopes=SCOPES)
    # On Google's machines, the account's name is only known after a refresh.
    found.refresh(Request())
    email = getattr(found, "service_account_email", None)
    if not email:
        raise LoginProblem(
            "Identity-Aware Proxy lets programs in as a service account, and the Google login here "
            "isn't a service account's. Run gcloud auth application-default login "
            "--impersonate-service-account=train@my-project.iam.gserviceaccount.com"
        )
    now = int(time.time())
    claims = {"iss": email, "sub": email, "aud": f"{server}/*", "iat": now, "exp": now + LIFETIME}
    answer = AuthorizedSession(found).post(
        f"{IAM_CREDENTIALS}/v1/projects/-/serviceAccounts/{email}:signJwt",
        json={"payload": json.dumps(claims)},
        timeout=30,
    )
    if answer.status_code != 200:
        raise LoginProblem(
            f"{email} may not sign a token for Identity-Aware Proxy ({answer.status_code}: "
            f"{answer.text[:200].strip()}). It needs roles/iam.serviceAccountTokenCreator on itself"
        )
    return str(answer.json()["signedJwt"])


def server_of(url: str) -> str:
    """Returns an address's scheme, host and port, without a password that it may contain."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    is_default = parts.port in (None, DEFAULT_PORTS.get(parts.scheme))
    return f"{parts.scheme}://{host}" + ("" if is_default else f":{parts.port}")


def is_safe(server: str) -> bool:
    """Returns whether no one on the way to the server can read the requests."""
    parts = urlsplit(server)
    try:
        is_here = ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        is_here = parts.hostname == "localhost"
    return parts.scheme == "https" or (parts.scheme == "http" and is_here)


class GoogleLogin(AuthBase):
    """Adds a token to each request's headers, and keeps the token until shortly before its end."""

    def __init__(self, header: str, new_token: Callable[[str], str]) -> None:
        self._header, self._new_token = header, new_token
        self._tokens: dict[str, tuple[str, float]] = {}
        # MLflow uploads and logs from several threads.
        self._lock = threading.Lock()

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        server = server_of(str(request.url))
        if not is_safe(server):
            raise LoginProblem(
                f"{server} is plain http, which anyone on the way can read, so no Google token is "
                "sent there. Set MLFLOW_TRACKING_URI to the stack's output tracking_uri, for "
                "example https://mlflow-123456789012.us-central1.run.app; http is only for this "
                "computer, for example http://localhost:8080"
            )
        request.headers[self._header] = f"Bearer {self._token(server)}"
        request.register_hook("response", self._drop_before_another_server)
        return request

    def _drop_before_another_server(self, response: Response, **_: Any) -> None:
        """Remove the token from a request that another server will get a copy of.

        requests calls this before it follows a redirect. It copies all headers of the request that
        was redirected, and removes only `Authorization` for another server.
        """
        if not response.is_redirect:
            return
        try:
            target = server_of(urljoin(response.url, response.headers["location"]))
        except ValueError:  # not an address
            target = ""
        if target != server_of(response.url):
            response.request.headers.pop(self._header, None)

    def _token(self, server: str) -> str:
        with self._lock:
            token, expires = self._tokens.get(server, ("", 0.0))
            if expires < time.time() + RENEWED_BEFORE:
                token = self._new_token(server)
                expires = float(jwt.decode(token, verify=False)["exp"])
                self._tokens[server] = token, expires
            return token


class CloudRun(RequestAuthProvider):
    def __init__(self) -> None:
        self._auth = GoogleLogin("X-Serverless-Authorization", cloud_run_token)

    def get_name(self) -> str:
        return "google-iam"

    def get_auth(self) -> AuthBase:
        return self._auth


class IdentityAwareProxy(RequestAuthProvider):
    def __init__(self) -> None:
        self._auth = GoogleLogin("Proxy-Authorization", identity_aware_proxy_token)

    def get_name(self) -> str:
        return "google-iap"

    def get_auth(self) -> AuthBase:
        return self._auth
