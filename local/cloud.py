"""What each resource type that the program declares is on this computer.

`Cloud.create` and `Cloud.invoke` take plain dictionaries with the provider's property names and
know nothing of Pulumi: an adapter brings the calls, `local/program.py` or the provider protocol.
A type that is not in the table is recorded, and its inputs are its outputs.
"""

from __future__ import annotations

import base64
import secrets as random
import string
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local import policy as iam
from local.endpoints import Endpoints
from local.iam_credentials import Keys, iam_credentials
from local.metadata import Identities, metadata_server
from local.objects import Store
from local.policy import Condition, Grant, Policy, Resource, UnsupportedCondition
from local.postgres import Postgres, Settings
from local.run import Probe, Service, base_environment
from local.secret_manager import Secrets, secret_manager
from local.state import LocalError, State
from local.storage import Storage

PROJECT_NUMBER = "100000000001"

Inputs = Mapping[str, Any]
Outputs = dict[str, Any]


class ApiNotEnabled(LocalError):
    """Google's answer to a call of an API that is off."""


class NotFound(LocalError):
    """Google's answer to a reference that leads nowhere."""


class Unreachable(LocalError):
    """Cloud Run's answer to a caller who may not invoke the service."""


class Unsupported(LocalError):
    """Something declared that can't be imitated, where going on would prove nothing."""


@dataclass(frozen=True)
class Container:
    """How the image's code is run here."""

    command: Sequence[str]
    port: int


class Cloud:
    """A project on Google Cloud, as far as one program needs it."""

    def __init__(
        self,
        *,
        state: State,
        project: str,
        region: str,
        container: Container,
        say: Callable[[str], None],
    ) -> None:
        self.state, self.project, self.region = state, project, region
        self.container, self.say = container, say
        self.policy = Policy()
        self.identities = Identities()
        self.keys = Keys(state)
        self.secrets = Secrets(state)
        self.store = Store(state.directory("storage"))
        self.databases: dict[str, Postgres] = {}
        self.services: dict[str, Service] = {}
        self.recorded: list[tuple[str, str, Inputs]] = []
        self.enabled: set[str] = set()
        self.stopping = threading.Event()
        # Pulumi declares independent resources side by side.
        self._lock = threading.RLock()
        self._endpoints = Endpoints()
        storage = Storage(
            store=self.store, policy=self.policy, identities=self.identities, keys=self.keys
        )
        self.storage_endpoint = self._endpoints.serve(storage.handle)
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

    def create(self, token: str, name: str, inputs: Inputs) -> tuple[str, Outputs]:
        """Make a resource real, or find the one that an earlier run made."""
        with self._lock:
            self.recorded.append((token, name, inputs))
            if (api := _API.get(token)) and f"{api}.googleapis.com" not in self.enabled:
                raise ApiNotEnabled(
                    f"Error 403: {api}.googleapis.com has not been used in project "
                    f"{PROJECT_NUMBER} before or it is disabled (declaring {token} {name!r})."
                )
            make = _TABLE.get(token)
            if make is None:
                return f"{name}-id", dict(inputs)
            resource_id, outputs = make(self, name, inputs)
            return resource_id, {**inputs, **outputs}

    def invoke(self, function: str, arguments: Inputs) -> Outputs:
        if function == "gcp:organizations/getProject:getProject":
            project = arguments.get("projectId") or self.project
            return {"projectId": project, "name": project, "number": PROJECT_NUMBER}
        raise Unsupported(f"The function {function} has no stand-in on this computer.")

    def close(self) -> None:
        """End everything, what depends on others first."""
        self.stopping.set()
        for service in self.services.values():
            service.stop()
        for database in self.databases.values():
            database.stop()
        self._endpoints.close()
        self.store.close()

    def check_reachable(self) -> None:
        """Nobody stands before the service here, so who may call it is checked by declaration."""
        for token, _, inputs in self.recorded:
            if token != "gcp:cloudrunv2/service:Service" or inputs.get("invokerIamDisabled"):  # noqa: S105
                continue
            location = inputs.get("location") or self.region
            resource = iam.run_service(self.project, location, inputs["name"])
            if not self.policy.allowed(None, "run.routes.invoke", resource):
                raise Unreachable(
                    "Error: Forbidden. Your client does not have permission to get URL / from this "
                    "server. (No roles/run.invoker for allUsers and invokerIamDisabled is not set.)"
                )

    def client_environment(self) -> dict[str, str]:
        """What a client on this computer needs to reach the bucket as a developer would.

        STORAGE_EMULATOR_HOST would make google-cloud-storage go without credentials, and the
        user's own must not be found.
        """
        email = f"developer@{self.project}.iam.gserviceaccount.com"
        for token, _, inputs in self.recorded:
            if token == "gcp:storage/bucket:Bucket":  # noqa: S105
                self.grant(
                    f"serviceAccount:{email}",
                    "roles/storage.objectUser",
                    iam.bucket(inputs["name"]),
                    None,
                )
        return {
            "API_ENDPOINT_OVERRIDE": self.storage_endpoint,
            "CLOUDSDK_CONFIG": str(self.state.directory("home")),
            "GOOGLE_CLOUD_PROJECT": self.project,
            **self.metadata_environment(email),
        }

    def metadata_environment(self, email: str) -> dict[str, str]:
        """How google-auth finds a metadata server of this identity's own."""
        handler = metadata_server(
            identities=self.identities, email=email, project=self.project, number=PROJECT_NUMBER
        )
        host = self._endpoints.serve(handler).removeprefix("http://")
        return {"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host}

    def cloudsql_root(self) -> Path:
        """Stands for /cloudsql in a container that mounts it."""
        return self.state.short_directory() / "sql"

    def grant(self, member: str, role: str, resource: Resource | None, condition: Any) -> None:
        try:
            parsed = Condition.parse(condition["expression"]) if condition else None
        except UnsupportedCondition as error:
            raise Unsupported(str(error)) from None
        self.policy.add(Grant(role, member, resource, parsed))
        if role not in iam.ROLES:
            self.say(f"{role} is not known here and grants {member} nothing")

    def remembered(self, name: str, inputs: Inputs, make: Callable[[], str]) -> str:
        """A random value, the same one for as long as what was asked for is the same."""
        values = self.state.load("random.json")
        wanted = {key: value for key, value in inputs.items() if value is not None}
        if values.get(name, {}).get("inputs") != wanted:
            values[name] = {"inputs": wanted, "value": make()}
            self.state.save("random.json", values)
        return str(values[name]["value"])


# Random values: https://www.pulumi.com/registry/packages/random/


def _random_id(cloud: Cloud, name: str, inputs: Inputs) -> tuple[str, Outputs]:
    size = int(inputs["byteLength"])
    value = bytes.fromhex(cloud.remembered(f"id {name}", inputs, lambda: random.token_hex(size)))
    prefix = inputs.get("prefix") or ""
    url = base64.urlsafe_b64encode(value).decode().rstrip("=")
    outputs = {
        "hex": prefix + value.hex(),
        "dec": prefix + str(int.from_bytes(value, "big")),
        "b64Url": prefix + url,
        "b64Std": prefix + base64.b64encode(value).decode(),
    }
    return url, outputs


def _random_text(cloud: Cloud, name: str, inputs: Inputs) -> tuple[str, Outputs]:
    def make() -> str:
        special = inputs.get("overrideSpecial") or "!@#$%&*()-_=+[]{}<>:?"
        groups = {
            "Lower": string.ascii_lowercase,
            "Upper": string.ascii_uppercase,
            "Numeric": string.digits,
            "Special": special,
        }
        groups = {key: text for key, text in groups.items() if inputs.get(key.lower(), True)}
        picked = [
            random.choice(text)
            for key, text in groups.items()
            for _ in range(int(inputs.get(f"min{key}") or 0))
        ]
        everything = "".join(groups.values())
        picked += [random.choice(everything) for _ in range(int(inputs["length"]) - len(picked))]
        random.SystemRandom().shuffle(picked)
        return "".join(picked)

    result = cloud.remembered(f"text {name}", inputs, make)
    return "none", {"result": result}


# Project, identity, grants


def _api(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    cloud.enabled.add(inputs["service"])
    return f"{cloud.project}/{inputs['service']}", {}


def _account(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    email = f"{inputs['accountId']}@{cloud.project}.iam.gserviceaccount.com"
    cloud.keys.create(email)
    resource = f"projects/{cloud.project}/serviceAccounts/{email}"
    return resource, {"email": email, "member": f"serviceAccount:{email}", "name": resource}


def _member(resource: Callable[[Cloud, Inputs], Resource | None]) -> Make:
    def make(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
        role, member = inputs["role"], inputs["member"]
        target = resource(cloud, inputs)
        cloud.grant(member, role, target, inputs.get("condition"))
        where = target.name if target else f"projects/{cloud.project}"
        return f"{where}/{role}/{member}", {}

    return make


def _last(reference: str) -> str:
    """The short id out of a full resource name."""
    return reference.rpartition("/")[2]


# Secrets


def _secret(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    secret_id = inputs["secretId"]
    cloud.secrets.create(secret_id)
    name = f"projects/{PROJECT_NUMBER}/secrets/{secret_id}"
    return f"projects/{cloud.project}/secrets/{secret_id}", {"name": name}


def _secret_version(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    secret_id, enabled = _last(inputs["secret"]), inputs.get("enabled") is not False
    if cloud.secrets.versions(secret_id) is None:
        raise NotFound(f"Error 404: Secret [{inputs['secret']}] not found.")
    payload = inputs["secretData"].encode()
    version = cloud.secrets.add_version(secret_id, payload, enabled=enabled)
    name = f"projects/{PROJECT_NUMBER}/secrets/{secret_id}/versions/{version}"
    return name, {"name": name, "version": version, "enabled": enabled}


# Cloud SQL


def _sql_instance(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    instance = inputs["name"]
    declared = inputs.get("settings") or {}
    network = declared.get("ipConfiguration") or {}
    region = inputs.get("region") or cloud.region
    settings = Settings(
        connection_name=f"{cloud.project}:{region}:{instance}",
        major=int(_last(inputs["databaseVersion"].replace("_", "/"))),
        tier=declared["tier"],
        ssl_mode=network.get("sslMode") or Settings.ssl_mode,
        connector_required=declared.get("connectorEnforcement") == "REQUIRED",
        authorized_networks=tuple(
            entry["value"] for entry in network.get("authorizedNetworks") or ()
        ),
        flags=tuple((flag["name"], flag["value"]) for flag in declared.get("databaseFlags") or ()),
    )
    if instance not in cloud.databases:
        database = Postgres(state=cloud.state, settings=settings, say=cloud.say)
        cloud.databases[instance] = database
        database.start()
    address = "127.0.0.1"
    return instance, {
        "connectionName": settings.connection_name,
        "firstIpAddress": address,
        "publicIpAddress": address,
        "ipAddresses": [{"ipAddress": address, "type": "PRIMARY", "timeToRetire": ""}],
    }


def _instance_of(cloud: Cloud, inputs: Inputs) -> Postgres:
    database = cloud.databases.get(inputs["instance"])
    if database is None:
        raise NotFound(f"Error 404: The Cloud SQL instance {inputs['instance']!r} does not exist.")
    return database


def _sql_database(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    _instance_of(cloud, inputs).create_database(inputs["name"])
    path = f"projects/{cloud.project}/instances/{inputs['instance']}/databases/{inputs['name']}"
    return path, {}


def _sql_user(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    _instance_of(cloud, inputs).create_user(inputs["name"], inputs["password"])
    return f"{inputs['name']}//{inputs['instance']}", {}


# Cloud Storage


def _bucket(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    name = inputs["name"]
    uniform = bool(inputs.get("uniformBucketLevelAccess"))
    attributes = {
        "location": inputs["location"].upper(),
        "storageClass": inputs.get("storageClass") or "STANDARD",
        "iamConfiguration": {
            "uniformBucketLevelAccess": {"enabled": uniform},
            "publicAccessPrevention": inputs.get("publicAccessPrevention") or "inherited",
        },
        "versioning": {"enabled": bool((inputs.get("versioning") or {}).get("enabled"))},
    }
    cloud.store.create_bucket(name, attributes)
    link = f"{cloud.storage_endpoint}/storage/v1/b/{name}"
    return name, {"url": f"gs://{name}", "selfLink": link}


# Cloud Run


def _run_service(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    name, template = inputs["name"], inputs["template"]
    container = template["containers"][0]
    email = template.get("serviceAccount") or ""
    if email not in cloud.keys:
        raise NotFound(
            "Error 403: Permission 'iam.serviceaccounts.actAs' denied on service account "
            f"{email!r} (or it may not exist)."
        )
    home = cloud.state.directory("home")
    environment = {
        **base_environment(home),
        **_declared_environment(container),
        "PORT": str(cloud.container.port),
        "BIND_ADDRESS": "127.0.0.1",
        "K_SERVICE": name,
        "K_REVISION": f"{name}-00001-local",
        "K_CONFIGURATION": name,
        **cloud.metadata_environment(email),
        "STORAGE_EMULATOR_HOST": cloud.storage_endpoint,
        "SECRET_MANAGER_ENDPOINT": cloud.secret_manager_endpoint,
        "IAM_CREDENTIALS_ENDPOINT": cloud.iam_credentials_endpoint,
        "CLOUDSQL_ROOT": str(cloud.cloudsql_root()),
    }
    # A service answers under its own address, and this one's is not a name under run.app.
    if hosts := environment.get("MLFLOW_SERVER_ALLOWED_HOSTS"):
        environment["MLFLOW_SERVER_ALLOWED_HOSTS"] = f"{hosts},127.0.0.1,localhost"
    _mount_sockets(cloud, template, container, email)
    service = Service(
        state=cloud.state,
        name=f"server {name}",
        command=cloud.container.command,
        environment=environment,
        port=cloud.container.port,
        startup=Probe.declared(container.get("startupProbe")),
        liveness=Probe.declared(container.get("livenessProbe")),
        say=lambda line: cloud.say(f"server   {line}"),
        stopping=cloud.stopping,
    )
    limits = (container.get("resources") or {}).get("limits") or {}
    cloud.say(f"starting the server (limits, not imposed here: {limits})")
    cloud.services[name] = service
    service.start()
    location = inputs.get("location") or cloud.region
    return f"projects/{cloud.project}/locations/{location}/services/{name}", {
        "uri": service.address
    }


def _declared_environment(container: Inputs) -> dict[str, str]:
    environment = {}
    for entry in container.get("envs") or ():
        if entry.get("value") is None:
            raise Unsupported(f"The value of {entry['name']} comes from elsewhere: {entry!r}.")
        environment[entry["name"]] = entry["value"]
    return environment


def _mount_sockets(cloud: Cloud, template: Inputs, container: Inputs, email: str) -> None:
    """Cloud Run's connector: a socket for each instance that the account may connect to.

    https://cloud.google.com/sql/docs/postgres/connect-run
    """
    root = cloud.cloudsql_root()
    root.mkdir(exist_ok=True, mode=0o700)
    for stale in root.iterdir():
        (stale / ".s.PGSQL.5432").unlink(missing_ok=True)
    mounted = {
        mount["name"]
        for mount in container.get("volumeMounts") or ()
        if mount["mountPath"] == "/cloudsql"
    }
    for volume in template.get("volumes") or ():
        if volume["name"] not in mounted or not volume.get("cloudSqlInstance"):
            continue
        for connection_name in volume["cloudSqlInstance"]["instances"]:
            instance = connection_name.rpartition(":")[2]
            permission = "cloudsql.instances.connect"
            resource = iam.sql_instance(cloud.project, instance)
            if not cloud.policy.allowed(email, permission, resource):
                cloud.say(
                    "error    Cloud SQL connection failed: boss::NOT_AUTHORIZED: Not authorized to "
                    f"access resource. Possibly missing permission {permission} on resource "
                    f"instances/{instance} (roles/cloudsql.client for {email})"
                )
                continue
            link = root / connection_name / ".s.PGSQL.5432"
            if len(str(link).encode()) > 103:
                raise Unsupported(f"{link} is too long for the path of a Unix socket.")
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(_instance_of(cloud, {"instance": instance}).socket())


Make = Callable[[Cloud, str, Inputs], tuple[str, Outputs]]

_TABLE: dict[str, Make] = {
    "random:index/randomId:RandomId": _random_id,
    "random:index/randomPassword:RandomPassword": _random_text,
    "random:index/randomString:RandomString": _random_text,
    "gcp:projects/service:Service": _api,
    "gcp:projects/iAMMember:IAMMember": _member(lambda cloud, inputs: None),
    "gcp:serviceaccount/account:Account": _account,
    "gcp:serviceaccount/iAMMember:IAMMember": _member(
        lambda cloud, inputs: iam.service_account(cloud.project, _last(inputs["serviceAccountId"]))
    ),
    "gcp:secretmanager/secret:Secret": _secret,
    "gcp:secretmanager/secretVersion:SecretVersion": _secret_version,
    "gcp:secretmanager/secretIamMember:SecretIamMember": _member(
        lambda cloud, inputs: iam.secret(cloud.project, _last(inputs["secretId"]))
    ),
    "gcp:sql/databaseInstance:DatabaseInstance": _sql_instance,
    "gcp:sql/database:Database": _sql_database,
    "gcp:sql/user:User": _sql_user,
    "gcp:storage/bucket:Bucket": _bucket,
    "gcp:storage/bucketIAMMember:BucketIAMMember": _member(
        lambda cloud, inputs: iam.bucket(inputs["bucket"])
    ),
    "gcp:cloudrunv2/service:Service": _run_service,
    "gcp:cloudrunv2/serviceIamMember:ServiceIamMember": _member(
        lambda cloud, inputs: iam.run_service(
            cloud.project, inputs.get("location") or cloud.region, _last(inputs["name"])
        )
    ),
}

# The API that a declaration calls, so that one made before its API is on fails as on Google.
_API = {
    token: {
        "serviceaccount": "iam",
        "secretmanager": "secretmanager",
        "sql": "sqladmin",
        "storage": "storage",
        "cloudrunv2": "run",
    }[token.split(":")[1].split("/")[0]]
    for token in _TABLE
    if token.startswith("gcp:") and not token.startswith("gcp:projects/")
}
