"""A fake project on Google Cloud: the resources that exist in it, and their state."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from fake_google.endpoints import Endpoints
from fake_google.errors import Unsupported
from fake_google.iam import policy as iam
from fake_google.iam.policy import Condition, Grant, Policy, Resource, UnsupportedCondition
from fake_google.iam.sign_blob import Keys, iam_credentials
from fake_google.iap import Signer
from fake_google.iap_front import Front
from fake_google.metadata_server import Identities, metadata_server
from fake_google.run.container import Service
from fake_google.secret_manager import SecretStore, secret_manager
from fake_google.sql.postgres import Postgres, RecordedInstance
from fake_google.state import State
from fake_google.storage.api import Storage
from fake_google.storage.objects import Store

PROJECT_NUMBER = "100000000001"

Inputs = Mapping[str, Any]
Outputs = dict[str, Any]


@dataclass
class Live:
    """One resource as it really is, whatever a caller's state says."""

    inputs: Inputs
    outputs: Outputs


@dataclass(frozen=True)
class Container:
    """How this computer runs the image's code."""

    command: Sequence[str]
    port: int


@dataclass(frozen=True)
class JobProcess:
    """The process that a Cloud Run job is on this computer."""

    command: Sequence[str]
    environment: Mapping[str, str]


class Project:
    """The parts of a Google Cloud project that one program needs."""

    def __init__(
        self,
        *,
        state: State,
        id: str,
        region: str,
        container: Container | None,
        say: Callable[[str], None],
    ) -> None:
        """Without a container, nothing is started: instances and services are only recorded."""
        self.state, self.id, self.region = state, id, region
        self.container, self.say = container, say
        self.policy = Policy()
        self.identities = Identities()
        self.keys = Keys(state)
        self.secrets = SecretStore(state)
        self.store = Store(state.directory("storage"))
        self.databases: dict[str, Postgres | RecordedInstance] = {}
        # The size of each instance's disk in GB.
        self.disks: dict[str, int] = {}
        self.services: dict[str, Service] = {}
        # The address of Identity-Aware Proxy in front of a service, by the service's name.
        self._fronts: dict[str, str] = {}
        self.workers: dict[str, Service] = {}
        self.jobs: dict[str, JobProcess] = {}
        # By type and id.
        self.live: dict[tuple[str, str], Live] = {}
        self.enabled: set[str] = set()
        # The images of each repository, both by their address.
        self.images: dict[str, set[str]] = {}
        # The service agents: the accounts of Google's own services in this project.
        self.agents: set[str] = set()
        # Deleted identity pools, whose ids stay taken for a month.
        self.retired: set[str] = set()
        # Deleted custom roles, by full name, and when each was deleted.
        self.deleted_roles: dict[str, datetime] = {}
        # Networks that are peered with Google's own, and those that Cloud SQL has used.
        self.peered: set[str] = set()
        self.produced: set[str] = set()
        # Subnetworks where Cloud Run still keeps the addresses of deleted services.
        self.reserved: set[str] = set()
        self.stopping = threading.Event()
        self._endpoints = Endpoints()
        self.storage = Storage(
            store=self.store, policy=self.policy, identities=self.identities, keys=self.keys
        )
        self.storage_endpoint = self._endpoints.serve(self.storage.handle)
        self.secret_manager_endpoint = self._endpoints.serve(
            secret_manager(
                secrets=self.secrets,
                policy=self.policy,
                identities=self.identities,
                project=id,
                number=PROJECT_NUMBER,
            )
        )
        self.iam_credentials_endpoint = self._endpoints.serve(
            iam_credentials(
                keys=self.keys, policy=self.policy, identities=self.identities, project=id
            )
        )

    def read(self, token: str, resource_id: str) -> Live | None:
        return self.live.get((token, resource_id))

    def all(self, token: str) -> list[Inputs]:
        """Returns the inputs of every resource of a type."""
        return [live.inputs for (other, _), live in self.live.items() if other == token]

    def grant(self, member: str, role: str, resource: Resource | None, condition: Any) -> None:
        self.policy.add(_grant(member, role, resource, condition))
        if role not in iam.ROLES and role not in self.policy.custom_roles:
            self.say(f"{role} is not known here and grants {member} nothing")

    def revoke(self, member: str, role: str, resource: Resource | None, condition: Any) -> None:
        self.policy.remove(_grant(member, role, resource, condition))

    def client_environment(self) -> dict[str, str]:
        """Returns the variables with which a client on this computer reaches the bucket.

        With STORAGE_EMULATOR_HOST, google-cloud-storage would use no credentials. CLOUDSDK_CONFIG
        hides the user's own credentials.
        """
        email = f"developer@{self.id}.iam.gserviceaccount.com"
        for inputs in self.all("gcp:storage/bucket:Bucket"):
            bucket = iam.bucket(inputs["name"])
            self.grant(f"serviceAccount:{email}", "roles/storage.objectUser", bucket, None)
        return {
            "API_ENDPOINT_OVERRIDE": self.storage_endpoint,
            "CLOUDSDK_CONFIG": str(self.state.directory("home")),
            "GOOGLE_CLOUD_PROJECT": self.id,
            **self.metadata_environment(email),
        }

    def metadata_environment(self, email: str) -> dict[str, str]:
        """Starts a metadata server for this identity; returns the variables to find it."""
        handler = metadata_server(
            identities=self.identities, email=email, project=self.id, number=PROJECT_NUMBER
        )
        host = self._endpoints.serve(handler).removeprefix("http://")
        return {"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host}

    @cached_property
    def iap_signer(self) -> Signer:
        return Signer()

    @cached_property
    def iap_keys(self) -> str:
        """The address of Identity-Aware Proxy's public keys."""
        return self._endpoints.serve(self.iap_signer.serve_keys)

    def serve_front(self, name: str, front: Front, port: int) -> str:
        """Starts Identity-Aware Proxy in front of a service, and returns its address."""
        self._fronts[name] = self._endpoints.serve(front.handle, port)
        return self._fronts[name]

    def stop_front(self, name: str) -> None:
        if address := self._fronts.pop(name, None):
            self._endpoints.stop(address)

    def cloudsql_root(self) -> Path:
        """Returns the directory that stands for a container's /cloudsql."""
        return self.state.cloudsql_root()

    def close(self) -> None:
        """Stops everything, dependents first."""
        self.stopping.set()
        for container in (*self.workers.values(), *self.services.values()):
            container.stop()
        for database in self.databases.values():
            database.stop()
        self._endpoints.close()
        self.store.close()


def _grant(member: str, role: str, resource: Resource | None, condition: Any) -> Grant:
    try:
        parsed = Condition.parse(condition["expression"]) if condition else None
    except UnsupportedCondition as error:
        raise Unsupported(str(error)) from None
    return Grant(role, member, resource, parsed)
