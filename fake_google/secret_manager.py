"""Secret Manager: secret versions, readable by the accounts that the declared policy allows.

https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access
"""

from __future__ import annotations

import base64
import re
from typing import Any

import google_crc32c
from aiohttp import web

from fake_google.endpoints import Handler, refusal, unauthenticated
from fake_google.iam.policy import Policy, secret
from fake_google.metadata_server import Identities
from fake_google.state import State

_ACCESS = re.compile(r"/v1/projects/([^/]+)/secrets/([^/]+)/versions/([^/:]+):access")
_FILE = "secrets.json"


class SecretStore:
    """Keeps every version that was ever added, so that a rolled-back revision finds its secrets."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._content: dict[str, Any] = state.load(_FILE)

    def create(self, secret_id: str) -> None:
        self._content.setdefault(secret_id, {})
        self._state.save(_FILE, self._content)

    def add_version(self, secret_id: str, payload: bytes, *, enabled: bool = True) -> str:
        """Adds a version unless the newest has the same value: a restart changes nothing."""
        versions = self._content[secret_id]
        entry = {
            "data": base64.b64encode(payload).decode(),
            "state": "ENABLED" if enabled else "DISABLED",
        }
        newest = str(len(versions))
        if versions.get(newest) != entry:
            newest = str(len(versions) + 1)
            versions[newest] = entry
            self._state.save(_FILE, self._content)
        return newest

    def destroy_version(self, secret_id: str, version: str) -> None:
        """Deletes a version's value; its number stays taken."""
        if secret_id in self._content:
            self._content[secret_id][version] = {"data": "", "state": "DESTROYED"}
            self._state.save(_FILE, self._content)

    def delete(self, secret_id: str) -> None:
        del self._content[secret_id]
        self._state.save(_FILE, self._content)

    def versions(self, secret_id: str) -> dict[str, Any] | None:
        return self._content.get(secret_id)


def newest(state: State, secret_id: str) -> str:
    """Returns the newest value of a secret, for this computer's own user."""
    versions = state.load(_FILE)[secret_id]
    return base64.b64decode(versions[str(len(versions))]["data"]).decode()


def secret_manager(
    *, secrets: SecretStore, policy: Policy, identities: Identities, project: str, number: str
) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        match = _ACCESS.fullmatch(request.path)
        if match is None or request.method != "GET":
            return refusal(404, f"{request.method} {request.path} is not imitated here.")
        caller = identities.caller(request)
        if caller is None:
            return unauthenticated(request)
        given, secret_id, version = match.groups()
        permission = "secretmanager.versions.access"
        if given not in (project, number) or not policy.allowed(
            caller, permission, secret(project, secret_id)
        ):
            return refusal(
                403,
                f"Permission '{permission}' denied for resource "
                f"'projects/{given}/secrets/{secret_id}/versions/{version}' (or it may not exist).",
            )
        name = f"projects/{number}/secrets/{secret_id}"
        versions = secrets.versions(secret_id)
        if not versions:
            return refusal(404, f"Secret [{name}] not found or has no versions.")
        if version == "latest":
            version = str(len(versions))
        entry = versions.get(version)
        name = f"{name}/versions/{version}"
        if entry is None:
            return refusal(404, f"Secret Version [{name}] not found.")
        if entry["state"] != "ENABLED":
            return refusal(400, f"Secret Version [{name}] is in {entry['state']} state.")
        checksum = google_crc32c.value(base64.b64decode(entry["data"]))
        payload = {"data": entry["data"], "dataCrc32c": str(checksum)}
        return web.json_response({"name": name, "payload": payload})

    return handle
