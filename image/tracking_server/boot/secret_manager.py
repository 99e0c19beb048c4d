"""Reads the values of secrets from Secret Manager, with Python's own HTTP client.

Importing Google's library would take longer than everything else before the first response.
https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access
"""

import json
import os
import ssl
from base64 import b64decode
from contextlib import closing
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

import certifi

from tracking_server.outgoing.egress import own_connection

CALL_TIMEOUT = 5.0
"""Seconds for each step of a call."""

LARGEST = 256 * 1024
"""Bytes of a response. A secret has at most 64 KiB: https://cloud.google.com/secret-manager/quotas"""

SCOPE = "https://www.googleapis.com/auth/cloud-platform"

FAILURES = (OSError, HTTPException)
"""Exceptions of a call without a complete response."""


class ApiError(Exception):
    """A response that isn't a success."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class SecretManager:
    """Calls Secret Manager as the container's service account, with one access token."""

    def __init__(self, endpoint: str) -> None:
        """Ask the metadata server for a token.

        Raises:
            ApiError, OSError, HTTPException: if it doesn't return one.
        """
        self._endpoint = endpoint
        self._token: str = json.loads(_ask_metadata(f"token?scopes={SCOPE}"))["access_token"]

    def access(self, name: str) -> bytes:
        """Returns the value of `projects/PROJECT/secrets/SECRET/versions/NUMBER`.

        Raises:
            ApiError, OSError, HTTPException: if Secret Manager doesn't return it.
        """
        headers = {"Authorization": f"Bearer {self._token}"}
        response = json.loads(_get(f"{self._endpoint}/v1/{name}:access", headers))
        return b64decode(response["payload"].get("data", ""))


def account() -> str:
    """Returns the address of the container's service account, for an error message."""
    try:
        return _ask_metadata("email").decode()
    except (ApiError, *FAILURES):
        return "the server's account"


def _ask_metadata(path: str) -> bytes:
    """https://cloud.google.com/compute/docs/metadata/querying-metadata"""
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/{path}"
    return _get(url, {"Metadata-Flavor": "Google"})


def _get(url: str, headers: dict[str, str]) -> bytes:
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection = (
        HTTPSConnection(host, parts.port, timeout=CALL_TIMEOUT, context=_certificates())
        if parts.scheme == "https"
        else HTTPConnection(host, parts.port, timeout=CALL_TIMEOUT)
    )
    with own_connection(), closing(connection):
        connection.request("GET", url.partition(parts.netloc)[2], headers=headers)
        response = connection.getresponse()
        body = response.read(LARGEST)
    if response.status != 200:
        raise ApiError(response.status)
    return body


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certifi.where())
