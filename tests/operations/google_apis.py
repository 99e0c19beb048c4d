"""A stand-in for Google's APIs as `make doctor` uses them: reads with the login's token only.

Its responses and refusals are as documented: https://cloud.google.com/apis/design/errors
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import Any
from urllib.parse import unquote, urlsplit

PROJECT = "my-project"
REGION = "us-central1"
TOKEN = "ya29.canary-of-the-access-token"
ACCOUNT = f"deployer@{PROJECT}.iam.gserviceaccount.com"

Reply = tuple[int, Any]


def refusal(code: int, message: str, *details: Mapping[str, Any]) -> Reply:
    return code, {"error": {"code": code, "message": message, "details": list(details)}}


def disabled(service: str) -> Reply:
    """https://cloud.google.com/apis/design/errors#error_info"""
    return refusal(
        403,
        f"{service} has not been used in project 1 before or it is disabled.",
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "SERVICE_DISABLED",
            "domain": "googleapis.com",
            "metadata": {"service": service, "consumer": "projects/1"},
        },
    )


def denied(permission: str) -> Reply:
    return refusal(403, f"Permission '{permission}' denied on resource (or it may not exist).")


NO_QUOTA_PROJECT = refusal(
    403,
    "Your application is authenticating by using local Application Default Credentials. The "
    "orgpolicy.googleapis.com API requires a quota project, which is not set by default.",
)


def policy(*rules: Mapping[str, Any]) -> Reply:
    return 200, {"name": "projects/1/policies/x", "spec": {"rules": list(rules)}}


def limit(value: int) -> Reply:
    return 200, {
        "dimensionsInfos": [
            {"details": {"value": "5"}, "applicableLocations": ["europe-west1"]},
            {"dimensions": {"region": REGION}, "details": {"value": str(value)}},
        ]
    }


SLOW = (0, None)
NOT_JSON = (200, b"<html>proxy</html>")


@dataclass
class Asked:
    method: str
    api: str
    path: str
    # The values of the query or of the posted body.
    values: Mapping[str, list[str]]
    quota_project: str | None


@dataclass
class Google:
    """`replies` by API and start of the path; by default, a project that is ready."""

    replies: dict[tuple[str, str], Reply] = field(default_factory=dict)
    # The requested permissions that the caller lacks.
    lacking: frozenset[str] = frozenset()
    off: frozenset[str] = frozenset()
    # Replies to calls that name no quota project, for APIs that require one.
    counted: dict[str, Reply] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    # Set when no request waits any more for a slow reply.
    over: Event = field(default_factory=Event)
    # Whether the stand-in requires a token.
    guarded: bool = True

    def reply(self, asked: Asked) -> Reply:
        for (api, start), reply in self.replies.items():
            if api == asked.api and asked.path.startswith(start):
                return reply
        if asked.api in self.counted and asked.quota_project != PROJECT:
            return self.counted[asked.api]
        return self._ready(asked)

    def _ready(self, asked: Asked) -> Reply:
        match asked.api, asked.path.split("/"):
            case "token", _:
                return 200, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
            case _, [*_, last] if last.endswith((":testIamPermissions", "testPermissions")):
                has = [each for each in asked.values["permissions"] if each not in self.lacking]
                # Google omits an empty list.
                return 200, {"permissions": has} if has else {}
            case "cloudresourcemanager", ["v3", "projects", project]:
                return 200, {"name": "projects/1", "projectId": project, "state": "ACTIVE"}
            case "cloudbilling", _:
                account = "billingAccounts/012345-6789AB-CDEF01"
                return 200, {"billingEnabled": True, "billingAccountName": account}
            case "serviceusage", _:
                return 200, {
                    "services": [
                        {
                            "name": name.replace(PROJECT, "1"),
                            "state": "DISABLED" if name.split("/")[-1] in self.off else "ENABLED",
                        }
                        for name in asked.values["names"]
                    ]
                }
            case "orgpolicy", _:
                return 200, {"name": "projects/1/policies/x", "spec": {}}
            case "cloudquotas", _:
                return limit(-1)
            case "run", ["v1", *_]:
                return 200, {"locations": [{"locationId": REGION}, {"locationId": "us-east1"}]}
            case "sqladmin", ["v1", "projects", _, "instances"]:
                return 200, {}
            case "sqladmin", ["v1", "projects", _, "tiers"]:
                return 200, {"items": [{"tier": "db-f1-micro", "region": [REGION]}]}
            case "sqladmin", ["v1", "projects", project, "instances", instance]:
                return 200, {
                    "connectionName": f"{project}:{REGION}:{instance}",
                    "databaseVersion": "POSTGRES_17",
                    "state": "RUNNABLE",
                }
            case "compute", ["compute", "v1", "projects", _]:
                return 200, {"quotas": [{"metric": "NETWORKS", "limit": 5, "usage": 4}]}
        return refusal(404, "Resource not found.")


class _Server(ThreadingHTTPServer):
    # More than are sent at once: a client that finds the queue full retries after a second.
    request_queue_size = 64


def serve(google: Google) -> ThreadingHTTPServer:
    """Serve on a free port, as `http://127.0.0.1:PORT/API/PATH`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("GET", b"")

        def do_POST(self) -> None:
            self._answer("POST", self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, method: str, body: bytes) -> None:
            url = urlsplit(self.path)
            api, _, path = url.path.removeprefix("/").partition("/")
            values: dict[str, list[str]] = {}
            for pair in filter(None, url.query.split("&")):
                key, _, value = pair.partition("=")
                values.setdefault(key, []).append(unquote(value))
            if api != "token" and body:
                values = json.loads(body)
            asked = Asked(
                method=method,
                api=api,
                path=path,
                values=values,
                quota_project=self.headers["X-Goog-User-Project"],
            )
            google.asked.append(asked)
            known = self.headers["Authorization"] == f"Bearer {TOKEN}"
            if google.guarded and api != "token" and not known:
                status, answer = refusal(401, "Request had invalid authentication credentials.")
            else:
                status, answer = google.reply(asked)
            if (status, answer) == SLOW:
                google.over.wait(60)
                return
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return _Server(("127.0.0.1", 0), Handler)
