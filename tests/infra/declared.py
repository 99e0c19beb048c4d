"""Runs the unmodified program under Pulumi's mocks and records what it declares.

Assertions inside `apply` would fail silently, so there are none: the program runs to its end, and
the tests look at the requests that the engine got.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from pulumi.runtime import mocks, rpc

from local import mocks as under_mocks

ROOT = Path(__file__).parents[2]
PROJECT = "my-project"
NUMBER = "123456789012"
# Not the default region, so that code that ignores the setting fails.
REGION = "europe-west4"
REGISTRY_TOKEN = "registry-token-of-this-run"
DIGEST = "sha256:" + "d" * 64
IAP_AGENT = f"service-{NUMBER}@gcp-sa-iap.iam.gserviceaccount.com"
POOL = f"projects/{NUMBER}/locations/global/workloadIdentityPools/github-ab12cd"
ADDRESS = "203.0.113.80"
STORAGE_AGENT = f"service-{NUMBER}@gs-project-accounts.iam.gserviceaccount.com"

UNKNOWN = "<unknown>"


class Secret:
    """Marks a recorded value that the engine was told to encrypt."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _decoded(value: Any) -> Any:
    """Returns the engine's wire format as plain values, `Secret` and `UNKNOWN`."""
    if value == rpc.UNKNOWN:
        return UNKNOWN
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, dict):
        # Numbers arrive as floats.
        return int(value) if isinstance(value, float) and value.is_integer() else value
    signature = value.get(rpc._special_sig_key)
    if signature == rpc._special_secret_sig:
        return Secret(_decoded(value["value"]))
    if signature == rpc._special_output_value_sig:
        inner = _decoded(value["value"]) if "value" in value else UNKNOWN
        return Secret(inner) if value.get("secret") else inner
    return {key: _decoded(item) for key, item in value.items()}


def shown(value: Any) -> Any:
    """Returns the value without its marks."""
    if isinstance(value, Secret):
        return shown(value.value)
    if isinstance(value, list):
        return [shown(item) for item in value]
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    return value


def plain_strings(value: Any) -> Iterator[str]:
    """Returns every string that would be stored and printed unencrypted."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from plain_strings(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from plain_strings(item)


@dataclass
class Declared:
    """One resource, as the program asked the engine for it."""

    type: str
    name: str
    urn: str
    parent: str
    custom: bool
    raw: dict[str, Any]
    depends_on: frozenset[str]
    protect: bool
    ignore_changes: tuple[str, ...]
    delete_before_replace: bool
    # `<urn>::<id>` of a provider that the program made; otherwise the engine's default.
    provider: str

    @property
    def inputs(self) -> dict[str, Any]:
        return shown(self.raw)

    @property
    def kind(self) -> str:
        return self.type.split(":")[-1]

    def __str__(self) -> str:
        return f"{self.type} {self.name}"


@dataclass
class Program:
    """Everything that one run of the program declared."""

    resources: list[Declared] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any], frozenset[str]]] = field(default_factory=list)

    @property
    def created(self) -> list[Declared]:
        """Returns all resources except components: those that cost money or grant access."""
        return [resource for resource in self.resources if resource.custom]

    def all(self, type_: str) -> list[Declared]:
        return [resource for resource in self.resources if resource.type == type_]

    def one(self, type_: str, name: str | None = None) -> Declared:
        found = [r for r in self.all(type_) if name in (None, r.name)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} of {type_} {name or ''}")
        return found[0]

    def counts(self) -> dict[str, int]:
        kinds = [resource.type for resource in self.created]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}

    def before(self, resource: Declared) -> set[str]:
        """Returns the URNs of all resources that exist before this one, directly or indirectly."""
        by_urn = {each.urn: each for each in self.resources}
        seen: set[str] = set()
        queue = list(resource.depends_on)
        while queue:
            urn = queue.pop()
            if urn not in seen:
                seen.add(urn)
                queue.extend(by_urn[urn].depends_on)
        return seen

    @property
    def service(self) -> Declared:
        return self.one("gcp:cloudrunv2/service:Service")

    @property
    def container(self) -> dict[str, Any]:
        [container] = self.service.inputs["template"]["containers"]
        return container

    @property
    def env(self) -> dict[str, str]:
        return {env["name"]: env["value"] for env in self.container["envs"]}


class _Cloud(mocks.Mocks):
    """Responds as Google, Docker and the random provider would."""

    def __init__(self, *, preview: bool) -> None:
        self._preview = preview

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        inputs = dict(args.inputs)
        if self._preview:
            # Like the engine: only the inputs are known before the resource exists.
            return None, inputs
        return f"{args.name}-id", {**inputs, **self._answers(args.typ, args.name, inputs)}

    def call(self, args: mocks.MockCallArgs) -> dict[str, Any]:  # type: ignore[override]
        answers = {
            "gcp:organizations/getProject:getProject": {"number": NUMBER, "projectId": PROJECT},
            "gcp:organizations/getClientConfig:getClientConfig": {"accessToken": REGISTRY_TOKEN},
            "gcp:sql/getDatabaseInstances:getDatabaseInstances": {"instances": []},
            "gcp:storage/getProjectServiceAccount:getProjectServiceAccount": {
                "emailAddress": STORAGE_AGENT,
                "member": f"serviceAccount:{STORAGE_AGENT}",
            },
        }
        return answers[args.token]

    @staticmethod
    def _answers(type_: str, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        match type_:
            case "random:index/randomPassword:RandomPassword":
                return {"result": f"generated-{name}"}
            case "random:index/randomId:RandomId":
                return {"hex": "ab12cd"}
            case "gcp:serviceaccount/account:Account":
                email = f"{inputs['accountId']}@{PROJECT}.iam.gserviceaccount.com"
                return {"email": email, "name": f"projects/{PROJECT}/serviceAccounts/{email}"}
            case "gcp:projects/iAMCustomRole:IAMCustomRole":
                return {"name": f"projects/{PROJECT}/roles/{inputs['roleId']}"}
            case "gcp:projects/serviceIdentity:ServiceIdentity":
                service = inputs["service"].partition(".")[0]
                email = f"service-{NUMBER}@gcp-sa-{service}.iam.gserviceaccount.com"
                return {"email": email, "member": f"serviceAccount:{email}"}
            case "gcp:iam/workloadIdentityPool:WorkloadIdentityPool":
                return {"name": POOL}
            case "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider":
                return {"name": f"{POOL}/providers/{inputs['workloadIdentityPoolProviderId']}"}
            case "gcp:sql/databaseInstance:DatabaseInstance":
                return {"connectionName": f"{PROJECT}:{inputs['region']}:{inputs['name']}"}
            case "gcp:secretmanager/secretVersion:SecretVersion":
                return {"version": "1"}
            case "gcp:cloudrunv2/service:Service":
                return {"uri": f"https://{inputs['name']}-abc123-uc.a.run.app"}
            case "gcp:compute/globalAddress:GlobalAddress":
                return {"address": inputs.get("address", ADDRESS)}
            case "gcp:monitoring/notificationChannel:NotificationChannel":
                return {"name": f"projects/{PROJECT}/notificationChannels/1"}
            case "gcp:monitoring/uptimeCheckConfig:UptimeCheckConfig":
                return {"uptimeCheckId": "health-ab12cd"}
            case "docker:index/image:Image":
                return {"repoDigest": f"{inputs['imageName'].rsplit(':', 1)[0]}@{DIGEST}"}
            case "command:local:Command":
                image = inputs["environment"]["IMAGE"].rsplit(":", 1)[0]
                return {"stdout": f"{image}@{DIGEST}\n"}
        return {}


class _Monitor(mocks.MockMonitor):
    """Keeps each request complete: Pulumi's mocks pass on neither secrets nor options."""

    def __init__(self, cloud: _Cloud, program: Program) -> None:
        super().__init__(cloud)
        self._program = program

    def RegisterResource(self, request: Any) -> Any:
        response = super().RegisterResource(request)
        if request.type == "pulumi:pulumi:Stack":
            return response
        self._program.resources.append(
            Declared(
                type=request.type,
                name=request.name,
                urn=response.urn,
                parent=request.parent,
                custom=request.custom,
                raw=_decoded(MessageToDict(request.object)),
                depends_on=frozenset(request.dependencies),
                protect=request.protect,
                ignore_changes=tuple(request.ignoreChanges),
                delete_before_replace=request.deleteBeforeReplace,
                provider=request.provider,
            )
        )
        return response

    def RegisterResourceOutputs(self, request: Any) -> Any:
        # The complete type: a component's type follows its parent's in the URN.
        if "::pulumi:pulumi:Stack::" in request.urn:
            self._program.outputs = _decoded(MessageToDict(request.outputs))
        return super().RegisterResourceOutputs(request)

    def Invoke(self, request: Any) -> Any:
        arguments = _decoded(MessageToDict(request.args))
        self._program.calls.append((request.tok, arguments, frozenset(request.dependsOn)))
        return super().Invoke(request)


def deploy() -> None:
    runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__")


def run(
    config: Mapping[str, Any] | None = None,
    *,
    preview: bool = False,
    into: Program | None = None,
    main: Callable[[], None] = deploy,
) -> Program:
    """Run `__main__.py` with this configuration, with keys as `pulumi config set` takes them."""
    program = into or Program()
    values = {"gcp:project": PROJECT, "gcp:region": REGION, **(config or {})}
    under_mocks.run(
        main,
        monitor=_Monitor(_Cloud(preview=preview), program),
        stack="test",
        config={
            key if ":" in key else f"mlflow-gcp:{key}": value
            if isinstance(value, str)
            else json.dumps(value)
            for key, value in values.items()
            if value is not None
        },
        secrets=["mlflow-gcp:trackingPassword"],
        preview=preview,
    )
    return program


def recorded(config: Mapping[str, Any] | None = None, *, preview: bool = False) -> Program:
    """Returns what `run` returns. Tests share it, so they must not change it."""
    return _recorded(json.dumps(config or {}, sort_keys=True), preview)


@cache
def _recorded(config: str, preview: bool) -> Program:
    return run(json.loads(config), preview=preview)
