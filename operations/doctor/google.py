"""Calls Google's APIs over REST, with the login that Pulumi will use.

It changes nothing: it only uses GET, and `testIamPermissions`, which only reads.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

import requests

# google.auth reads this when it is imported. Only Google's machines have a metadata server.
os.environ.setdefault("GCE_METADATA_TIMEOUT", "1")

import google.auth
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.auth.transport.requests import Request

ADDRESS = "https://{api}.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
CONNECT_SECONDS = 4
READ_SECONDS = 10

# Logins that Pulumi prefers to the Application Default Credentials:
# https://www.pulumi.com/registry/packages/gcp/installation-configuration/
OTHER_LOGINS = (
    "GOOGLE_CREDENTIALS",
    "GOOGLE_CLOUD_KEYFILE_JSON",
    "GCLOUD_KEYFILE_JSON",
    "GOOGLE_OAUTH_ACCESS_TOKEN",
    "GOOGLE_IMPERSONATE_SERVICE_ACCOUNT",
)
OTHER_LOGIN_SETTINGS = ("gcp:credentials", "gcp:accessToken", "gcp:impersonateServiceAccount")


@dataclass(frozen=True, kw_only=True)
class Credentials:
    # The account, if the credentials name it.
    account: str
    token: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class NoCredentials:
    """`missing` is false if there is a login that couldn't be tried; `why` has the reason."""

    why: str
    how: str
    missing: bool


LOG_IN = "gcloud auth application-default login"


def log_in(config: Mapping[str, Any]) -> Credentials | NoCredentials:
    others = [name for name in OTHER_LOGINS if os.environ.get(name)]
    others += [key for key in OTHER_LOGIN_SETTINGS if config.get(key)]
    if others:
        return NoCredentials(
            why=f"Pulumi logs in by {others[0]}, which isn't checked here",
            how="to have it checked, unset it and name the key's file in "
            "GOOGLE_APPLICATION_CREDENTIALS",
            missing=False,
        )
    try:
        with warnings.catch_warnings():
            # Ignore the warning about a login without a quota project; `Google` sets one if needed.
            warnings.simplefilter("ignore")
            credentials, _ = google.auth.default(scopes=[SCOPE])
            # google.auth is only partly typed.
            credentials.refresh(partial(Request(), timeout=READ_SECONDS))  # type: ignore[no-untyped-call]
    except DefaultCredentialsError:
        named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        if named:
            return NoCredentials(
                why="the file that GOOGLE_APPLICATION_CREDENTIALS names isn't a key or login of "
                "Google's, or can't be read",
                how=f"ls -l '{named}', or unset it and: {LOG_IN}",
                missing=True,
            )
        return NoCredentials(
            why="nobody is logged in (no Application Default Credentials)",
            how=LOG_IN,
            missing=True,
        )
    except TransportError:
        return NoCredentials(
            why="Google's login could not be reached",
            how="try again when this computer is online; behind a proxy, set HTTPS_PROXY",
            missing=False,
        )
    except GoogleAuthError:
        return NoCredentials(
            why="Google no longer accepts the login (Application Default Credentials)",
            how=LOG_IN,
            missing=True,
        )
    account = getattr(credentials, "service_account_email", "") or getattr(
        credentials, "account", ""
    )
    return Credentials(account=str(account or ""), token=str(credentials.token))


@dataclass(frozen=True, kw_only=True)
class Answer:
    # 0: no response came.
    status: int
    body: Mapping[str, Any] = field(default_factory=dict)
    # Why the body can't be used, for users; empty if it can.
    trouble: str = ""
    # The API that is off in the project, if that is the reason.
    off: str = ""

    @property
    def ok(self) -> bool:
        return not self.trouble

    @property
    def missing(self) -> bool:
        return self.status == HTTPStatus.NOT_FOUND


class Google:
    def __init__(self, *, login: Credentials, project: str) -> None:
        self._login, self._project = login, project

    def get(self, api: str, path: str, **parameters: str | list[str]) -> Answer:
        return self._ask("GET", api, path, params=parameters)

    def post(self, api: str, path: str, body: Mapping[str, Any]) -> Answer:
        return self._ask("POST", api, path, json=body)

    def _ask(self, method: str, api: str, path: str, **what: Any) -> Answer:
        """Sends a request, counted for gcloud's own project as Pulumi's requests are.

        If Google requires another project, or if an API is off in gcloud's, it is repeated with the
        stack's project.

        https://cloud.google.com/docs/quotas/quota-project
        """
        answer = self._once(method, api, path, {}, what)
        if answer.status == HTTPStatus.FORBIDDEN and (
            answer.off or "quota project" in answer.trouble
        ):
            mine = self._once(method, api, path, {"X-Goog-User-Project": self._project}, what)
            if mine.ok or mine.off:
                return mine
        return answer

    def _once(
        self, method: str, api: str, path: str, headers: Mapping[str, str], what: Mapping[str, Any]
    ) -> Answer:
        try:
            response = requests.request(
                method,
                f"{ADDRESS.format(api=api)}/{path}",
                headers={"Authorization": f"Bearer {self._login.token}", **headers},
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                **what,
            )
        except requests.Timeout:
            return Answer(status=0, trouble=f"{api}.googleapis.com did not answer in time")
        except requests.RequestException:
            return Answer(status=0, trouble=f"{api}.googleapis.com could not be reached")
        try:
            body = response.json()
        except requests.JSONDecodeError:
            body = None
        return read(api, status=response.status_code, body=body)


def read(api: str, *, status: int, body: Any) -> Answer:
    """Interprets a response by Google's error model: https://cloud.google.com/apis/design/errors"""
    host = f"{api}.googleapis.com"
    if status == HTTPStatus.OK:
        if isinstance(body, dict):
            return Answer(status=status, body=body)
        return Answer(status=status, trouble=f"{host} did not respond with JSON")
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        error = {}
    if status == HTTPStatus.FORBIDDEN and (off := _off(error)):
        return Answer(
            status=status, trouble=f"the API {off or host} is off in the project", off=off or host
        )
    trouble = {
        400: f"{host} rejected the request: {_said(error)}",
        401: "Google does not accept the login",
        403: f"not allowed to read it: {_said(error)}",
        404: "it does not exist",
        429: f"{host} refuses more requests; try again in a minute",
    }.get(status, f"{host} responded with {status}; try again in a minute")
    return Answer(status=status, trouble=trouble)


def _off(error: Mapping[str, Any]) -> str:
    """Returns the API that is off, if the error is SERVICE_DISABLED.

    https://cloud.google.com/apis/design/errors#error_info
    """
    details = error.get("details")
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, dict) and detail.get("reason") == "SERVICE_DISABLED":
            metadata = detail.get("metadata")
            service = metadata.get("service") if isinstance(metadata, dict) else None
            return str(service or "that was asked")
    return ""


def _said(error: Mapping[str, Any]) -> str:
    message = str(error.get("message") or "no reason given")
    return message if len(message) <= 200 else f"{message[:200]}…"
