"""The operations on a project: creates, changes and deletes its resources, as Google does.

All calls have plain dictionaries with the provider's property names, and don't depend on Pulumi:
an adapter makes the calls, `local/program.py` (mocks) or `fake_google/provider.py` (the provider
protocol). `fake_google/resource_types.py` defines the types. Resources of other types are only
recorded, and their outputs are their inputs.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from pathlib import Path

from fake_google.errors import ApiNotEnabled, BootRefused, Refused, Unreachable, Unsupported
from fake_google.iam import policy as iam
from fake_google.kms import service_agent
from fake_google.project import PROJECT_NUMBER, Inputs, Live, Outputs, Project
from fake_google.resource_type import Kind
from fake_google.resource_types import KINDS
from fake_google.run import services
from fake_google.sql import instances


@dataclass(frozen=True)
class Difference:
    changed: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    # Whether the old resource must be deleted before the new one is created.
    delete_first: bool = False


class Cloud:
    """Google Cloud with one project."""

    def __init__(self, project: Project) -> None:
        self.project = project
        # Pulumi creates independent resources concurrently.
        self._lock = threading.RLock()

    # For callers without a state

    def ensure(self, token: str, name: str, inputs: Inputs) -> tuple[str, Outputs]:
        """Creates a resource, or finds the one that an earlier run created."""
        with self._lock:
            if not KINDS.get(token, _RECORDED).kept:
                return self._make(token, name, inputs)
            # The value stays the same as long as the inputs do.
            values = self.project.state.load("random.json")
            key = f"{token} {name}"
            wanted = {given: value for given, value in inputs.items() if value is not None}
            if values.get(key, {}).get("inputs") != wanted:
                made, outputs = self._make(token, name, inputs)
                values[key] = {"inputs": wanted, "id": made, "outputs": outputs}
                self.project.state.save("random.json", values)
            return str(values[key]["id"]), dict(values[key]["outputs"])

    # For callers that keep the state: the methods of a Pulumi provider

    def check(self, token: str, inputs: Inputs, *, folder: Path) -> Outputs:
        return KINDS.get(token, _RECORDED).check(inputs, folder)

    def diff(self, token: str, olds: Inputs, news: Inputs) -> Difference:
        kind = KINDS.get(token, _RECORDED)
        olds, news = {**kind.defaults, **olds}, {**kind.defaults, **news}
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
            delete_first=bool(replaces) and (kind.deleted_first or kind.autonamed in news),
        )

    def create(self, token: str, name: str, inputs: Inputs) -> tuple[str, Outputs]:
        with self._lock:
            kind = KINDS.get(token, _RECORDED)
            if kind.taken:
                key = kind.taken(self.project, inputs)
                if any(
                    kind.taken(self.project, live.inputs) == key
                    for (other, _), live in self.project.live.items()
                    if other == token
                ):
                    raise Refused(f"Error 409: {key} already exists, alreadyExists")
            return self._make(token, name, inputs)

    def update(
        self, token: str, resource_id: str, name: str, *, olds: Inputs, news: Inputs
    ) -> Outputs:
        """Changes a resource. `olds` has its inputs and outputs in the caller's state."""
        with self._lock:
            inputs = KINDS.get(token, _RECORDED).sent(olds, news)
            live = self.project.read(token, resource_id)
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
            if live := self.project.read(token, resource_id):
                KINDS.get(token, _RECORDED).delete(self.project, olds, live.inputs)
                del self.project.live[token, resource_id]

    def invoke(self, function: str, arguments: Inputs) -> Outputs:
        match function:
            case "gcp:organizations/getProject:getProject":
                project = arguments.get("projectId") or self.project.id
                return {"projectId": project, "name": project, "number": PROJECT_NUMBER}
            case "gcp:organizations/getClientConfig:getClientConfig":
                token = f"ya29.{secrets.token_urlsafe(32)}"
                return {
                    "accessToken": token,
                    "project": self.project.id,
                    "region": self.project.region,
                }
            case "gcp:sql/getDatabaseInstances:getDatabaseInstances":
                return {"instances": instances.described(self.project, arguments)}
            case "gcp:storage/getProjectServiceAccount:getProjectServiceAccount":
                agent = service_agent("storage")
                self.project.agents.add(agent)
                return {"emailAddress": agent, "member": f"serviceAccount:{agent}"}
        raise Unsupported(f"The function {function} has no stand-in on this computer.")

    def _make(
        self, token: str, name: str, inputs: Inputs, *, found: str | None = None
    ) -> tuple[str, Outputs]:
        kind = KINDS.get(token, _RECORDED)
        if kind.api and f"{kind.api}.googleapis.com" not in self.project.enabled:
            raise ApiNotEnabled(
                f"Error 403: {kind.api}.googleapis.com has not been used in project "
                f"{PROJECT_NUMBER} before or it is disabled (declaring {token} {name!r})."
            )
        try:
            made, outputs = kind.make(self.project, name, inputs)
        except BootRefused as refused:
            self.project.live[token, refused.resource_id] = Live(
                inputs, {**inputs, **refused.outputs}
            )
            raise
        if found:
            outputs |= {key: self.project.live[token, found].outputs[key] for key in kind.assigned}
        resource_id, outputs = found or made, {**inputs, **outputs}
        if not kind.kept:
            self.project.live[token, resource_id] = Live(inputs, outputs)
        return resource_id, outputs

    def check_reachable(self) -> None:
        """Checks, from the declared grants, that someone may call the service.

        No front end enforces the grants on this computer.
        """
        for inputs in self.project.all("gcp:cloudrunv2/service:Service"):
            callers = services.callers(self.project, inputs)
            if not callers:
                raise Unreachable(
                    "Error: Forbidden. Your client does not have permission to get URL / from this "
                    "server. (Nobody has roles/run.invoker and invokerIamDisabled is not set; or, "
                    "with iapEnabled, IAP's service agent has no roles/run.invoker or nobody "
                    "roles/iap.httpsResourceAccessor.)"
                )
            if callers != [iam.EVERYONE]:
                self.project.say(
                    f"here everybody on this computer reaches the server; on Google Cloud, "
                    f"{', '.join(callers)} would"
                )


_RECORDED = Kind(lambda _, name, inputs: (f"{name}-{secrets.token_hex(4)}", {}))
