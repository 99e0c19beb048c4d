"""A project on the stand-ins, declared by hand, without Postgres."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fake_google.cloud import Cloud
from fake_google.project import Project
from fake_google.state import State

PROJECT = "local-project"
SERVER = f"mlflow-server@{PROJECT}.iam.gserviceaccount.com"
SIGNER = f"mlflow-signer@{PROJECT}.iam.gserviceaccount.com"
STRANGER = f"stranger@{PROJECT}.iam.gserviceaccount.com"
BUCKET = "local-project-artifacts"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(
    method: str, url: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    request = urllib.request.Request(url, data=body, method=method, headers=dict(headers or {}))
    if body is None and method in ("POST", "PUT"):
        request.data = b""
    try:
        answer = _DIRECT.open(request, timeout=10)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return Answer(answer.status, dict(answer.headers.items()), answer.read())


class StandIns:
    """Shortcuts for what tests declare and request."""

    def __init__(self, root: Path) -> None:
        self.said: list[str] = []
        state = State(root / ".local")
        state.create()
        self.cloud = Cloud(
            Project(
                state=state,
                id=PROJECT,
                region="us-central1",
                container=None,
                say=self.said.append,
            )
        )

    def declare(self, kind: str, **inputs: Any) -> tuple[str, dict[str, Any]]:
        return self.cloud.ensure(f"gcp:{kind}", "test", inputs)

    def enable(self, *apis: str) -> None:
        for api in apis:
            self.declare("projects/service:Service", service=f"{api}.googleapis.com")

    def bearer(self, email: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.cloud.project.identities.token(email).value}"}

    def secret(self, secret_id: str, value: str, *, enabled: bool = True) -> str:
        resource, _ = self.declare("secretmanager/secret:Secret", secretId=secret_id)
        _, outputs = self.declare(
            "secretmanager/secretVersion:SecretVersion",
            secret=resource,
            secretData=value,
            enabled=enabled,
        )
        return str(outputs["version"])

    def account(self, email: str) -> str:
        name, _ = self.declare("serviceaccount/account:Account", accountId=email.partition("@")[0])
        return name

    def role(self, role_id: str, *permissions: str, title: str = "A role") -> str:
        name, _ = self.declare(
            "projects/iAMCustomRole:IAMCustomRole",
            roleId=role_id,
            title=title,
            permissions=permissions,
        )
        return name

    def may_sign(self, email: str, *, as_: str) -> None:
        self.declare(
            "serviceaccount/iAMMember:IAMMember",
            serviceAccountId=f"projects/{PROJECT}/serviceAccounts/{as_}",
            role=self.role("mlflow_signer", "iam.serviceAccounts.signBlob"),
            member=f"serviceAccount:{email}",
        )

    def object(self, name: str) -> str:
        return f"{self.cloud.project.storage_endpoint}/{BUCKET}/{name}"


@contextmanager
def project(root: Path) -> Iterator[StandIns]:
    made = StandIns(root)
    try:
        made.enable("cloudresourcemanager", "iam", "secretmanager", "storage", "run", "sqladmin")
        for email in (SERVER, SIGNER, STRANGER):
            made.account(email)
        made.declare("storage/bucket:Bucket", name=BUCKET, location="us-central1")
        for email in (SERVER, SIGNER):
            made.declare(
                "storage/bucketIAMMember:BucketIAMMember",
                bucket=BUCKET,
                role="roles/storage.objectUser",
                member=f"serviceAccount:{email}",
            )
        made.may_sign(SERVER, as_=SIGNER)
        yield made
    finally:
        made.cloud.project.close()
