"""A stand-in for a project on Google Cloud: creates, changes and deletes its resources.

All calls have plain dictionaries with the provider's property names, and don't depend on Pulumi:
an adapter makes the calls, `local/program.py` (mocks) or `fake_google/provider.py` (the provider
protocol). `fake_google/resource_types.py` defines the types. Resources of other types are only
recorded, and their outputs are their inputs.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fake_google.endpoints import Endpoints
from fake_google.errors import ApiNotEnabled, BootRefused, Refused, Unreachable, Unsupported
from fake_google.iam import policy as iam
from fake_google.iam.policy import Condition, Grant, Policy, Resource, UnsupportedCondition
from fake_google.iam.sign_blob import Keys, iam_credentials
from fake_google.kms import service_agent
from fake_google.metadata_server import Identities, metadata_server
from fake_google.resource_type import PROJECT_NUMBER, Inputs, Kind, Outputs
from fake_google.resource_types import KINDS
from fake_google.run import services
from fake_google.run.container import Service
from fake_google.secret_manager import SecretStore, secret_manager
from fake_google.sql.postgres import Postgres, RecordedInstance
from fake_google.state import State
from fake_google.storage.api import Storage
from fake_google.storage.objects import Store


@dataclass
class Live:
    """One resource as it really is, whatever a caller's state says."""

    inputs: Inputs
    outputs: Outputs


@dataclass(frozen=True)
class Difference:
    changed: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    # Whether the old resource must be deleted before the new one is created.
    delete_first: bool = False


@dataclass(frozen=True)
class Container:
    """How this computer runs the image's code."""

    command: Sequence[str]
    port: int


class Cloud:
    """The parts of a Google Cloud project that one program needs."""

    project: str
    region: str

    def __init__(
        self,
        *,
        state: State,
        project: str,
        region: str,
        container: Container | None,
        say: Callable[[str], None],
    ) -> None:
        """Without a container, nothing is started: instances and services are only recorded."""
        self.state, self.project, self.region = state, project, region
        self.container, self.say = container, say
        self.policy = Policy()
        self.identities = Identities()
        self.keys = Keys(state)
        self.secrets = SecretStore(state)
        self.store = Store(state.directory("storage"))
        self.databases: dict[str, Postgres | RecordedInstance] = {}
        self.services: dict[str, Service] = {}
        # By type and id.
        self.live: dict[tuple[str, str], Live] = {}
        self.enabled: set[str] = set()
        # The service agents: the accounts of Google's own services in this project.
        self.agents: set[str] = set()
        # Deleted identity pools, whose ids stay taken for a month.
        self.retired: set[str] = set()
        # Deleted custom roles, by full name, and when each was deleted.
        self.deleted_roles: dict[str, datetime] = {}
        # Networks that are peered with Google's own, and those that Cloud SQL has used.
        self.peered: set[str] = set()
        self.produced: set[str] = set()
        self.stopping = threading.Event()
        # Pulumi creates independent resources concurrently.
        self._lock = threading.RLock()
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
                project=project,
                number=PROJECT_NUMBER,
            )
        )
        self.iam_credentials_endpoint = self._endpoints.serve(
            iam_credentials(
                keys=self.keys, policy=self.policy, identities=self.identities, project=project
            )
        )

    # For callers without a state

    def ensure(self, token: str, name: str, inputs: Inputs) -> tuple[str, Outputs]:
        """Creates a resource, or finds the one that an earlier run created."""
        with self._lock:
            if not KINDS.get(token, _RECORDED).kept:
                return self._make(token, name, inputs)
            # The value stays the same as long as the inputs do.
            values = self.state.load("random.json")
            key = f"{token} {name}"
            wanted = {given: value for given, value in inputs.items() if value is not None}
            if values.get(key, {}).get("inputs") != wanted:
                made, outputs = self._make(token, name, inputs)
                values[key] = {"inputs": wanted, "id": made, "outputs": outputs}
                self.state.save("random.json", values)
            return str(values[key]["id"]), dict(values[key]["outputs"])

    # For callers that keep the state: the methods of a Pulumi provider

    def check(self, token: str, inputs: Inputs, *, folder: Path) -> Outputs:
        return KINDS.get(token, _RECORDED).check(inputs, folder)

    def diff(self, token: str, olds: Inputs, news: Inputs) -> Difference:
        kind = KINDS.get(token, _RECORDED)
        changed = {
            key
            for key in olds.keys() | news.keys()
            if (key not in olds or key not in news or not kind.same(key, olds[key], news[key]))
        }
        replaces = changed if kind.immutable is None else changed & kind.immutable
        replaces |= kind.replaces(olds, news)
        return Difference(
            changed=tuple(sorted(changed)),
            replaces=tuple(sorted(replaces)),
            delete_first=bool(
                replaces and kind.taken and kind.taken(self, olds) == kind.taken(self, news)
            ),
        )

    def create(self, token: str, name: str, inputs: Inputs) -> tuple[str, Outputs]:
        with self._lock:
            kind = KINDS.get(token, _RECORDED)
            if kind.taken:
                key = kind.taken(self, inputs)
                if any(
                    kind.taken(self, live.inputs) == key
                    for (other, _), live in self.live.items()
                    if other == token
                ):
                    raise Refused(f"Error 409: {key} already exists, alreadyExists")
            return self._make(token, name, inputs)

    def read(self, token: str, resource_id: str) -> Live | None:
        return self.live.get((token, resource_id))

    def update(self, token: str, resource_id: str, name: str, inputs: Inputs) -> Outputs:
        with self._lock:
            live = self.read(token, resource_id)
            if live is None:
                raise Refused(f"Error 404: {resource_id} not found.")
            # The engine updates a resource whose creation failed, with the same inputs. The
            # provider then doesn't call Google, so a service whose boot failed doesn't boot again.
            if live.inputs == inputs:
                return dict(live.outputs)
            return self._make(token, name, inputs, found=resource_id)[1]

    def delete(self, token: str, resource_id: str, olds: Inputs) -> None:
        """Deletes a resource. `olds` has its inputs and outputs in the caller's state."""
        with self._lock:
            # It may have been deleted already.
            if live := self.read(token, resource_id):
                KINDS.get(token, _RECORDED).delete(self, olds, live.inputs)
                del self.live[token, resource_id]

    def invoke(self, function: str, arguments: Inputs) -> Outputs:
        match function:
            case "gcp:organizations/getProject:getProject":
                project = arguments.get("projectId") or self.project
                return {"projectId": project, "name": project, "number": PROJECT_NUMBER}
            case "gcp:organizations/getClientConfig:getClientConfig":
                token = f"ya29.{secrets.token_urlsafe(32)}"
                return {"accessToken": token, "project": self.project, "region": self.region}
            case "gcp:storage/getProjectServiceAccount:getProjectServiceAccount":
                agent = service_agent("storage")
                self.agents.add(agent)
                return {"emailAddress": agent, "member": f"serviceAccount:{agent}"}
        raise Unsupported(f"The function {function} has no stand-in on this computer.")

    def _make(
        self, token: str, name: str, inputs: Inputs, *, found: str | None = None
    ) -> tuple[str, Outputs]:
        kind = KINDS.get(token, _RECORDED)
        if kind.api and f"{kind.api}.googleapis.com" not in self.enabled:
            raise ApiNotEnabled(
                f"Error 403: {kind.api}.googleapis.com has not been used in project "
                f"{PROJECT_NUMBER} before or it is disabled (declaring {token} {name!r})."
            )
        try:
            made, outputs = kind.make(self, name, inputs)
        except BootRefused as refused:
            self.live[token, refused.resource_id] = Live(inputs, {**inputs, **refused.outputs})
            raise
        resource_id, outputs = found or made, {**inputs, **outputs}
        if not kind.kept:
            self.live[token, resource_id] = Live(inputs, outputs)
        return resource_id, outputs

    def close(self) -> None:
        """Stops everything, dependents first."""
        self.stopping.set()
        for service in self.services.values():
            service.stop()
        for database in self.databases.values():
            database.stop()
        self._endpoints.close()
        self.store.close()

    def check_reachable(self) -> None:
        """Checks, from the declared grants, that someone may call the service.

        No front end enforces the grants on this computer.
        """
        for inputs in self._all("gcp:cloudrunv2/service:Service"):
            callers = services.callers(self, inputs)
            if not callers:
                raise Unreachable(
                    "Error: Forbidden. Your client does not have permission to get URL / from this "
                    "server. (Nobody has roles/run.invoker and invokerIamDisabled is not set; or, "
                    "with iapEnabled, IAP's service agent has no roles/run.invoker or nobody "
                    "roles/iap.httpsResourceAccessor.)"
                )
            if callers != [iam.EVERYONE]:
                self.say(
                    f"here everybody on this computer reaches the server; on Google Cloud, "
                    f"{', '.join(callers)} would"
                )

    def client_environment(self) -> dict[str, str]:
        """Returns the variables with which a client on this computer reaches the bucket.

        With STORAGE_EMULATOR_HOST, google-cloud-storage would use no credentials. CLOUDSDK_CONFIG
        hides the user's own credentials.
        """
        email = f"developer@{self.project}.iam.gserviceaccount.com"
        for inputs in self._all("gcp:storage/bucket:Bucket"):
            bucket = iam.bucket(inputs["name"])
            self.grant(f"serviceAccount:{email}", "roles/storage.objectUser", bucket, None)
        return {
            "API_ENDPOINT_OVERRIDE": self.storage_endpoint,
            "CLOUDSDK_CONFIG": str(self.state.directory("home")),
            "GOOGLE_CLOUD_PROJECT": self.project,
            **self.metadata_environment(email),
        }

    def metadata_environment(self, email: str) -> dict[str, str]:
        """Starts a metadata server for this identity; returns the variables to find it."""
        handler = metadata_server(
            identities=self.identities, email=email, project=self.project, number=PROJECT_NUMBER
        )
        host = self._endpoints.serve(handler).removeprefix("http://")
        return {"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host}

    def cloudsql_root(self) -> Path:
        """Returns the directory that stands for a container's /cloudsql."""
        return self.state.cloudsql_root()

    def grant(self, member: str, role: str, resource: Resource | None, condition: Any) -> None:
        self.policy.add(_grant(member, role, resource, condition))
        if role not in iam.ROLES and role not in self.policy.custom_roles:
            self.say(f"{role} is not known here and grants {member} nothing")

    def revoke(self, member: str, role: str, resource: Resource | None, condition: Any) -> None:
        self.policy.remove(_grant(member, role, resource, condition))

    def _all(self, token: str) -> list[Inputs]:
        return [live.inputs for (other, _), live in self.live.items() if other == token]


def _grant(member: str, role: str, resource: Resource | None, condition: Any) -> Grant:
    try:
        parsed = Condition.parse(condition["expression"]) if condition else None
    except UnsupportedCondition as error:
        raise Unsupported(str(error)) from None
    return Grant(role, member, resource, parsed)


_RECORDED = Kind(lambda _, name, inputs: (f"{name}-{secrets.token_hex(4)}", {}))
