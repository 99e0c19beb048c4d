"""Google's APIs as the container sees them, from the stand-ins of local/."""

import os
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

from aiohttp import web
from tracking_server.boot.settings import SecretVersions, ServerSettings

from fake_google.endpoints import Endpoints, refusal
from fake_google.iam.policy import Grant, Policy, bucket, secret
from fake_google.iam.sign_blob import Keys
from fake_google.metadata_server import Identities, metadata_server
from fake_google.secret_manager import SecretStore, secret_manager
from fake_google.state import State
from fake_google.storage.api import Storage
from fake_google.storage.objects import Store

PROJECT, NUMBER = "my-project", "123456789012"
ACCESSOR = "roles/secretmanager.secretAccessor"
BUCKET = "my-bucket"

Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
"""Replaces the bucket's response to a request, if it returns one."""


class Google:
    """A metadata server, a Secret Manager and a bucket.

    The server is granted every stored secret at once, and the bucket too.
    """

    account = "mlflow-server@my-project.iam.gserviceaccount.com"
    signer = "mlflow-signer@my-project.iam.gserviceaccount.com"

    def __init__(self, folder: Path) -> None:
        self._endpoints = Endpoints()
        self._policy = Policy()
        self._secrets = SecretStore(State(folder))
        self._names = (f"secret_{number}" for number in count())
        self._failures: list[str] = []
        identities = Identities()
        metadata = self._endpoints.serve(
            metadata_server(
                identities=identities, email=self.account, project=PROJECT, number=NUMBER
            )
        ).removeprefix("http://")
        working = secret_manager(
            secrets=self._secrets,
            policy=self._policy,
            identities=identities,
            project=PROJECT,
            number=NUMBER,
        )

        async def handle(request: web.Request) -> web.StreamResponse:
            if not self._failures:
                return await working(request)
            failure = self._failures.pop()
            if failure == "cut":
                assert request.transport is not None
                request.transport.close()
                return web.Response()
            return refusal(int(failure), "as told", status="TOLD")

        self.secret_manager = self._endpoints.serve(handle)
        state = State(folder)
        state.create()
        self.objects = Store(state.directory("storage"))
        self.objects.create_bucket(BUCKET, {})
        member = f"serviceAccount:{self.account}"
        self._policy.add(Grant("roles/storage.objectUser", member, bucket(BUCKET)))
        self.storage = Storage(
            store=self.objects, policy=self._policy, identities=identities, keys=Keys(state)
        )
        self.fault: Fault | None = None

        async def handle_storage(request: web.Request) -> web.StreamResponse:
            answer = await self.fault(request) if self.fault else None
            return answer or await self.storage.handle(request)

        self.environment = {
            "GCP_PROJECT": PROJECT,
            "ARTIFACT_SIGNER": self.signer,
            "GCE_METADATA_HOST": metadata,
            "GCE_METADATA_IP": metadata,
            "SECRET_MANAGER_ENDPOINT": self.secret_manager,
            "STORAGE_EMULATOR_HOST": self._endpoints.serve(handle_storage),
        }
        # google-auth reads these while it is imported.
        os.environ.update(self.environment)

    def store(self, value: str, *, enabled: bool = True) -> str:
        """Create a secret with one version. Returns the name for the container's environment."""
        name = next(self._names)
        self._secrets.create(name)
        version = self._secrets.add_version(name, value.encode(), enabled=enabled)
        self.grant(name)
        return f"{name}/versions/{version}"

    def store_further(self, version: str, value: str) -> str:
        """Add a version to the secret of an earlier version."""
        name = version.partition("/")[0]
        return f"{name}/versions/{self._secrets.add_version(name, value.encode())}"

    def destroy(self, version: str) -> None:
        name, _, number = version.partition("/versions/")
        self._secrets.destroy_version(name, number)

    def grant(self, name: str) -> None:
        self._policy.add(Grant(ACCESSOR, f"serviceAccount:{self.account}", secret(PROJECT, name)))

    def revoke(self, name: str) -> None:
        self._policy.grants = [
            g for g in self._policy.grants if g.resource != secret(PROJECT, name)
        ]

    def answer_next(self, failure: str, times: int) -> None:
        """Set Secret Manager's response to the next calls: a status, or `cut` for none."""
        self._failures = [failure] * times

    def settings(self, versions: SecretVersions, *, patience: int = 0) -> ServerSettings:
        return ServerSettings(
            project=PROJECT,
            bind_address="127.0.0.1",
            port=8080,
            artifacts="proxied",
            artifact_signer=self.signer,
            allowed_hosts=("localhost",),
            pool_size=8,
            processes=1,
            max_concurrency=80,
            memory=512 * 1024 * 1024,
            secrets=versions,
            trusted_proxies=0,
            internal_networks=(),
            cloudsql_root="/cloudsql",
            secret_manager_endpoint=self.secret_manager,
            boot_patience=patience,
        )

    def close(self) -> None:
        self._endpoints.close()
        self.objects.close()
